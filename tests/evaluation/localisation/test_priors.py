"""Maps that have not seen the image: their scores against what is known of them by reckoning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.evaluation.localisation.box_scores import COLUMNS, detect, find_maxima, score
from cxrlit.evaluation.localisation.priors import (
    cover,
    draw_centre,
    score_centre,
    score_elsewhere,
    score_random,
)

SIZE = 64


def box(*sides: float) -> np.ndarray:
    return np.array([sides], float)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_pointing_at_random_is_the_share_of_cells_that_hit(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(0, SIZE, (2, 2)), axis=0)
    boxes = box(*low, *high)
    hits = 0.0
    for cell in np.ndindex(height, width):
        heatmap = np.zeros((height, width), np.float32)
        heatmap[cell] = 1
        hits += score(detect([heatmap], SIZE), boxes, SIZE)[0, 0]
    every_cell = detect([np.ones((height, width), np.float32)], SIZE)
    assert score(every_cell, boxes, SIZE)[0, 0] == pytest.approx(hits / (height * width))


def test_random_maps_are_expectations() -> None:
    boxes = [box(0, 0, 64, 64), box(0, 0, 32, 32), box(10, 10, 12, 12)]
    scores = score_random(boxes, (4, 4), SIZE, seed=0)
    assert scores.shape == (3, len(COLUMNS))
    assert scores[:, 0].tolist() == [1, 1 / 4, 0]  # no cell's centre is within a pixel of the last
    other = score_random(boxes, (4, 4), SIZE, seed=1)
    np.testing.assert_array_equal(scores, score_random(boxes, (4, 4), SIZE, seed=0))
    assert (scores != other).any()
    np.testing.assert_allclose(scores, other, atol=0.12)  # counts of boxes vary more than shares
    iobb = [number for number, (metric, _) in enumerate(COLUMNS) if metric == "iobb"]
    assert (scores[0, iobb] == 1).all()  # whatever lies in the whole image
    drawn = np.random.default_rng(0).random((1000, 4, 4), dtype=np.float32)
    pointed = [score(detect([one], SIZE), boxes[1], SIZE)[0, 0] for one in drawn]
    assert np.mean(pointed) == pytest.approx(1 / 4, abs=0.05)


@pytest.mark.parametrize("size", [63, 64])
def test_the_centre_points_to_the_centre(size: int) -> None:
    heatmap = draw_centre(size)
    np.testing.assert_allclose(find_maxima(heatmap, size).mean(axis=0), size / 2)
    np.testing.assert_array_equal(heatmap, heatmap[::-1])
    np.testing.assert_array_equal(heatmap, heatmap.T)
    # A standard deviation of a quarter: 1.7 of them are at 60 / 255, 0.83 at 180 / 255.
    wide, narrow = np.ptp(detect([heatmap], size).boxes[:, [0, 2]], axis=1) / size
    assert wide == pytest.approx(2 * 0.25 * np.sqrt(2 * np.log(255 / 60)), abs=2 / size)
    assert narrow == pytest.approx(2 * 0.25 * np.sqrt(2 * np.log(255 / 180)), abs=2 / size)


def test_the_centre_is_scored_like_a_map() -> None:
    around, beside = box(20, 20, 44, 44), box(0, 0, 20, 20)
    scores = score_centre([around, beside], SIZE)
    assert scores[:, 0].tolist() == [1, 0]
    np.testing.assert_array_equal(scores[0], score(detect([draw_centre(SIZE)], SIZE), around, SIZE)[0])


def test_elsewhere_has_never_seen_the_patient() -> None:
    left, right = box(0, 0, 16, 64), box(48, 0, 64, 64)
    patients = np.array(["a", "a", "b", "c"], dtype=object)
    scores = score_elsewhere([left, left, right, right], patients, SIZE)
    # All others of a have it on the right; those of b and of c have it on the left twice, on the right once.
    assert scores[:, 0].tolist() == [0, 0, 0, 0]
    scores = score_elsewhere([left, left, right, left], patients, SIZE)
    assert scores[:, 0].tolist() == [0.5, 0.5, 0, 1]
    alone = score_elsewhere([left, left], patients[:2], SIZE)
    assert np.isnan(alone).all()
    assert score_elsewhere([], patients[:0], SIZE).shape == (0, len(COLUMNS))


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=5))
def test_covered_pixels_add_up_to_the_length(ends: list[tuple[float, float]]) -> None:
    low, high = np.sort(np.array(ends), axis=1).T
    covered = cover(low, high, 20)
    np.testing.assert_allclose(covered.sum(axis=1), high - low, atol=1e-4)
    for row, start, end in zip(covered, low, high, strict=True):
        assert not row[: int(start)].any()
        assert not row[int(np.ceil(end)) :].any()
        assert (row[int(np.ceil(start)) : int(end)] == 1).all()
