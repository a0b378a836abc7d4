"""The mean over labels is over those that have a value."""

import numpy as np

from cxrlit.metrics.macro import macro


def test_macro_is_over_the_defined_values() -> None:
    assert macro(np.array([np.nan, 0.25, np.nan, 0.75])) == (0.5, 2)
    value, n_labels = macro(np.array([np.nan, np.nan]))
    assert np.isnan(value)
    assert n_labels == 0
