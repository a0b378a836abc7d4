"""The reliability diagram and the calibration error as written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.metrics.calibration_error import (
    N_BINS,
    assign_bins,
    expected_calibration_error,
    find_edges,
    make_reliability,
)


@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.sampled_from([1, 2, 9]))
@settings(max_examples=200, deadline=None)
def test_reliability_is_that_of_its_bins(seed: int, n: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random(n), decimals).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], n, p=[0.6, 0.3, 0.1]).astype(np.float32)
    known = ~np.isnan(targets)
    bins = make_reliability(probs, targets)
    assert bins.n_images.sum() == known.sum()
    if not known.any():
        assert np.isnan(expected_calibration_error(probs, targets))
        return
    assert len(bins.n_images) <= N_BINS
    assert (bins.n_images > 0).all()
    error = 0.0
    for lowest, highest, count, mean, observed in zip(*bins[:5], strict=True):
        rows = known & (probs >= lowest) & (probs <= highest)  # equal probs are never in two bins
        assert rows.sum() == count
        assert mean == pytest.approx(probs[rows].astype(float).mean())
        assert observed == pytest.approx(targets[rows].mean())
        error += abs(probs[rows].astype(float).sum() - targets[rows].sum()) / known.sum()
    assert expected_calibration_error(probs, targets) == pytest.approx(error, abs=1e-12)
    largest = np.unique(probs[known], return_counts=True)[1].max()
    assert bins.n_images.max() <= np.ceil(known.sum() / N_BINS) + largest


def test_bins_hold_as_many_images_each() -> None:
    probs = np.random.default_rng(0).random(1500) ** 8  # a rare label: nearly all close to 0
    counts = np.bincount(assign_bins(probs, find_edges(probs)))
    assert counts.tolist() == [100] * 15
