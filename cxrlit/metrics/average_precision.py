"""Average precision of one label."""

import numpy as np

from cxrlit.metrics.ranking import split_scores
from cxrlit.metrics.types import Floats


def average_precision(scores: Floats, targets: Floats) -> float:
    """Area under the step-wise precision-recall curve: the mean precision at each positive; ties count together.

    Args:
        scores: (N,) higher means more likely present.
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

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
