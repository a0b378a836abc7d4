"""Confusion counts, and metrics at a threshold: F1, precision, recall, specificity.

The counts may be of images, or sums of weights where patients are resampled; each formula serves both.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.division import divide_or_nan
from cxrlit.metrics.types import Floats


class ConfusionCounts(NamedTuple):
    """Decisions against targets, (L,) or (L, T) int64 each; float64 sums of weights where patients are resampled."""

    TP: NDArray[Any]
    FP: NDArray[Any]
    TN: NDArray[Any]
    FN: NDArray[Any]


def count_decisions(probs: Floats, targets: Floats, thresholds: NDArray[np.float64]) -> ConfusionCounts:
    """Count decisions at thresholds: a prob at or above its label's threshold means present.

    Args:
        probs: (N, L).
        targets: (N, L), NaN unknown: excluded.
        thresholds: (L,), or (L, T) for T thresholds at once; the counts have the same shape.

    Returns:
        Counts of images; all 0 for a label without a known target.

    >>> probs, targets = np.array([[0.9], [0.5], [0.4], [0.7]]), np.array([[1.0], [0.0], [0.0], [np.nan]])
    >>> {name: int(count[0]) for name, count in count_decisions(probs, targets, np.array([0.5]))._asdict().items()}
    {'TP': 1, 'FP': 1, 'TN': 1, 'FN': 0}
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
    return ConfusionCounts(TP=tp, FP=fp, TN=tn, FN=fn)


def f1_score(counts: ConfusionCounts) -> NDArray[np.float64]:
    """F1, the harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN).

    Args:
        counts: (L,) or (L, T) each.

    Returns:
        Same shape, in [0, 1]; NaN for a label without a positive target: it would be 0 with a false positive, and
        0 / 0 without.

    Source: van Rijsbergen, "Information retrieval", 2nd edition, 1979, chapter 7.

    >>> f1_score(ConfusionCounts(TP=np.array([2, 0]), FP=np.array([2, 1]), TN=np.array([3, 4]), FN=np.array([0, 0])))
    array([0.66666667,        nan])
    """
    has_positive = counts.TP + counts.FN > 0
    return divide_or_nan(2 * counts.TP, np.where(has_positive, 2 * counts.TP + counts.FP + counts.FN, 0))


def decision_metrics(counts: ConfusionCounts) -> dict[str, NDArray[np.float64]]:
    """Metrics of each label at its threshold.

    Args:
        counts: (L,) or (L, T) each.

    Returns:
        By name, same shape as the counts, in [0, 1]: ``f1``, NaN without a positive target; ``precision``,
        TP / (TP + FP), NaN without a positive decision; ``recall`` (sensitivity), TP / (TP + FN), NaN without a
        positive; ``specificity``, TN / (TN + FP), NaN without a negative; ``balanced_accuracy``, the mean of both.

    Source: Sokolova and Lapalme, "A systematic analysis of performance measures for classification tasks", Information
        Processing and Management 2009; Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR
        2010.

    >>> one = ConfusionCounts(TP=np.array([2]), FP=np.array([2]), TN=np.array([3]), FN=np.array([2]))
    >>> {name: float(value[0]) for name, value in decision_metrics(one).items()}
    {'f1': 0.5, 'precision': 0.5, 'recall': 0.5, 'specificity': 0.6, 'balanced_accuracy': 0.55}
    """
    recall = divide_or_nan(counts.TP, counts.TP + counts.FN)
    specificity = divide_or_nan(counts.TN, counts.TN + counts.FP)
    return {
        "f1": f1_score(counts),
        "precision": divide_or_nan(counts.TP, counts.TP + counts.FP),
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
    }


def f1_over_labels(counts: ConfusionCounts) -> dict[str, NDArray[np.float64]]:
    """F1 over all labels together; for the mean over labels use ``macro.macro`` of ``f1_score``.

    Args:
        counts: (L,) or (L, T) each.

    Returns:
        By name, () or (T,), in [0, 1]: ``f1_micro``, F1 of the pooled decisions of all labels, NaN with neither a
        positive target nor a positive decision; ``f1_weighted``, the mean over labels weighted by their number of
        positives, NaN without a positive.

    Source: Sokolova and Lapalme, "A systematic analysis of performance measures for classification tasks", Information
        Processing and Management 2009 (micro).

    >>> two = ConfusionCounts(TP=np.array([3, 0]), FP=np.array([0, 1]), TN=np.array([1, 3]), FN=np.array([1, 0]))
    >>> {name: round(float(value), 3) for name, value in f1_over_labels(two).items()}
    {'f1_micro': 0.75, 'f1_weighted': 0.857}
    """
    pooled = ConfusionCounts(*(part.sum(axis=0) for part in counts))
    positives = counts.TP + counts.FN
    f1 = np.nan_to_num(f1_score(counts))  # a label without a positive has weight 0
    return {
        "f1_micro": divide_or_nan(2 * pooled.TP, 2 * pooled.TP + pooled.FP + pooled.FN),
        "f1_weighted": divide_or_nan((f1 * positives).sum(axis=0), positives.sum(axis=0)),
    }
