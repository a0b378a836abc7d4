"""AUROC, average precision and counts: exact, with ties, NaN where undefined. One implementation for all uses."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from cxrlit.metrics.types import Floats


def auroc(scores: Floats, targets: Floats) -> float:
    """Area under the ROC curve: the share of pairs (positive, negative) that are in order, a tie counting half.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

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
    twice = int(count_below(np.sort(positives), negatives).sum())  # looked up in order is looked up in the cache
    return twice / (2 * len(positives) * len(negatives))


def average_precision(scores: Floats, targets: Floats) -> float:
    """Area under the precision-recall steps: the mean precision at each positive, ties taken together.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

    Returns:
        In [0, 1]; NaN without both a positive and a negative: among positives alone every order has 1.

    Raises:
        ValueError: A score of a known target is NaN.

    Source: Manning, Raghavan and Schütze, "Introduction to information retrieval", 2008, section 8.4; Davis and
        Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006 (steps, because a straight line
        between two points of the curve is too high).

    >>> average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.8333333333333333
    """
    positives, negatives = (np.sort(part) for part in split_scores(scores, targets))
    if not len(positives) or not len(negatives):
        return float("nan")
    true, false = (len(part) - np.searchsorted(part, positives, side="left") for part in (positives, negatives))
    return float((true / (true + false)).mean())


def split_scores(scores: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Scores of the positives and of the negatives, in the order of the rows; those of unknown targets in neither.

    Args:
        scores: (N,), or (N, M) of M models.
        targets: (N,) 1 present, 0 absent, NaN unknown.

    Raises:
        ValueError: A score of a known target is NaN.

    >>> split_scores(np.array([0.1, 0.2, 0.3]), np.array([1.0, np.nan, 0.0]))
    (array([0.1]), array([0.3]))
    """
    positives, negatives = scores[targets == 1], scores[targets == 0]
    if np.isnan(positives).any() or np.isnan(negatives).any():
        raise ValueError("a score is NaN")
    return positives, negatives


def count_below(scores: Floats, others: Floats) -> NDArray[np.int64]:
    """Twice the number of others that each score is above, a tie counting half; so all is whole numbers.

    Args:
        scores: (N,) without NaN.
        others: (M,) without NaN.

    Returns:
        (N,) in [0, 2 M].

    >>> count_below(np.array([0.1, 0.5, 0.9]), np.array([0.5, 0.2])).tolist()
    [0, 3, 4]
    """
    order = np.sort(others)
    below, not_above = (np.searchsorted(order, scores, side=side).astype(np.int64) for side in ("left", "right"))
    return below + not_above


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
    """Decisions against targets, (L,) int64 each; sums of weights (float64) where images are resampled."""

    TP: NDArray[Any]
    FP: NDArray[Any]
    TN: NDArray[Any]
    FN: NDArray[Any]


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


def decision_metrics(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """What is said about decisions, each of the shape of the counts.

    Returns:
        ``f1``, NaN without a positive target; ``precision``, NaN where nothing was decided present; ``recall``
        (sensitivity), NaN without a positive; ``specificity``, NaN without a negative; ``balanced_accuracy``, the mean
        of those two.

    >>> one = Counts(TP=np.array([2]), FP=np.array([2]), TN=np.array([3]), FN=np.array([1]))
    >>> {name: float(value[0]) for name, value in decision_metrics(one).items()}["precision"]
    0.5
    """
    recall = divide(counts.TP, counts.TP + counts.FN)
    specificity = divide(counts.TN, counts.TN + counts.FP)
    return {
        "f1": f1_score(counts),
        "precision": divide(counts.TP, counts.TP + counts.FP),
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
    }


def f1_over_labels(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """``f1_micro``, over the pooled decisions, and ``f1_weighted``, by positives; the first axis is the labels."""
    pooled = Counts(*(part.sum(axis=0) for part in counts))
    positives = counts.TP + counts.FN
    f1 = np.nan_to_num(f1_score(counts))  # a label without a positive weighs nothing
    return {
        "f1_micro": divide(2 * pooled.TP, 2 * pooled.TP + pooled.FP + pooled.FN),
        "f1_weighted": divide((f1 * positives).sum(axis=0), positives.sum(axis=0)),
    }
