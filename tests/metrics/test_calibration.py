"""Calibration: the maximum of the likelihood or a reason, and the order of images kept."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.brier_score import brier_score
from cxrlit.metrics.calibration import (
    MAX_LOGIT,
    Calibration,
    apply_calibration,
    fit_calibration,
    recover_logits,
)
from cxrlit.metrics.calibration_error import expected_calibration_error

METHODS = ("temperature", "platt")
probs32 = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, float(np.float32(1) - np.float32(2**-24)), 2.0**-149])


def draw_labels(seed: int, n: int = 400) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 1) probs that are too extreme and too high, and (N, 1) targets."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (n, 1))
    targets = (rng.random((n, 1)) < expit(logits)).astype(np.float32)
    return expit(2 * logits + 1.5).astype(np.float32), targets


@given(arrays.arrays(np.float32, st.integers(1, 30), elements=probs32))
def test_logits_are_finite_and_keep_the_order_to_the_last_bit(probs: NDArray[np.float32]) -> None:
    order = np.unique(probs)
    logits = recover_logits(order)
    assert np.isfinite(logits).all()
    assert (np.diff(logits) > 0).all()
    np.testing.assert_allclose(expit(logits), order, atol=3e-8)


def test_neighbours_at_the_ends_stay_apart_in_float64_too() -> None:
    for kind in (np.float32, np.float64):
        one = kind(1)
        ends = np.array([0, np.finfo(kind).tiny, np.nextafter(one, kind(0)), 1], kind)
        assert (np.diff(recover_logits(ends[[0, 2, 3]])) > 0).all()


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_logits_in_place_of_probs_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        recover_logits(np.array([0.5, wrong]))


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_has_the_least_loss(seed: int) -> None:
    probs, targets = draw_labels(seed)
    fitted = fit_calibration(probs, targets, ["a"], "temperature")
    logits, present = recover_logits(probs[:, 0]), targets[:, 0] == 1

    def loss(slope: float) -> float:
        return float(np.logaddexp(0, np.where(present, -1, 1) * slope * logits).sum())

    best = minimize_scalar(loss, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-10}).x
    assert fitted.slope[0] == pytest.approx(best, rel=1e-6)
    assert fitted.intercept[0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_platt_is_logistic_regression_on_the_logits(seed: int) -> None:
    probs, targets = draw_labels(seed)
    fitted = fit_calibration(probs, targets, ["a"], "platt")
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(recover_logits(probs), targets[:, 0])
    assert fitted.slope[0] == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert fitted.intercept[0] == pytest.approx(model.intercept_[0], rel=1e-4, abs=1e-5)
    calibrated = apply_calibration(fitted, probs)
    assert calibrated.mean() == pytest.approx(targets.mean(dtype=np.float64), abs=1e-9)  # the equation of the intercept
    assert ((calibrated - targets) * recover_logits(probs)).sum() == pytest.approx(0, abs=1e-6)  # and of the slope


@given(st.integers(0, 2**32 - 1), st.sampled_from(METHODS))
@settings(max_examples=100, deadline=None)
def test_on_few_images_it_is_a_maximum_or_a_reason(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 15))
    probs = np.round(rng.random((n, 1)), int(rng.choice([0, 1, 3]))).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (n, 1), p=[0.5, 0.4, 0.1]).astype(np.float32)
    fitted = fit_calibration(probs, targets, ["a"], method)
    assert ("a" in fitted.reasons) == np.isnan(fitted.slope[0]) == np.isnan(fitted.intercept[0])
    if fitted.reasons:
        return
    assert fitted.slope[0] > 0
    known = ~np.isnan(targets[:, 0])
    logits = np.clip(recover_logits(probs[known, 0]), -MAX_LOGIT, MAX_LOGIT)
    error = expit(fitted.slope[0] * logits + fitted.intercept[0]) - targets[known, 0]
    assert error @ logits == pytest.approx(0, abs=1e-6)
    if method == "platt":
        assert error.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_fitted_has_a_reason_and_stays_as_it_is(method: str) -> None:
    probs = np.array([0.1, 0.2, 0.8, 0.9], np.float32)[:, None].repeat(6, axis=1)
    targets = np.array([0, 1, 0, 1], np.float32)[:, None].repeat(6, axis=1)
    targets[:, 1], targets[:, 2], targets[:, 3] = 0, 1, np.nan
    targets[:, 4] = [0, 0, 1, 1]
    targets[:, 5] = [1, 1, 0, 1]  # against the scores
    fitted = fit_calibration(probs, targets, list("abcdef"), method)
    reasons = [fitted.reasons.get(label, "") for label in "abcdef"]
    assert [bool(reason) for reason in reasons] == [False, True, True, True, True, True]
    assert [reason.split()[-1] for reason in reasons[1:4]] == ["positive", "negative", "target"]
    assert "is best" in reasons[4]
    assert "against" in reasons[5]
    calibrated = apply_calibration(fitted, probs)
    assert calibrated.dtype == np.float64
    np.testing.assert_array_equal(calibrated[:, 1:], probs[:, 1:].astype(np.float64))
    assert (calibrated[:, 0] != probs[:, 0]).any()


def test_a_slope_that_float64_cannot_follow_is_a_reason() -> None:
    probs = np.array([[0.5], [0.5 + 1e-9]]).repeat(3, axis=0)
    found = fit_calibration(probs, np.array([[0.0], [0], [1], [0], [1], [1]]), ("Mass",), "platt")
    assert found.reasons["Mass"].startswith("the best slope, ")
    assert np.isnan(found.slope[0])


def test_one_prob_for_all_images_is_a_reason() -> None:
    probs, targets = np.full((6, 1), 0.7, np.float32), np.array([[0], [1], [0], [1], [0], [0]], np.float32)
    assert "one prob" in fit_calibration(probs, targets, ["a"], "platt").reasons["a"]
    assert fit_calibration(1 - probs, targets, ["a"], "temperature").slope[0] == pytest.approx(
        np.log(2) / np.log(7 / 3)
    )
    half = np.full((6, 1), 0.5, np.float32)
    assert fit_calibration(half, targets, ["a"], "temperature").reasons


def test_classes_that_touch_at_one_prob_separate_for_platt() -> None:
    probs, targets = np.array([[0.2], [0.4], [0.4], [0.8]], np.float32), np.array([[0], [0], [1], [1]], np.float32)
    assert "separate" in fit_calibration(probs, targets, ["a"], "platt").reasons["a"]


def test_a_prob_of_one_half_says_nothing_about_temperature() -> None:
    probs, targets = np.array([[0.2], [0.5], [0.8]], np.float32), np.array([[0], [0], [1]], np.float32)
    assert "right side" in fit_calibration(probs, targets, ["a"], "temperature").reasons["a"]


def test_a_rounded_zero_does_not_outweigh_the_others() -> None:
    probs, targets = draw_labels(0)
    plain = fit_calibration(probs, targets, ["a"], "temperature").slope[0]
    probs[np.flatnonzero(targets[:, 0] == 1)[0]] = 0
    assert fit_calibration(probs, targets, ["a"], "temperature").slope[0] > plain / 3


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 2), st.floats(-5, 5))
@settings(max_examples=100, deadline=None)
def test_auroc_stays(seed: int, slope: float, intercept: float) -> None:
    assume(slope * 17.4 + intercept < 25)  # above 36 float64 has nothing left below 1
    rng = np.random.default_rng(seed)
    top = np.float32(1) - np.float32(2**-24) * np.arange(20, dtype=np.float32)  # neighbours in float32
    probs = np.concatenate([rng.random(30).astype(np.float32), top, [0.0, 1e-30, 1.0]]).astype(np.float32)[:, None]
    targets = rng.choice([0, 1, np.nan], probs.shape)
    calibration = Calibration("platt", ("a",), np.array([slope]), np.array([intercept]), {})
    calibrated = apply_calibration(calibration, probs)
    np.testing.assert_array_equal(auroc(calibrated[:, 0], targets[:, 0]), auroc(probs[:, 0], targets[:, 0]))
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_calibration_helps_what_is_out_of_calibration() -> None:
    probs, targets = draw_labels(3, 4000)
    for method, share in (("temperature", 0.95), ("platt", 0.3)):
        calibrated = apply_calibration(fit_calibration(probs, targets, ["a"], method), probs)
        before, after = (expected_calibration_error(part[:, 0], targets[:, 0]) for part in (probs, calibrated))
        assert after < share * before
        assert brier_score(calibrated[:, 0], targets[:, 0]) < brier_score(probs[:, 0], targets[:, 0])


def test_a_prob_that_is_nan_is_refused() -> None:
    probs = np.array([[0.1], [np.nan], [0.4]])
    with pytest.raises(ValueError, match="Mass is NaN"):
        fit_calibration(probs, np.array([[0.0], [1.0], [0.0]]), ["Mass"], "platt")
