"""Resampled patients: paired, independent of order, with intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, ndtr, ndtri

from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.bootstrap import Replicates, bootstrap, draw_weights
from cxrlit.metrics.bootstrap_engine import DECISIONS, ERRORS, RANKING
from cxrlit.metrics.calibration_error import expected_calibration_error
from cxrlit.metrics.intervals import (
    MIN_PATIENTS,
    NO_VARIATION,
    degrees_of_freedom,
    find_reasons,
    interval,
    interval_of_change,
    p_of_change,
    standard_error,
)
from cxrlit.metrics.macro import macro, per_label

ALL = (*RANKING, *ERRORS, *DECISIONS)
HALF = np.full(3, 0.5)

Case = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]


def draw_case(seed: int, n: int = 300, n_patients: int = 60) -> Case:
    """(N, 3) probs, (N, 3) targets with NaN, (N,) names of patients."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([0, 1, np.nan], (n, 3), p=[0.6, 0.3, 0.1]).astype(np.float32)
    probs = np.round(0.7 * rng.random((n, 3)) + 0.3 * np.nan_to_num(targets), 2).astype(np.float32)
    return probs, targets, np.array([f"P{code}" for code in rng.integers(0, n_patients, n)])


def test_the_draws_are_the_same_on_every_machine() -> None:
    blocks = list(draw_weights(6, 100, seed=0))
    assert [block.shape for block in blocks] == [(6, 64), (6, 36)]
    weights = np.concatenate(blocks, axis=1)
    assert weights[:, 0].tolist() == [1, 2, 0, 2, 0, 1]
    assert weights[:, 99].tolist() == [0, 2, 1, 0, 2, 1]
    assert (weights.sum(axis=0) == 6).all()
    np.testing.assert_array_equal(np.concatenate(list(draw_weights(6, 70, 0)), axis=1), weights[:, :70])
    assert (np.concatenate(list(draw_weights(6, 100, 1)), axis=1) != weights).any()


def test_each_patient_is_drawn_once_on_average() -> None:
    weights = np.concatenate(list(draw_weights(50, 4000, 0)), axis=1)
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.08)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    probs, targets, patients = draw_case(seed)
    order = np.random.default_rng(seed).permutation(len(probs))
    first = bootstrap(ALL, probs, targets, patients, HALF, 20, 5)
    second = bootstrap(ALL, probs[order], targets[order], patients[order], HALF, 20, 5)
    assert tuple(first) == ALL
    for name in ALL:
        exact = 0 if name not in ERRORS else 1e-12  # sums of fractions
        for part in ("estimate", "values", "influence"):
            a, b = getattr(first[name], part), getattr(second[name], part)
            np.testing.assert_allclose(a, b, rtol=0, atol=max(exact, 1e-12 if part == "influence" else 0))


def test_the_estimate_and_the_replicates_are_those_of_the_metric() -> None:
    probs, targets, patients = draw_case(0)
    found = bootstrap(["auroc", "ece"], probs, targets, patients, None, 70, 5)
    np.testing.assert_allclose(found["auroc"].estimate, per_label(auroc, probs, targets), atol=1e-12)
    np.testing.assert_allclose(found["ece"].estimate, per_label(expected_calibration_error, probs, targets), atol=1e-12)
    names, codes = np.unique(patients, return_inverse=True)
    weights = np.concatenate(list(draw_weights(len(names), 70, 5)), axis=1)
    for replicate in (0, 64, 69):
        rows = np.repeat(np.arange(len(codes)), weights[codes, replicate].astype(int))
        wanted = per_label(auroc, probs[rows], targets[rows])
        np.testing.assert_allclose(found["auroc"].values[replicate], wanted, atol=1e-12)
    assert found["auroc"].values.shape == (70, 3)
    assert found["auroc"].influence.shape == (len(names), 3)


def test_metrics_models_and_subgroups_share_their_resamples() -> None:
    probs, targets, patients = draw_case(1)
    both = bootstrap(["auroc", "f1"], probs, targets, patients, HALF, 30, 2)
    np.testing.assert_array_equal(
        both["auroc"].values, bootstrap(["auroc"], probs, targets, patients, None, 30, 2)["auroc"].values
    )
    same = both["auroc"].minus(bootstrap(["auroc"], probs**2, targets, patients, None, 30, 2)["auroc"])
    assert not same.values.any()
    group = targets.copy()
    group[::2] = np.nan
    names, codes = np.unique(patients, return_inverse=True)
    rows = np.repeat(np.arange(len(codes)), next(draw_weights(len(names), 30, 2))[codes, 7].astype(int))
    in_group = bootstrap(["auroc"], probs, group, patients, None, 30, 2)["auroc"]
    np.testing.assert_allclose(in_group.values[7], per_label(auroc, probs[rows], group[rows]), atol=1e-12)


def test_the_macro_is_over_the_labels_of_the_estimate_and_undefined_where_one_is_missing() -> None:
    values = np.array([[0.5, 0.7, np.nan], [0.6, np.nan, np.nan]])
    labels = Replicates(np.array([0.55, 0.65, np.nan]), values, np.ones((9, 3)), np.array([9, 9, 0]))
    total = labels.macro()
    assert total.estimate.tolist() == [pytest.approx(0.6)]
    assert total.values[0, 0] == pytest.approx(0.6)
    assert np.isnan(total.values[1, 0])
    nothing = labels.only([2]).macro()
    assert np.isnan(nothing.estimate).all()
    assert nothing.values.shape == (2, 1)
    assert find_reasons(nothing) == ("undefined",)
    probs, targets, patients = draw_case(3)
    found = bootstrap(["auroc"], probs, targets, patients, None, 10, 0)["auroc"].macro()
    assert found.estimate[0] == pytest.approx(macro(per_label(auroc, probs, targets)).value, abs=1e-12)


def test_the_interval_is_scipys_bca_where_patients_are_many() -> None:
    rng = np.random.default_rng(0)
    error = rng.gamma(0.5, 0.1, 3000).clip(0, 1)  # skewed: bias and acceleration matter
    probs, targets = np.sqrt(error)[:, None], np.zeros((3000, 1))
    found = bootstrap(["brier"], probs, targets, np.arange(3000), None, 4000, 1)["brier"]
    low, high, n_defined, reasons = interval(found)
    bca = stats.bootstrap((error,), np.mean, n_resamples=4000, method="BCa", rng=2).confidence_interval
    width = bca.high - bca.low
    assert low[0] == pytest.approx(bca.low, abs=0.04 * width)
    assert high[0] == pytest.approx(bca.high, abs=0.04 * width)
    assert n_defined.tolist() == [4000]
    assert reasons == ("",)
    assert standard_error(found)[0] == pytest.approx(error.std() / np.sqrt(3000), rel=0.05)


def test_bias_skewness_and_few_patients_move_the_interval() -> None:
    rng = np.random.default_rng(0)
    values, influence = rng.normal(0.7, 0.05, (4000, 1)), rng.normal(size=(500, 1))
    plain = interval(Replicates(np.array([0.7]), values, influence, np.array([500])))
    assert (plain.low[0], plain.high[0]) == pytest.approx((0.6, 0.8), abs=0.01)
    higher = interval(Replicates(np.array([0.72]), values, influence, np.array([500])))
    assert higher.low[0] > plain.low[0] + 0.02  # the replicates lie too low: the interval moves up
    assert higher.high[0] > plain.high[0] + 0.02
    skewed = interval(Replicates(np.array([0.7]), values, np.exp(influence) - np.exp(0.5), np.array([500])))
    assert skewed.low[0] > plain.low[0]
    assert skewed.high[0] > plain.high[0]
    even = np.array([[1.0], [-1.0]] * 3)
    few = interval(Replicates(np.array([0.7]), values, even, np.array([6])))
    assert few.low[0] < plain.low[0] - 0.01
    assert few.high[0] > plain.high[0] + 0.01
    narrow = interval(Replicates(np.array([0.7]), values, influence, np.array([500])), level=0.5)
    assert plain.low[0] < narrow.low[0] < narrow.high[0] < plain.high[0]


def test_replicates_that_equal_the_estimate_count_half() -> None:
    values = np.repeat([0.6, 0.7, 0.8], [1000, 2000, 1000])[:, None]  # no bias, though a quarter alone lies below
    influence = np.random.default_rng(0).normal(size=(500, 1))
    found = interval(Replicates(np.array([0.7]), values, influence, np.array([500])))
    assert (found.low[0], found.high[0]) == (0.6, 0.8)


def test_the_interval_of_a_change_is_t_standard_errors_wide() -> None:
    rng = np.random.default_rng(0)
    values, influence = rng.normal(0.02, 0.01, (2000, 2)), rng.normal(size=(4000, 2))
    zero = Replicates(
        np.zeros(2), values * 0 + rng.normal(size=values.shape) * 1e-9, influence * 1e-9, np.array([9, 9])
    )
    changes = Replicates(np.array([0.02, 0.05]), values, influence, np.array([99, 99])).minus(zero)
    low, high, _, reasons = interval_of_change(changes)
    assert reasons == ("", "")
    error = standard_error(changes)
    np.testing.assert_allclose(high - low, 2 * 1.96 * error, rtol=0.01)
    np.testing.assert_allclose((high + low) / 2, [0.02, 0.05], atol=1e-12)
    p = p_of_change(changes)
    assert p[0] == pytest.approx(2 * ndtr(-0.02 / error[0]), rel=0.02)
    levels = 1 - p  # the interval of that level has 0 at its end
    touching = interval_of_change(changes, levels)
    np.testing.assert_allclose(touching.low, 0, atol=1e-6)
    ends = interval_of_change(changes, 0.9)
    np.testing.assert_allclose(p_of_change(changes, ends.low[0])[0], 0.1, rtol=1e-6)


@pytest.mark.parametrize(("n_patients", "n_others"), [(5, 0), (5, 20), (50, 1)])
def test_patients_without_influence_add_no_degrees_of_freedom(n_patients: int, n_others: int) -> None:
    assert degrees_of_freedom(np.append(np.resize([0.1, -0.1], n_patients), np.zeros(n_others))) == n_patients - 1


def test_what_has_no_interval_says_why() -> None:
    probs, targets, patients = draw_case(0)
    targets[:, 1] = 0
    names = np.unique(patients)
    targets[:, 2] = 0
    targets[np.isin(patients, names[: MIN_PATIENTS - 1]), 2] = 1
    found = bootstrap(["auroc"], probs, targets, patients, None, 50, 0)["auroc"]
    low, high, n_defined, reasons = interval(found)
    assert reasons == ("", "undefined", f"{MIN_PATIENTS - 1} patients where {MIN_PATIENTS} are needed")
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, True]
    assert n_defined[1] == 0
    values = np.where(np.arange(100) < 85, np.linspace(0.6, 0.7, 100), np.nan)[:, None]
    rare = Replicates(np.array([0.65]), values, np.ones((9, 1)), np.array([9]))
    assert interval(rare).reasons == ("defined in 85 of 100 resamples",)
    perfect = bootstrap(["auroc"], targets[:, :1], targets[:, :1], patients, None, 50, 0)["auroc"]
    assert perfect.estimate.tolist() == [1]
    assert interval(perfect).reasons == (NO_VARIATION,)
    assert np.isnan(interval(perfect).low).all()
    assert np.isnan(p_of_change(perfect.minus(perfect))).all()
    for part in (found.only([0]).minus(perfect), perfect.minus(found.only([0]))):  # the error of one is unknown
        assert interval_of_change(part).reasons == (NO_VARIATION,)
    ones, varied = np.ones((9, 1)), np.linspace(0.6, 0.7, 100)[:, None]
    for values, influence in ((0 * varied, ones), (varied, 0 * ones)):
        still = Replicates(np.array([0.65]), values, influence, np.array([9]))
        assert interval(still).reasons == (NO_VARIATION,)


def test_models_that_order_alike_have_a_change_of_zero() -> None:
    probs, targets, patients = draw_case(0)
    first, second = (bootstrap(["auroc"], part, targets, patients, None, 50, 0)["auroc"] for part in (probs, probs**3))
    changes = second.minus(first)
    low, high, _, reasons = interval_of_change(changes)
    assert reasons == ("", "", "")
    assert not low.any()
    assert not high.any()
    assert p_of_change(changes).tolist() == [1, 1, 1]
    assert p_of_change(changes, -0.01).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["auc"]}, "no metric is called auc"),
        ({"metrics": ["f1"], "thresholds": None}, "thresholds"),
        ({"metrics": ["f1"], "thresholds": np.full(2, 0.5)}, "1 thresholds"),
        ({"metrics": ["f1"], "scores": np.zeros((0, 1)), "targets": np.zeros((0, 1)), "patients": []}, "no images"),
        ({"metrics": ["brier"], "scores": np.full((4, 1), 1.5)}, "outside"),
        ({"metrics": ["ece"], "scores": np.full((4, 1), -0.5)}, "outside"),
        ({"metrics": ["auroc"], "scores": np.array([[0.1], [np.nan], [0.2], [0.3]])}, "NaN"),
        ({"metrics": ["brier"], "scores": np.array([[0.1], [np.nan], [0.2], [0.3]])}, "NaN"),
        ({"metrics": ["auroc"], "scores": np.zeros((3, 1))}, "do not agree"),
        ({"metrics": ["auroc"], "patients": np.arange(3)}, "do not agree"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {
        "scores": np.full((4, 1), 0.5),
        "targets": np.array([[0.0], [1], [0], [1]]),
        "patients": np.arange(4),
        "thresholds": np.array([0.5]),
        "n_replicates": 2,
    }
    with pytest.raises(ValueError, match=message):
        bootstrap(**{**arguments, **change})  # type: ignore[arg-type]


def test_scores_that_are_no_probs_can_be_ranked() -> None:
    scores, targets = np.array([[-3.0], [2.0], [7.0]]), np.array([[0.0], [1.0], [np.nan]])
    assert bootstrap(["auroc"], scores, targets, np.arange(3), None, 2)["auroc"].estimate == [1]


def test_calibration_error_of_a_calibrated_model_may_be_zero() -> None:
    rng = np.random.default_rng(0)
    probs = rng.beta(1, 4, (2000, 1))
    targets = (rng.random((2000, 1)) < probs).astype(float)
    found = bootstrap(["ece"], probs, targets, np.arange(2000), None, 400, 0)["ece"]
    low, high, *_ = interval(found)
    assert found.values.min() > found.estimate[0] / 2 > 0  # no percentile comes near
    assert low[0] == 0
    assert high[0] > found.estimate[0]
    low, high, *_ = interval(bootstrap(["ece"], np.sqrt(probs), targets, np.arange(2000), None, 400, 0)["ece"])
    assert 0.1 < low[0] < high[0] < 0.4
    assert interval(found.macro()).low == [0]


def test_calibration_error_is_not_below_the_distance_of_mean_prob_and_share_of_positives() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 3)
    targets = (rng.random((180, 2)) < [0.1, 0.3]).astype(float)
    probs = np.clip(targets * 0.1 + rng.uniform(0.35, 0.55, (180, 2)), 0, 1)  # far too high
    found = bootstrap(["ece"], probs, targets, patients, None, 1000, 0)["ece"]
    ends = [interval(found), interval(found.macro())]
    codes = np.concatenate(list(draw_weights(60, 1000, 0)), axis=1)[patients]
    gaps = (codes.T @ (probs - targets)) / codes.sum(axis=0)[:, None]
    for (low, high, *_), own in zip(ends, (gaps, gaps.mean(axis=1, keepdims=True)), strict=True):
        wanted = np.quantile(own, 0.025, axis=0)
        np.testing.assert_allclose(low, wanted, atol=0.01)
        assert (low > 0.1).all()
        assert (low < high).all()
    assert (ends[0].low <= found.estimate).all()
    turned = bootstrap(["ece"], 1 - probs, 1 - targets, patients, None, 1000, 0)["ece"]
    np.testing.assert_allclose(interval(turned).low, ends[0].low, atol=1e-9)
    even = bootstrap(["ece"], np.tile(probs.mean(axis=0), (180, 1)), targets, patients, None, 1000, 0)["ece"]
    assert (interval(even).low <= even.estimate).all()  # one bin: the two are the same number


def simulate(
    rng: np.random.Generator, n_patients: int, prevalence: float, aurocs: tuple[float, ...], shared: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Images of patients who resemble themselves, and models of known AUROC.

    A patient has 1, 2, ... images (geometric, 4 on average). What is present follows a normal liability that is the
    patient's own to 60 %. A score is normal: a shift where the label is present, a patient's effect of variance 1, and
    an image's of variance 1; so its AUROC is that of two normals of variance 2, Phi(shift / 2). Of the scores' noise
    the models share a part.

    Returns:
        (N, models) scores, (N, 1) targets, (N,) patients.
    """
    patients = np.repeat(np.arange(n_patients), rng.geometric(0.25, n_patients))
    n = len(patients)
    liability = np.sqrt(0.6) * rng.normal(size=n_patients)[patients] + np.sqrt(0.4) * rng.normal(size=n)
    present = liability > ndtri(1 - prevalence)
    common = rng.normal(size=n_patients)[patients] + rng.normal(size=n)
    scores = [
        2 * ndtri(area) * present
        + np.sqrt(shared) * common
        + np.sqrt(1 - shared) * (rng.normal(size=n_patients)[patients] + rng.normal(size=n))
        for area in aurocs
    ]
    return np.stack(scores, axis=1), present[:, None].astype(float), patients


@pytest.mark.slow
@pytest.mark.parametrize(("n_patients", "prevalence", "area"), [(100, 0.2, 0.9), (300, 0.05, 0.8)])
def test_the_interval_holds_the_true_auroc_as_often_as_it_says(n_patients: int, prevalence: float, area: float) -> None:
    rng, held = np.random.default_rng(0), []
    while len(held) < 2000:
        scores, targets, patients = simulate(rng, n_patients, prevalence, (area,))
        row = []
        for groups in (patients, np.arange(len(patients))):
            found = bootstrap(["auroc"], scores, targets, groups, None, 600, len(held))["auroc"]
            low, high, _, reasons = interval(found)
            if reasons[0]:
                break
            row.append(low[0] <= area <= high[0])
        else:
            held.append(row)
    by_patient, by_image = np.mean(held, axis=0)
    assert 0.93 <= by_patient <= 0.97
    assert by_image < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("n_patients", "prevalence", "aurocs"), [(100, 0.1, (0.85, 0.85)), (300, 0.05, (0.75, 0.8))])
def test_the_interval_holds_the_true_change_as_often_as_it_says(
    n_patients: int, prevalence: float, aurocs: tuple[float, float]
) -> None:
    rng, held, rejected = np.random.default_rng(0), [], []
    while len(held) < 1000:
        scores, targets, patients = simulate(rng, n_patients, prevalence, aurocs, shared=0.8)
        first, second = (
            bootstrap(["auroc"], scores[:, [model]], targets, patients, None, 600, len(held))["auroc"]
            for model in range(2)
        )
        low, high, _, reasons = interval_of_change(changes := second.minus(first))
        if not reasons[0]:
            held.append(low[0] <= aurocs[1] - aurocs[0] <= high[0])
            rejected.append(p_of_change(changes, aurocs[1] - aurocs[0])[0] <= 0.05)
    assert 0.93 <= np.mean(held) <= 0.975
    assert np.mean(rejected) == pytest.approx(1 - np.mean(held), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0])
def test_the_interval_holds_the_true_calibration_error(shift: float) -> None:
    """Scores of AUROC 0.8 whose true prob is known, and probs that are off by a shift of the logit."""
    apart = 2 * ndtri(0.8)

    def draw(rng: np.random.Generator, n_patients: int) -> tuple[NDArray[np.float64], ...]:
        scores, targets, patients = simulate(rng, n_patients, 0.2, (0.8,))
        return expit((apart * scores - apart**2 / 2) / 2 + np.log(0.2 / 0.8) + shift), targets, patients

    probs, targets, _ = draw(np.random.default_rng(1), 100_000)
    truth = expected_calibration_error(probs[:, 0], targets[:, 0]) if shift else 0.0
    rng, held, widths = np.random.default_rng(0), [], []
    for number in range(500):
        low, high, *_ = interval(bootstrap(["ece"], *draw(rng, 300), None, 400, number)["ece"])
        held.append(low[0] <= truth <= high[0])
        widths.append(high[0] - low[0])
    assert np.mean(held) >= 0.93
    assert np.mean(widths) < 0.12
