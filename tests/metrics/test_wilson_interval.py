"""Wilson's interval against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cxrlit.metrics.wilson_interval import wilson_interval


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_that_of_scipy(hits: int, n: int) -> None:
    hits = min(hits, n)
    low, high = wilson_interval(np.array([hits]), np.array([n]))
    wanted = binomtest(hits, n).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert np.isnan(wilson_interval(np.array([0]), np.array([0]))).all()
