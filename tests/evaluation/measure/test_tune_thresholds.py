"""Thresholds: the best of the grid, the lowest of several, none where validation cannot tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.measure.tune_thresholds import GRID, measure_stability, tune_thresholds
from cxrlit.metrics.bootstrap import bootstrap, draw_weights
from cxrlit.metrics.intervals import interval
from cxrlit.metrics.operating_point import Rule


def test_the_grid_is_a_hundredth_apart() -> None:
    assert GRID.tolist() == [number / 100 for number in range(5, 96)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_it_is_the_best_of_the_grid_and_of_several_the_lowest(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random((25, 8)), decimals).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (25, 8), p=[0.6, 0.3, 0.1]).astype(np.float32)
    tuned = tune_thresholds(probs, targets, LABELS[: probs.shape[1]])
    assert not tuned.reasons
    for label in range(8):
        rows = ~np.isnan(targets[:, label])
        preds = probs[rows, label, None].astype(float) >= GRID
        scores = f1_score(np.broadcast_to(targets[rows, label, None], preds.shape), preds, average=None)
        best = max(scores)
        assert tuned.f1[label] == pytest.approx(best, abs=1e-12)
        lowest = next(value for value, score in zip(GRID, scores, strict=True) if score > best - 1e-12)
        assert tuned.values[label] == lowest


def test_where_all_thresholds_are_equally_good_it_is_the_lowest() -> None:
    probs = np.zeros((4, 8), np.float32)
    targets = np.array([[1], [0], [1], [0]], np.float32).repeat(8, axis=1)
    np.testing.assert_array_equal(tune_thresholds(probs, targets, LABELS[: probs.shape[1]]).values, 0.05)


def test_a_label_that_validation_cannot_tell_has_none_and_a_reason() -> None:
    probs = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    targets = np.array([[1], [0], [1], [0], [1], [0]], np.float32).repeat(8, axis=1)
    targets[:, 1] = 0
    targets[:, 2] = 1
    targets[:, 3] = np.nan
    targets[:3, 4], targets[3:, 4] = 0, np.nan
    tuned = tune_thresholds(probs, targets, LABELS[: probs.shape[1]])
    assert tuned.reasons == {
        LABELS[1]: "validation has no positive",
        LABELS[2]: "validation has no negative",
        LABELS[3]: "validation has no known target",
        LABELS[4]: "validation has no positive",
    }
    assert np.flatnonzero(np.isnan(tuned.values)).tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(np.isnan(tuned.f1), np.isnan(tuned.values))


RULES: list[tuple[Rule, float | None]] = [
    ("f1_grid", None),
    ("f1_quantiles", None),
    ("youden", None),
    ("sensitivity", 0.8),
    ("specificity", 0.8),
]


def rate(probs: NDArray[np.float32], targets: NDArray[np.float32], threshold: float) -> tuple[float, float, float]:
    """Sensitivity, specificity and F1 of known targets."""
    preds = probs.astype(float) >= threshold
    hits = (preds & (targets == 1)).sum()
    f1 = 2 * hits / (preds.sum() + (targets == 1).sum())
    return float(preds[targets == 1].mean()), float(1 - preds[targets == 0].mean()), float(f1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7]), st.sampled_from([0.05, 0.5, 0.8, 1.0]))
@settings(max_examples=100, deadline=None)
def test_no_threshold_is_better_by_its_rule(seed: int, decimals: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random((20, 1)), decimals).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (20, 1), p=[0.5, 0.4, 0.1]).astype(np.float32)
    targets[:2, 0] = [0, 1]
    rows = ~np.isnan(targets[:, 0])
    of_label, known = probs[rows, 0], targets[rows, 0]
    every = {level: rate(of_label, known, level) for level in np.unique(of_label).astype(float)}

    youden = tune_thresholds(probs, targets, ["a"], "youden")
    sensitivity, specificity, f1 = rate(of_label, known, youden.values[0])
    assert sensitivity + specificity == pytest.approx(max(a + b for a, b, _ in every.values()), abs=1e-12)
    assert youden.f1[0] == pytest.approx(f1, abs=1e-12)

    sensitive = tune_thresholds(probs, targets, ["a"], "sensitivity", wanted)
    reached = rate(of_label, known, sensitive.values[0])
    assert reached[0] >= wanted - 1e-12
    assert reached[1] == pytest.approx(max(b for a, b, _ in every.values() if a >= wanted - 1e-12), abs=1e-12)

    specific = tune_thresholds(probs, targets, ["a"], "specificity", wanted)
    possible = [a for a, b, _ in every.values() if b >= wanted - 1e-12]
    if max(possible, default=0) > 0:
        reached = rate(of_label, known, specific.values[0])
        assert reached[1] >= wanted - 1e-12
        assert reached[0] == pytest.approx(max(possible), abs=1e-12)
    else:
        assert np.isnan(specific.values[0])
        assert "specificity" in specific.reasons["a"]

    best = tune_thresholds(probs, targets, ["a"], "f1_quantiles")  # fewer positives than percentiles: all of them
    assert best.f1[0] == pytest.approx(max(f for _, _, f in every.values()), abs=1e-12)


def test_of_many_positives_it_looks_at_their_percentiles() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((5000, 6)) < 0.3).astype(np.float32)
    probs = 1 / (1 + np.exp(-rng.normal(size=(5000, 6)) - targets))
    tuned = tune_thresholds(probs, targets, list("abcdef"), "f1_quantiles")
    for label in range(6):
        positives = probs[targets[:, label] == 1, label]
        n_below = (positives < tuned.values[label]).sum()
        assert n_below in [int(share * len(positives) / 100) for share in range(100)]
        assert 0.1 * len(positives) < n_below < 0.5 * len(positives)


def test_a_rare_label_has_its_threshold_below_the_grid() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((4000, 1)) < 0.01).astype(np.float32)
    probs = (0.01 * rng.random((4000, 1)) + 0.01 * targets).astype(np.float32)
    grid, quantiles = (tune_thresholds(probs, targets, ["a"], rule) for rule in ("f1_grid", "f1_quantiles"))
    assert grid.f1[0] == 0
    assert quantiles.f1[0] > 0.9
    assert 0.009 < quantiles.values[0] < 0.011


@pytest.mark.parametrize("rule", ["f1_quantiles", "youden", "sensitivity", "specificity"])
def test_no_prob_of_validation_is_at_the_threshold(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((300, 1)) < 0.3).astype(np.float32)
    probs = (rng.random((300, 1)) * 0.7 + targets * 0.3).astype(np.float32)
    tuned = tune_thresholds(probs, targets, ["a"], rule, 0.9 if rule in ("sensitivity", "specificity") else None)
    assert np.abs(probs.astype(float) - tuned.values[0]).min() > 1e-6


def test_a_wanted_value_goes_with_its_rules() -> None:
    probs, targets = np.array([[0.1], [0.9]], np.float32), np.array([[0], [1]], np.float32)
    for rule, wanted in (("youden", 0.5), ("sensitivity", None), ("specificity", 0.0), ("sensitivity", 1.1)):
        with pytest.raises(ValueError, match=rule):
            tune_thresholds(probs, targets, ["a"], rule, wanted)
    assert tune_thresholds(probs, targets, ["a"], "specificity", 1.0).wanted == 1


@pytest.mark.parametrize(("rule", "wanted"), RULES)
def test_stability_is_that_of_thresholds_tuned_on_the_repeated_rows(rule: Rule, wanted: float | None) -> None:
    rng = np.random.default_rng(2)
    patients = rng.integers(0, 25, 90)
    codes = np.unique(patients, return_inverse=True)[1]
    targets = rng.choice([0, 1, np.nan], (90, 2), p=[0.5, 0.4, 0.1]).astype(np.float32)
    probs = np.round(0.7 * rng.random((90, 2)) + 0.3 * np.nan_to_num(targets), 2)  # some at a threshold of the grid
    targets[:, 1] = 0
    tuned = tune_thresholds(probs, targets, ["a", "b"], rule, wanted)
    found = measure_stability(tuned, probs, targets, patients, n_replicates=70, seed=3)
    values = []
    for weights in draw_weights(codes.max() + 1, 70, 3):
        for column in range(weights.shape[1]):
            rows = np.repeat(np.arange(90), weights[codes, column].astype(int))
            values.append(tune_thresholds(probs[rows], targets[rows], ["a", "b"], rule, wanted).values[0])
    # What lies between two images of a resample can be cut at several places: compare what is decided.
    known = ~np.isnan(targets[:, 0])
    f1 = [rate(probs[known, 0], targets[known, 0], value)[2] for value in values]
    levels = np.unique(probs[targets[:, 0] == 1, 0]).astype(float)
    low, high = np.quantile(values, [0.025, 0.975])
    step = 0 if rule == "f1_grid" else 2 * np.diff(levels).max()
    assert found.low[0] == pytest.approx(low, abs=step)
    assert found.high[0] == pytest.approx(high, abs=step)
    assert found.f1_elsewhere[0] == pytest.approx(np.quantile(f1, 0.025), abs=1e-9 if rule == "f1_grid" else 0.03)
    assert found.f1_elsewhere[0] <= tuned.f1[0]
    of_f1 = interval(bootstrap(["f1"], probs, targets, patients, tuned.values, 70, 3)["f1"])
    assert (found.f1_low[0], found.f1_high[0]) == (of_f1.low[0], of_f1.high[0])
    assert found.f1_low[0] < tuned.f1[0] < found.f1_high[0]
    assert found.n_defined.tolist() == [70, 0]
    assert found.reasons[0] == ""
    assert found.reasons[1] == "undefined"
    assert np.isnan([found.low[1], found.high[1], found.f1_elsewhere[1]]).all()


def test_a_resample_without_a_class_chooses_nothing() -> None:
    rng = np.random.default_rng(0)
    targets = (np.arange(100) < 5).astype(np.float32)[:, None]
    probs = rng.random((100, 1)) + 0.2 * targets
    tuned = tune_thresholds(probs / 1.2, targets, ["a"], "youden")
    found = measure_stability(tuned, probs / 1.2, targets, np.arange(100), n_replicates=600)
    drawn = np.concatenate(list(draw_weights(100, 600, 0)), axis=1)
    assert found.n_defined[0] == (drawn[:5].sum(axis=0) > 0).sum() < 600


def test_a_threshold_that_always_decides_right_has_stability_and_its_f1_no_interval() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 1)) < 0.5).astype(np.float32)
    probs = 0.4 * rng.random((60, 1)) + 0.5 * targets
    tuned = tune_thresholds(probs, targets, ["a"], "f1_quantiles")
    found = measure_stability(tuned, probs, targets, np.arange(60), n_replicates=50)
    assert found.reasons == ("",)
    assert 0.4 < found.low[0] <= tuned.values[0] <= found.high[0] < 0.9
    assert np.isnan([found.f1_low[0], found.f1_high[0]]).all()


def test_a_prob_that_is_nan_is_refused() -> None:
    probs = np.array([[0.1], [np.nan], [0.4]])
    with pytest.raises(ValueError, match="Mass is NaN"):
        tune_thresholds(probs, np.array([[0.0], [1.0], [0.0]]), ["Mass"], "youden")
