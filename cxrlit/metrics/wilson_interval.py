"""Wilson's interval of a proportion, such as positives in a bin or boxes that are hit."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from cxrlit.metrics.division import divide_or_nan


def wilson_interval(
    hits: NDArray[np.int64], counts: NDArray[np.int64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of the proportion ``hits / counts``, within [0, 1] and valid at 0 and 1.

    Args:
        hits: (K,) number of successes, at most ``counts``.
        counts: (K,) number of independent trials.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bounds, (K,) each; NaN where the count is 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    >>> low, high = wilson_interval(np.array([0, 5]), np.array([10, 10]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.237], [0.278, 0.763])
    """
    z2 = float(ndtri((1 + level) / 2)) ** 2
    share = divide_or_nan(hits, counts)
    centre = divide_or_nan(share * counts + z2 / 2, counts + z2)
    half = np.sqrt(z2) * divide_or_nan(np.sqrt(counts * share * (1 - share) + z2 / 4), counts + z2)
    # At the ends the bound is exactly 0 or 1; rounding would put it slightly outside.
    return np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)
