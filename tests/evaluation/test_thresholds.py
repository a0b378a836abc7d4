"""Thresholds: the best of the grid, the lowest of several, none where validation cannot tell."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cxrlit.evaluation.thresholds import GRID, tune_thresholds
from cxrlit.labels import LABELS


def test_the_grid_is_a_hundredth_apart() -> None:
    assert GRID.tolist() == [number / 100 for number in range(5, 96)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_it_is_the_best_of_the_grid_and_of_several_the_lowest(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random((25, 8)), decimals).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (25, 8), p=[0.6, 0.3, 0.1]).astype(np.float32)
    tuned = tune_thresholds(probs, targets)
    assert not tuned.reasons
    for label in range(8):
        rows = ~np.isnan(targets[:, label])
        scores = [f1_score(targets[rows, label], probs[rows, label].astype(float) >= value) for value in GRID]
        best = max(scores)
        assert tuned.f1[label] == pytest.approx(best, abs=1e-12)
        lowest = next(value for value, score in zip(GRID, scores, strict=True) if score > best - 1e-12)
        assert tuned.values[label] == lowest


def test_where_all_thresholds_are_equally_good_it_is_the_lowest() -> None:
    probs = np.zeros((4, 8), np.float32)
    targets = np.array([[1], [0], [1], [0]], np.float32).repeat(8, axis=1)
    np.testing.assert_array_equal(tune_thresholds(probs, targets).values, 0.05)


def test_a_label_that_validation_cannot_tell_has_none_and_a_reason() -> None:
    probs = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    targets = np.array([[1], [0], [1], [0], [1], [0]], np.float32).repeat(8, axis=1)
    targets[:, 1] = 0
    targets[:, 2] = 1
    targets[:, 3] = np.nan
    targets[:3, 4], targets[3:, 4] = 0, np.nan
    tuned = tune_thresholds(probs, targets)
    assert tuned.reasons == {
        LABELS[1]: "validation has no positive",
        LABELS[2]: "validation has no negative",
        LABELS[3]: "validation has no positive",
        LABELS[4]: "validation has no positive",
    }
    assert np.flatnonzero(np.isnan(tuned.values)).tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(np.isnan(tuned.f1), np.isnan(tuned.values))
