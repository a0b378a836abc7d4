"""Comparison of positives' scores with negatives', shared by AUROC, average precision and DeLong's variance."""

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.types import Floats


def split_scores(scores: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Scores of positives and of negatives, in row order; scores of unknown targets are excluded.

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
    """Twice the number of others below each score, a tie counting half: twice, so that it is an integer.

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
