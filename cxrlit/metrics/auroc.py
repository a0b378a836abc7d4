"""AUROC of one label, and of each label over a training epoch."""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from cxrlit.metrics.macro import per_label
from cxrlit.metrics.ranking import count_below, split_scores
from cxrlit.metrics.types import Floats


def auroc(scores: Floats, targets: Floats) -> float:
    """Area under the ROC curve: the fraction of correctly ordered (positive, negative) pairs; a tie counts half.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

    Returns:
        In [0, 1], exact but for one division; NaN without both a positive and a negative: there is no pair.

    Raises:
        ValueError: A score of a known target is NaN.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.875
    """
    positives, negatives = split_scores(scores, targets)
    if not len(positives) or not len(negatives):
        return float("nan")
    twice = int(count_below(np.sort(positives), negatives).sum())  # lookups in sorted order stay in the cache
    return twice / (2 * len(positives) * len(negatives))


class LabelAUROC(Metric):
    """Exact AUROC of each label over an epoch: ``auroc`` of all probs and targets of all ranks.

    Keeps all probs and targets of the epoch in memory: 64 bytes per image for 8 labels.

    >>> metric = LabelAUROC()
    >>> metric.update(torch.tensor([[0.9, 0.2], [0.3, 0.6]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    >>> metric.update(torch.tensor([[0.5, 0.1]]), torch.tensor([[0.0, torch.nan]]))
    >>> metric.compute()
    tensor([1., nan], dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = True
    probs: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, targets: Tensor) -> None:
        """Add a batch: (B, L) float32 probs, not logits, and (B, L) targets, with NaN or -1 for unknown."""
        self.probs.append(probs.detach())
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """(L,) float64, on the CPU; NaN for a label without both a positive and a negative."""
        probs, targets = (_concatenate(state).cpu() for state in (self.probs, self.targets))
        known = targets.to(torch.float32).masked_fill(targets == -1, torch.nan)
        return torch.from_numpy(per_label(auroc, probs.numpy(), known.numpy()))


def _concatenate(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(state)
