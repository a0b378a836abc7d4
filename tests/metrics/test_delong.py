"""DeLong's and Obuchowski's covariance against their formulas written out pair by pair."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.bootstrap_engine import WeightedRanking
from cxrlit.metrics.delong import compare_areas, delong_interval, estimate_areas

seeds = st.integers(0, 2**32 - 1)


def draw_case(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """(N, 2) scores with ties, (N,) targets with NaN, at least two of each class of two patients, (N,) patients."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 50))
    scores = np.round(rng.normal(size=(n, 2)) + rng.normal(size=(n, 1)), int(rng.choice([0, 1, 9])))
    targets = rng.choice([0, 1, np.nan], n, p=[0.5, 0.3, 0.2])
    patients = rng.integers(0, max(2, n // 3), n)
    targets[:4], patients[:4] = [1, 1, 0, 0], [0, 1, 0, 1]
    return scores, targets, patients


def write_out(
    scores: NDArray[np.float64], targets: NDArray[np.float64], patients: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The covariance by Obuchowski 1997, section 2, with the (positive, negative) kernel of every pair."""
    positives, negatives = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    m, n = len(positives), len(negatives)
    kernel = np.array(
        [
            [[1.0 if a > b else 0.5 if a == b else 0.0 for b in scores[negatives, k]] for a in scores[positives, k]]
            for k in range(scores.shape[1])
        ]
    )
    area, v10, v01 = kernel.mean(axis=(1, 2)), kernel.mean(axis=2), kernel.mean(axis=1)
    groups = np.unique(patients[np.concatenate([positives, negatives])])
    with_positive, with_negative = len(np.unique(patients[positives])), len(np.unique(patients[negatives]))
    s10 = s01 = s11 = np.zeros((scores.shape[1],) * 2)
    for group in groups:
        a = (v10[:, patients[positives] == group] - area[:, None]).sum(axis=1)
        b = (v01[:, patients[negatives] == group] - area[:, None]).sum(axis=1)
        s10 = s10 + np.outer(a, a) * with_positive / ((with_positive - 1) * m)
        s01 = s01 + np.outer(b, b) * with_negative / ((with_negative - 1) * n)
        s11 = s11 + np.outer(a, b) * len(groups) / (len(groups) - 1)
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def write_out_delong(scores: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """DeLong 1988: the covariances of the components over positives and over negatives."""
    positives, negatives = scores[targets == 1], scores[targets == 0]
    above = (positives[:, None] > negatives[None]) + 0.5 * (positives[:, None] == negatives[None])
    s10, s01 = np.cov(above.mean(axis=1).T), np.cov(above.mean(axis=0).T)
    return s10 / len(positives) + s01 / len(negatives)


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_the_covariance_is_the_one_of_all_pairs(seed: int) -> None:
    scores, targets, patients = draw_case(seed)
    independent, clustered = estimate_areas(scores, targets), estimate_areas(scores, targets, patients)
    for model in range(2):
        assert independent.aurocs[model] == pytest.approx(auroc(scores[:, model], targets), abs=1e-12)
    np.testing.assert_array_equal(independent.aurocs, clustered.aurocs)
    np.testing.assert_allclose(independent.covariance, write_out_delong(scores, targets), rtol=0, atol=1e-10)
    np.testing.assert_allclose(clustered.covariance, write_out(scores, targets, patients), rtol=0, atol=1e-10)
    one_each = estimate_areas(scores, targets, np.arange(len(targets))[::-1])
    np.testing.assert_allclose(one_each.covariance, independent.covariance, rtol=0, atol=1e-12)


def test_it_is_the_sum_of_squares_of_the_patients_influence() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 200, 1500)
    targets = (rng.random(200) < 0.3).astype(float)[patients]
    scores = rng.normal(size=(1500, 1)) + targets[:, None] + rng.normal(size=200)[patients][:, None]
    influence = WeightedRanking(["auroc"], scores, targets[:, None], patients, 200).influence()["auroc"][:, 0]
    variance = estimate_areas(scores, targets, patients).covariance[0, 0]
    assert variance == pytest.approx((influence**2).sum() * 200 / 199, rel=1e-2)
    assert variance > 1.5 * estimate_areas(scores, targets).covariance[0, 0]


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_paired_test_turns_its_sign_with_the_models(seed: int) -> None:
    scores, targets, _ = draw_case(seed)
    there, back = (compare_areas(estimate_areas(part, targets)) for part in (scores, scores[:, ::-1]))
    np.testing.assert_allclose((there.change, there.error, there.p), (-back.change, back.error, back.p), atol=1e-12)


def test_p_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    targets = np.repeat([0.0, 1.0], 100)
    scores = rng.normal(size=(200, 2)) + targets[:, None] * [0.5, 1.0]
    found = compare_areas(areas := estimate_areas(scores, targets))
    variance = areas.covariance[0, 0] + areas.covariance[1, 1] - 2 * areas.covariance[0, 1]
    assert found.z == pytest.approx((areas.aurocs[1] - areas.aurocs[0]) / np.sqrt(variance))
    assert found.p == pytest.approx(2 * NormalDist().cdf(-abs(found.z)), rel=1e-9)
    assert 1e-4 < found.p < 0.2
    low, high = delong_interval(areas)
    np.testing.assert_allclose(high - areas.aurocs, 1.959964 * np.sqrt(np.diag(areas.covariance)), rtol=1e-6)
    np.testing.assert_allclose(areas.aurocs - low, high - areas.aurocs)


def test_models_that_order_alike_do_not_differ() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(60)
    pair = np.stack([first, np.exp(first)], axis=1)
    found = compare_areas(estimate_areas(pair, (rng.random(60) < 0.5).astype(float)))
    assert (found.change, found.p) == (0, 1)


def test_what_cannot_be_told_is_nan() -> None:
    scores = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]])
    for targets in ([0, 0, 0], [np.nan] * 3, [1, 1, 1]):
        areas = estimate_areas(scores, np.array(targets, float))
        assert np.isnan(areas.aurocs).all()
        assert np.isnan(areas.covariance).all()
        assert np.isnan(compare_areas(areas).p)
    one_positive = estimate_areas(scores, np.array([0.0, 0.0, 1.0]))
    assert one_positive.aurocs.tolist() == [1, 0]
    assert np.isnan(one_positive.covariance).all()
    one_patient = estimate_areas(scores[[0, 1, 2, 2]], np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 2, 2]))
    assert np.isnan(one_patient.covariance).all()
    perfect = estimate_areas(np.array([[0.1], [0.2], [0.8], [0.9]]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert perfect.aurocs == [1]
    assert np.isnan(delong_interval(perfect)).all()
    with pytest.raises(ValueError, match="NaN"):
        estimate_areas(np.array([[np.nan], [1.0]]), np.array([0.0, 1.0]))
