"""Scores and targets that test a metric: ties, neighbours in float32, unknown targets."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

Case = tuple[NDArray[np.float32], NDArray[np.float32]]


@st.composite
def cases(draw: st.DrawFn, n: int | None = None) -> Case:
    """(N,) float32 scores, many of them tied or a bit apart, and (N,) targets with NaN."""
    n = n or draw(st.integers(1, 40))
    a_bit_apart = np.nextafter(np.float32(0.5), np.float32(1))
    values = st.sampled_from([0.0, 0.25, 0.5, float(a_bit_apart), 1.0]) | st.floats(0, 1, width=32)
    scores = draw(arrays.arrays(np.float32, n, elements=values))
    targets = draw(arrays.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0, np.nan])))
    return scores, targets


def known(case: Case) -> Case:
    """The rows whose target is known."""
    scores, targets = case
    return scores[~np.isnan(targets)], targets[~np.isnan(targets)]
