"""Binary cross-entropy over the labels: unknown targets masked, rare positives weighted up to a cap."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cxrlit.config.train import LossConfig
from cxrlit.core.console import say
from cxrlit.core.distributed import sum_over_ranks
from cxrlit.core.ranks import n_ranks
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import read_targets


def capped_pos_weight(
    targets: NDArray[np.float32], cap: float = 10.0, draws: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Weight of the positive term of BCE for each label: negatives / positives, at most ``cap``.

    Args:
        targets: (N, L), 1 present, 0 absent, NaN unknown. Training rows only.
        cap: Upper bound, > 0.
        draws: (N,) how often an epoch draws each image; None: once.

    Returns:
        (L,) float32, in [0, cap]. A label without a positive gets ``cap``, one without a known target 1.

    >>> capped_pos_weight(np.array([[1, 0], [0, 0], [0, np.nan], [0, 0]], dtype=np.float32))
    array([ 3., 10.], dtype=float32)
    """
    weights = np.ones(len(targets)) if draws is None else draws
    positives, negatives = weights @ (targets == 1), weights @ (targets == 0)
    ratio = negatives / np.where(positives == 0, 1, positives)
    weight = np.where(positives == 0, cap, np.minimum(ratio, cap))
    return np.where(positives + negatives == 0, 1, weight).astype(np.float32)


def weigh_positives(config: LossConfig, datamodule: CXRDataModule) -> pd.DataFrame:
    """Counts of the training part and the weight of each label's positives, printed.

    Returns:
        The table of ``pos_weight.csv``: ``label``, ``positives``, ``negatives``, ``weight``; a row a label.
    """
    labels = datamodule.data.labels
    targets = read_targets(datamodule.parts["train"], labels)
    cap, repeats = config.pos_weight_cap, datamodule.repeats
    weight = capped_pos_weight(targets, cap, repeats) if cap is not None else np.ones(len(labels), np.float32)
    table = pd.DataFrame(
        {
            "label": labels,
            "positives": (targets == 1).sum(axis=0),
            "negatives": (targets == 0).sum(axis=0),
            "weight": weight,
        }
    )
    trained = table[table["positives"] + table["negatives"] > 0]
    shown = ", ".join(f"{row.label} {row.weight:.2f}" for row in trained.itertuples())
    say(f"Weight of positives ({config.name}): {shown}")
    for label in trained.loc[trained["positives"] == 0, "label"]:
        say(f"warning: {label} has no positive in training: it cannot be learned", style="yellow")
    return table


def masked_bce(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy summed over the known targets, and how many they are.

    Args:
        logits: (B, L) float32.
        targets: (B, L) float32; 1 present, 0 absent, NaN unknown.
        pos_weight: (L,) weight of the positive term; None: 1.

    Returns:
        () the sum, and () int64 the number.
    """
    known = ~targets.isnan()
    losses = binary_cross_entropy_with_logits(logits, targets.nan_to_num(), pos_weight=pos_weight, reduction="none")
    return torch.where(known, losses, 0.0).sum(), known.sum()


def share_loss(total: Tensor, n_known: Tensor, n_images: int) -> dict[str, Any]:
    """The mean loss over the known targets of the global batch, for a device that has a share of it.

    Args:
        total: () sum of the losses of this device's share.
        n_known: () how many they are; 0 in a share without a known target.
        n_images: Images of the share.

    Returns:
        ``loss``, whose gradient's mean over the devices is that of the mean loss; ``mean_loss`` and ``n_images`` of the
        global batch.
    """
    if n_ranks() == 1:
        loss = total / n_known.clamp(min=1)
        return {"loss": loss, "mean_loss": loss.detach(), "n_images": n_images}
    shares = [total.detach(), n_known.to(total.dtype), total.new_tensor(n_images)]
    total_of_all, n_known_of_all, n_images_of_all = sum_over_ranks(torch.stack(shares))
    n_known_of_all = n_known_of_all.clamp(min=1)
    mean = total_of_all / n_known_of_all
    # What is NaN or infinite on one device is NaN on all, so that all of them stop.
    return {"loss": n_ranks() * total / n_known_of_all + 0 * mean, "mean_loss": mean, "n_images": n_images_of_all}
