"""AUROC, average precision and counts: exact, with ties, NaN where undefined. One implementation for all uses."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

Floats = NDArray[np.floating[Any]]


def auroc(scores: Floats, targets: Floats) -> float:
    """Area under the ROC curve: the share of pairs (positive, negative) that are in order, a tie counting half.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

    Returns:
        In [0, 1], exact but for one division; NaN without both a positive and a negative.

    Raises:
        ValueError: A score of a known target is NaN.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.875
    """
    positives, negatives = scores[targets == 1], np.sort(scores[targets == 0])
    if np.isnan(positives).any() or np.isnan(negatives).any():
        raise ValueError("a score is NaN")
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negatives, positives, side="right").sum(dtype=np.int64)
    return int(below + not_above) / (2 * len(positives) * len(negatives))


def average_precision(scores: Floats, targets: Floats) -> float:
    """Area under the precision-recall steps: the mean precision at each positive, ties taken together.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

    Returns:
        In [0, 1]; NaN without a positive.

    >>> average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.8333333333333333
    """
    known = ~np.isnan(targets)
    scores, present = scores[known], targets[known] == 1
    if not present.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    scores, present = scores[order], present[order]
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    hits = np.cumsum(present)[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])


def per_label(metric: Any, scores: Floats, targets: Floats) -> NDArray[np.float64]:
    """``metric`` of each column: (N, L) scores and targets -> (L,)."""
    return np.array([metric(scores[:, label], targets[:, label]) for label in range(scores.shape[1])])


class Macro(NamedTuple):
    """A mean over labels, and over how many: those whose value is defined."""

    value: float
    n_labels: int


def macro(values: NDArray[np.float64]) -> Macro:
    """Mean of the defined values; NaN where none is.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    Macro(value=0.75, n_labels=2)
    """
    defined = values[~np.isnan(values)]
    return Macro(float(defined.mean()) if len(defined) else float("nan"), len(defined))


class LabelAUROC(Metric):
    """Exact AUROC of each label over an epoch.

    Keeps all probs and targets of the epoch: 64 bytes an image for 8 labels.
    """

    full_state_update = False
    probs: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, targets: Tensor) -> None:
        """Add a batch: (B, L) float32 probs, not logits, and (B, L) targets with NaN for unknown."""
        self.probs.append(probs.detach())
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """(L,) float64, on the CPU."""
        probs, targets = (_join(state).cpu().numpy() for state in (self.probs, self.targets))
        return torch.from_numpy(per_label(auroc, probs, targets))


def _join(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(state)


class Counts(NamedTuple):
    """Decisions against targets, (L,) int64 each."""

    TP: NDArray[np.int64]
    FP: NDArray[np.int64]
    TN: NDArray[np.int64]
    FN: NDArray[np.int64]


def count_decisions(probs: Floats, targets: Floats, thresholds: NDArray[np.float64]) -> Counts:
    """Count decisions at the thresholds: a prob at or above its label's threshold is present.

    Args:
        probs: (N, L).
        targets: (N, L), NaN unknown: left out.
        thresholds: (L,) or (L, T) for T thresholds at once; the counts have its shape.
    """
    grid = thresholds if thresholds.ndim == 2 else thresholds[:, None]
    counts = np.zeros((4, *grid.shape), dtype=np.int64)
    for label, label_thresholds in enumerate(grid):
        for row, value in ((0, 1), (1, 0)):  # TP among the positives, FP among the negatives
            chosen = np.sort(probs[targets[:, label] == value, label].astype(np.float64))
            below = np.searchsorted(chosen, label_thresholds, side="left")
            counts[row, label] = len(chosen) - below
            counts[3 - row, label] = below  # FN or TN
    tp, fp, tn, fn = counts if thresholds.ndim == 2 else counts[..., 0]
    return Counts(TP=tp, FP=fp, TN=tn, FN=fn)


def divide(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """``numerator / denominator``, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient: NDArray[np.float64] = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def f1_score(counts: Counts) -> NDArray[np.float64]:
    """F1 of each label: 2 TP / (2 TP + FP + FN); NaN for a label without a positive target."""
    has_positive = counts.TP + counts.FN > 0
    return divide(2 * counts.TP, np.where(has_positive, 2 * counts.TP + counts.FP + counts.FN, 0))
