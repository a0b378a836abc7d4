"""Net benefit of one label: the value of decisions at a threshold (decision curve analysis)."""

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.confusion import count_decisions
from cxrlit.metrics.types import Floats


def net_benefit(probs: Floats, targets: Floats, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """True positives less false positives, as shares of the images; a false positive at threshold t counts as
    t / (1 - t) of a true positive.

    "Treat all" is the net benefit of probs that are all 1; that of "treat none" is 0.

    Args:
        probs: (N,) calibrated, in [0, 1]; a prob at or above a threshold counts as present.
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.
        thresholds: (T,) in [0, 1).

    Returns:
        (T,), at most the share of positives; NaN without both a positive and a negative target.

    Source: Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical
        Decision Making 2006.

    >>> probs, targets = np.array([0.9, 0.6, 0.3, 0.2]), np.array([1.0, 0.0, 1.0, 0.0])
    >>> net_benefit(probs, targets, np.array([0.25, 0.5]))
    array([0.41666667, 0.        ])
    """
    counts = count_decisions(probs[:, None], targets[:, None], thresholds[None])
    positives, negatives = (targets == 1).sum(), (targets == 0).sum()
    if not positives or not negatives:
        return np.full(len(thresholds), np.nan)
    harm = counts.FP[0] * thresholds / (1 - thresholds)
    return np.asarray((counts.TP[0] - harm) / (positives + negatives))
