"""DeLong's covariance against its formula written out pair by pair."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.delong import delong_interval, estimate_areas, p_of_areas

seeds = st.integers(0, 2**32 - 1)


def draw_case(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 2) scores with ties, (N,) targets with NaN, at least two of each class."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 50))
    scores = np.round(rng.normal(size=(n, 2)) + rng.normal(size=(n, 1)), int(rng.choice([0, 1, 9])))
    targets = rng.choice([0, 1, np.nan], n, p=[0.5, 0.3, 0.2])
    targets[:4] = [1, 1, 0, 0]
    return scores, targets


def write_out(scores: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """DeLong 1988: the covariances of the components over positives and over negatives."""
    positives, negatives = scores[targets == 1], scores[targets == 0]
    above = (positives[:, None] > negatives[None]) + 0.5 * (positives[:, None] == negatives[None])
    s10, s01 = np.cov(above.mean(axis=1).T), np.cov(above.mean(axis=0).T)
    return s10 / len(positives) + s01 / len(negatives)


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_the_covariance_is_the_one_of_all_pairs(seed: int) -> None:
    scores, targets = draw_case(seed)
    found = estimate_areas(scores, targets)
    for model in range(2):
        assert found.aurocs[model] == pytest.approx(auroc(scores[:, model], targets), abs=1e-12)
        alone = estimate_areas(scores[:, [model]], targets)
        assert alone.covariance.item() == pytest.approx(found.covariance[model, model], abs=1e-12)
    np.testing.assert_allclose(found.covariance, write_out(scores, targets), rtol=0, atol=1e-10)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_p_is_the_same_whichever_model_is_the_first(seed: int) -> None:
    scores, targets = draw_case(seed)
    there, back = (p_of_areas(estimate_areas(part, targets)) for part in (scores, scores[:, ::-1]))
    assert there == pytest.approx(back, abs=1e-12, nan_ok=True)


def test_p_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    targets = np.repeat([0.0, 1.0], 100)
    scores = rng.normal(size=(200, 2)) + targets[:, None] * [0.5, 1.0]
    p = p_of_areas(areas := estimate_areas(scores, targets))
    variance = areas.covariance[0, 0] + areas.covariance[1, 1] - 2 * areas.covariance[0, 1]
    z = (areas.aurocs[1] - areas.aurocs[0]) / np.sqrt(variance)
    assert p == pytest.approx(2 * NormalDist().cdf(-abs(z)), rel=1e-9)
    assert 1e-4 < p < 0.2
    low, high = delong_interval(areas)
    np.testing.assert_allclose(high - areas.aurocs, 1.959964 * np.sqrt(np.diag(areas.covariance)), rtol=1e-6)
    np.testing.assert_allclose(areas.aurocs - low, high - areas.aurocs)


def test_models_that_order_alike_do_not_differ() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(60)
    pair = np.stack([first, np.exp(first)], axis=1)
    assert p_of_areas(estimate_areas(pair, (rng.random(60) < 0.5).astype(float))) == 1


def test_what_cannot_be_told_is_nan() -> None:
    scores = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]])
    for targets in ([0, 0, 0], [np.nan] * 3, [1, 1, 1]):
        areas = estimate_areas(scores, np.array(targets, float))
        assert np.isnan(areas.aurocs).all()
        assert np.isnan(areas.covariance).all()
        assert np.isnan(p_of_areas(areas))
    one_positive = estimate_areas(scores, np.array([0.0, 0.0, 1.0]))
    assert one_positive.aurocs.tolist() == [1, 0]
    assert np.isnan(one_positive.covariance).all()
    perfect = estimate_areas(np.array([[0.1], [0.2], [0.8], [0.9]]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert perfect.aurocs == [1]
    assert np.isnan(delong_interval(perfect)).all()
    with pytest.raises(ValueError, match="NaN"):
        estimate_areas(np.array([[np.nan], [1.0]]), np.array([0.0, 1.0]))
