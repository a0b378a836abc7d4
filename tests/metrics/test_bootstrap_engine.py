"""Metrics of resampled patients: the formulas' values on rows repeated as often as the patient is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from score_cases import cases

from cxrlit.metrics import bootstrap_engine as weighted
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.average_precision import average_precision
from cxrlit.metrics.bootstrap_engine import WeightedDecisions, WeightedErrors, WeightedRanking
from cxrlit.metrics.brier_score import brier_score
from cxrlit.metrics.calibration_error import assign_bins, expected_calibration_error, find_edges
from cxrlit.metrics.confusion import count_decisions, decision_metrics, f1_over_labels
from cxrlit.metrics.macro import per_label

seeds = st.integers(0, 2**32 - 1)

Resampled = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp], NDArray[np.float64]]


@st.composite
def resampled(draw: st.DrawFn) -> Resampled:
    """(N, 3) probs, many of them tied, (N, 3) targets with NaN, the patient of each image, and (P, 4) weights: whole
    numbers, in the first column 1.
    """
    n, n_patients = draw(st.integers(1, 25)), draw(st.integers(1, 8))
    probs, targets = (np.stack(parts, axis=1) for parts in zip(*(draw(cases(n)) for _ in range(3)), strict=True))
    codes = draw(arrays.arrays(np.intp, n, elements=st.integers(0, n_patients - 1)))
    weights = draw(arrays.arrays(np.float64, (n_patients, 4), elements=st.integers(0, 3).map(float)))
    weights[:, 0] = 1
    return probs, targets, codes, weights


def draw_case(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp], int]:
    """(N, 3) probs with ties, (N, 3) targets with NaN, the patient of each image, and the number of patients."""
    rng = np.random.default_rng(seed)
    n, n_patients = int(rng.integers(1, 60)), int(rng.integers(1, 12))
    decimals = int(rng.choice([0, 1, 7]))
    probs = np.round(rng.random((n, 3)), decimals).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (n, 3), p=[0.6, 0.3, 0.1]).astype(np.float32)
    return probs, targets, rng.integers(0, n_patients, n), n_patients


def repeat(codes: NDArray[np.intp], weights: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.repeat(np.arange(len(codes)), weights[codes].astype(int))


@given(resampled())
@settings(max_examples=200, deadline=None)
def test_ranking_is_that_of_the_repeated_rows(case: Resampled) -> None:
    probs, targets, codes, weights = case
    values = WeightedRanking(weighted.RANKING, probs, targets, codes, len(weights)).values(weights)
    for column in range(weights.shape[1]):
        rows = repeat(codes, weights[:, column])
        areas = per_label(auroc, probs[rows], targets[rows])
        np.testing.assert_array_equal(values["auroc"][:, column], areas)  # to the bit: counts, and one division
        wanted = per_label(average_precision, probs[rows], targets[rows])
        np.testing.assert_allclose(values["average_precision"][:, column], wanted, rtol=0, atol=1e-12)
    alone = WeightedRanking(["auroc"], probs, targets, codes, len(weights)).values(weights)
    assert list(alone) == ["auroc"]
    np.testing.assert_array_equal(alone["auroc"], values["auroc"])


@given(resampled())
@settings(max_examples=100, deadline=None)
def test_decisions_are_those_of_the_repeated_rows(case: Resampled) -> None:
    probs, targets, codes, weights = case
    thresholds = np.array([0.5, 0.3, np.nan])
    values = WeightedDecisions(probs, targets, codes, len(weights), thresholds).values(weights)
    assert set(values) == set(weighted.DECISIONS)
    for column in range(weights.shape[1]):
        rows = repeat(codes, weights[:, column])
        counts = count_decisions(probs[rows, :2], targets[rows, :2], thresholds[:2])
        for name, wanted in decision_metrics(counts).items():
            np.testing.assert_array_equal(values[name][:2, column], wanted)
            assert np.isnan(values[name][2, column])
        for name, wanted in f1_over_labels(counts).items():
            np.testing.assert_allclose(values[name][0, column], wanted, rtol=0, atol=1e-12)


@given(resampled())
@settings(max_examples=100, deadline=None)
def test_errors_are_those_of_the_repeated_rows_in_the_bins_of_all(case: Resampled) -> None:
    probs, targets, codes, weights = case
    errors = WeightedErrors(probs, targets, codes, len(weights))
    values, noise = errors.values(weights), errors.noise(weights)
    of_all = per_label(expected_calibration_error, probs, targets)
    np.testing.assert_allclose(values["ece"][:, 0], of_all, rtol=0, atol=1e-12)
    for label in range(3):
        known = ~np.isnan(targets[:, label])
        edges = find_edges(probs[known, label])

        def gaps_of(rows: NDArray[np.intp], edges: NDArray[np.float32] = edges, label: int = label) -> NDArray[float]:
            rows = rows[~np.isnan(targets[rows, label])]
            bins, error = (
                assign_bins(probs[rows, label], edges),
                probs[rows, label].astype(float) - targets[rows, label],
            )
            return np.array([error[bins == which].sum() for which in range(len(edges) + 1)]) / max(len(rows), 1)

        whole = gaps_of(np.arange(len(codes)))
        for column in range(weights.shape[1]):
            rows = repeat(codes, weights[:, column])
            wanted = brier_score(probs[rows, label], targets[rows, label])
            np.testing.assert_allclose(values["brier"][label, column], wanted, rtol=0, atol=1e-12)
            if np.isnan(wanted):
                assert np.isnan(values["ece"][label, column])
                continue
            gaps = gaps_of(rows)
            np.testing.assert_allclose(values["ece"][label, column], np.abs(gaps).sum(), rtol=0, atol=1e-12)
            np.testing.assert_allclose(noise[label, column], np.abs(gaps - whole).sum(), rtol=0, atol=1e-12)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_influence_on_ranking_is_the_derivative(seed: int) -> None:
    probs, targets, codes, n_patients = draw_case(seed)
    ranking = WeightedRanking(weighted.RANKING, probs, targets, codes, n_patients)
    values, influence = ranking.values(np.ones((n_patients, 1))), ranking.influence()
    nudged = ranking.values(1 + 1e-6 * np.eye(n_patients))
    for name in weighted.RANKING:
        for label in range(3):
            if not np.isnan(values[name][label, 0]):
                wanted = (nudged[name][label] - values[name][label]) / 1e-6
                np.testing.assert_allclose(influence[name][:, label], wanted, rtol=1e-4, atol=1e-5)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_influence_on_decisions_and_errors_is_what_leaving_out_changes(seed: int) -> None:
    probs, targets, codes, n_patients = draw_case(seed)
    others = 1 - np.eye(n_patients)
    for source in (
        WeightedDecisions(probs, targets, codes, n_patients, np.full(3, 0.5)),
        WeightedErrors(probs, targets, codes, n_patients),
    ):
        influence = source.influence()
        for name, values in source.values(others).items():
            wanted = values.mean(axis=1, keepdims=True) - values
            np.testing.assert_allclose(influence[name], wanted.T, rtol=0, atol=1e-12)


def test_support_counts_patients_not_images() -> None:
    probs = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.9], np.float32)[:, None]
    targets = np.array([1, 1, 0, 0, 0, np.nan], np.float32)[:, None]
    codes = np.array([0, 0, 0, 1, 2, 3])
    assert WeightedRanking(["auroc"], probs, targets, codes, 4).support()["auroc"].tolist() == [1]
    decided = WeightedDecisions(probs, targets, codes, 4, np.array([0.5])).support()
    assert {name: value.tolist() for name, value in decided.items()} == {
        "f1": [1],
        "precision": [1],
        "recall": [1],
        "specificity": [3],
        "balanced_accuracy": [1],
        "f1_micro": [1],
        "f1_weighted": [1],
    }
    assert WeightedErrors(probs, targets, codes, 4).support()["brier"].tolist() == [3]
    turned = WeightedDecisions(probs, 1 - targets, codes, 4, np.array([0.5])).support()
    assert [turned[name].tolist() for name in ("f1", "specificity", "balanced_accuracy")] == [[3], [1], [1]]


def test_a_score_that_is_nan_is_an_error_unless_its_target_is_unknown() -> None:
    probs, codes = np.array([[0.1], [np.nan], [0.8]]), np.arange(3)
    ranking = WeightedRanking(["auroc"], probs, np.array([[0.0], [np.nan], [1.0]]), codes, 3)
    assert ranking.values(np.ones((3, 1)))["auroc"] == 1
    with pytest.raises(ValueError, match="NaN"):
        WeightedRanking(["auroc"], probs, np.array([[0.0], [0.0], [1.0]]), codes, 3)
