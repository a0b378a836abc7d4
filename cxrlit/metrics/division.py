"""Division for metrics: undefined results are NaN, without a warning."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def divide_or_nan(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """``numerator / denominator``; NaN where the denominator is 0.

    Args:
        numerator: A number or an array.
        denominator: A number or an array of the same shape.

    >>> divide_or_nan([1, 0], [2, 0]).tolist()
    [0.5, nan]
    """
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient: NDArray[np.float64] = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient
