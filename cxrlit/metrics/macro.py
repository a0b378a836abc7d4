"""Per-label metrics, and their mean over the labels with a defined value."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.types import Floats


def per_label(metric: Any, scores: Floats, targets: Floats) -> NDArray[np.float64]:
    """``metric`` of each column: (N, L) scores and (N, L) targets -> (L,) values.

    >>> from cxrlit.metrics.brier_score import brier_score
    >>> per_label(brier_score, np.array([[0.5, 0.2], [1.0, 0.4]]), np.array([[0.0, np.nan], [1.0, np.nan]]))
    array([0.125,   nan])
    """
    return np.array([metric(scores[:, label], targets[:, label]) for label in range(scores.shape[1])])


class Macro(NamedTuple):
    """A mean over labels with defined values, and the number of these labels."""

    value: float
    n_labels: int


def macro(values: NDArray[np.float64]) -> Macro:
    """Unweighted mean of the defined values of (L,); NaN if none is defined.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    Macro(value=0.75, n_labels=2)
    """
    defined = values[~np.isnan(values)]
    return Macro(float(defined.mean()) if len(defined) else float("nan"), len(defined))
