"""Binary cross-entropy over the labels: unknown targets masked, rare positives weighted up to a cap."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def capped_pos_weight(
    targets: NDArray[np.float32], cap: float = 10.0, draws: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Weight of the positive term of BCE for each label: negatives / positives, at most ``cap``.

    Args:
        targets: (N, L), 1 present, 0 absent, NaN unknown. Training rows only.
        cap: Upper bound, > 0.
        draws: (N,) how often an epoch draws each image; None: once.

    Returns:
        (L,) float32, in [0, cap]. A label without a positive gets ``cap``.

    Raises:
        ValueError: A label has no known target.

    >>> capped_pos_weight(np.array([[1, 0], [0, 0], [0, np.nan], [0, 0]], dtype=np.float32))
    array([ 3., 10.], dtype=float32)
    """
    weights = np.ones(len(targets)) if draws is None else draws
    positives, negatives = weights @ (targets == 1), weights @ (targets == 0)
    if (positives + negatives == 0).any():
        raise ValueError(f"label {int((positives + negatives == 0).argmax())} has no known target")
    ratio = negatives / np.where(positives == 0, 1, positives)
    return np.where(positives == 0, cap, np.minimum(ratio, cap)).astype(np.float32)


def masked_bce(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the known targets.

    Args:
        logits: (B, L) float32.
        targets: (B, L) float32; 1 present, 0 absent, NaN unknown.
        pos_weight: (L,) weight of the positive term; None: 1.

    Returns:
        () the mean; 0, with a gradient of 0, where no target is known.
    """
    known = ~targets.isnan()
    losses = binary_cross_entropy_with_logits(logits, targets.nan_to_num(), pos_weight=pos_weight, reduction="none")
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)
