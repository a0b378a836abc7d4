"""Brier score of one label."""

import numpy as np

from cxrlit.metrics.division import divide_or_nan
from cxrlit.metrics.types import Floats


def brier_score(probs: Floats, targets: Floats) -> float:
    """Mean squared difference between probs and targets; 0 is best.

    Args:
        probs: (N,) in [0, 1].
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

    Returns:
        In [0, 1]; NaN without a known target: there is nothing to average.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950; his
        sum is over both outcomes, twice this one.

    >>> brier_score(np.array([0.5, 1.0]), np.array([0.0, 1.0]))
    0.125
    """
    known = ~np.isnan(targets)
    return float(divide_or_nan(((probs[known].astype(np.float64) - targets[known]) ** 2).sum(), known.sum()))
