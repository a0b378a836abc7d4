"""Pointing game, IoU and IoBB as they are defined, on boxes of pixels and on maps whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrlit.evaluation.localisation.box_scores import (
    COLUMNS,
    CUTS,
    OVERLAPS,
    SHARES,
    TOLERANCE,
    detect,
    find_maxima,
    find_regions,
    measure_box_distance,
    measure_overlap,
    score,
)

SIZE = 64
METRICS = [metric for metric, _ in COLUMNS]

sides = st.lists(st.integers(0, SIZE), min_size=2, max_size=2, unique=True).map(sorted)
boxes_of_pixels = st.tuples(sides, sides).map(lambda box: (box[0][0], box[1][0], box[0][1], box[1][1]))


def paint(*boxes: tuple[int, int, int, int], value: float = 1) -> NDArray[np.float32]:
    """(S, S) a map with a value in boxes."""
    heatmap = np.zeros((SIZE, SIZE), np.float32)
    for left, top, right, bottom in boxes:
        heatmap[top:bottom, left:right] = value
    return heatmap


def score_one(heatmap: NDArray[np.float32], *boxes: tuple[int, int, int, int]) -> dict[str, list[float]]:
    """The scores of a map by metric, in the order of T."""
    [scores] = score(detect([heatmap], SIZE), np.array(boxes, float), SIZE)
    return {
        metric: [scores[n] for n, name in enumerate(METRICS) if name == metric] for metric in dict.fromkeys(METRICS)
    }


@given(boxes_of_pixels, boxes_of_pixels)
def test_overlap_counts_pixels(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> None:
    iou, iobb = measure_overlap(np.array([one], float), np.array([other], float))
    a, b = paint(one) > 0, paint(other) > 0
    assert iou[0, 0] == pytest.approx((a & b).sum() / (a | b).sum())
    assert iobb[0, 0] == pytest.approx((a & b).sum() / a.sum())
    assert 0 <= iou[0, 0] <= iobb[0, 0] <= 1
    assert measure_overlap(np.array([other], float), np.array([one], float))[0] == iou
    assert (iou[0, 0] == 1) == (one == other)


@given(st.lists(boxes_of_pixels, min_size=1, max_size=4), st.lists(boxes_of_pixels, min_size=1, max_size=4))
def test_overlaps_of_many_are_those_of_each(
    some: list[tuple[int, int, int, int]], others: list[tuple[int, int, int, int]]
) -> None:
    whole = measure_overlap(np.array(some, float), np.array(others, float))
    for row, one in enumerate(some):
        for column, other in enumerate(others):
            alone = measure_overlap(np.array([one], float), np.array([other], float))
            for all_of_it, single in zip(whole, alone, strict=True):
                assert all_of_it[row, column] == single[0, 0]


@given(boxes_of_pixels, st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)))
def test_distance_is_to_the_nearest_place_of_the_box(box: tuple[int, int, int, int], point: tuple[int, int]) -> None:
    left, top, right, bottom = box
    x, y = np.meshgrid(
        np.linspace(left, right, 2 * (right - left) + 1), np.linspace(top, bottom, 2 * (bottom - top) + 1)
    )
    wanted = np.hypot(x - point[0], y - point[1]).min()
    assert measure_box_distance(np.array([point], float), np.array([box], float))[0, 0] == pytest.approx(wanted)


@given(boxes_of_pixels)
def test_a_map_that_is_the_box_is_right_everywhere(box: tuple[int, int, int, int]) -> None:
    scores = score_one(paint(box, value=0.3), box)
    assert scores["pointing"] == [1]
    for metric in ("iou", "iobb"):
        assert scores[metric] == [1] * len(OVERLAPS)
        assert scores[f"{metric}_false_boxes"] == [0] * len(OVERLAPS)


@given(st.integers(0, 2**32 - 1), st.lists(boxes_of_pixels, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_scores_are_those_of_a_plain_count(seed: int, boxes: list[tuple[int, int, int, int]]) -> None:
    heatmap = np.random.default_rng(seed).random((4, 4), dtype=np.float32)
    scores = score_one(heatmap, *boxes)
    detections = detect([heatmap], SIZE)
    [(x, y)] = detections.points.tolist()
    distances = [
        np.hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom)) for left, top, right, bottom in boxes
    ]
    assert scores["pointing"] == [float(min(distances) <= TOLERANCE * SIZE)]
    overlaps = dict(zip(("iou", "iobb"), measure_overlap(detections.boxes, np.array(boxes, float)), strict=True))
    for metric, of_metric in overlaps.items():
        best = [max(row) for row in of_metric.tolist()]
        assert scores[metric] == [float(max(best) > overlap) for overlap in OVERLAPS]
        assert scores[f"{metric}_false_boxes"] == [sum(value <= overlap for value in best) for overlap in OVERLAPS]
        assert scores[metric] == sorted(scores[metric], reverse=True)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
@settings(max_examples=50, deadline=None)
def test_scores_do_not_depend_on_the_scale_of_a_map(seed: int, factor: float) -> None:
    heatmap = np.round(np.random.default_rng(seed).random((4, 4)), 1).astype(np.float32)
    one, scaled = detect([heatmap], SIZE), detect([heatmap * np.float32(2.0) ** round(np.log2(factor))], SIZE)
    assert all(np.array_equal(*pair) for pair in zip(one, scaled, strict=True))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_several_maps_are_scored_each_alone(seeds: list[int]) -> None:
    maps = [np.random.default_rng(seed).integers(0, 3, (3, 3)).astype(np.float32) for seed in seeds]
    box = np.array([[10.0, 10, 40, 30]])
    alone = [score(detect([one], SIZE), box, SIZE)[0] for one in maps]
    np.testing.assert_array_equal(score(detect(maps, SIZE), box, SIZE), alone)


def test_a_map_that_says_nothing_misses() -> None:
    scores = score_one(np.zeros((4, 4), np.float32), (0, 0, SIZE, SIZE))
    assert all(value == 0 for values in scores.values() for value in values)


def test_the_tolerance_is_15_pixels_of_1024() -> None:
    """Points at the centres of 1 x 1 cells: 0.5 beside the box, 0.5 + 0.9375 is the tolerance at 64 px."""
    heatmap = np.zeros((SIZE, SIZE), np.float32)
    heatmap[20, 30] = 1
    assert TOLERANCE * SIZE == 0.9375
    assert score_one(heatmap, (31, 20, 40, 21))["pointing"] == [1]
    assert score_one(heatmap, (32, 20, 40, 21))["pointing"] == [0]
    assert score_one(heatmap, (31, 21, 40, 30))["pointing"] == [1]  # 0.71 from the corner
    heatmap = np.zeros((1024, 1024), np.float32)
    heatmap[0, 0] = 1
    for left, hit in ((15, 1), (16, 0)):
        box = np.array([[left + 0.5, 0, 500, 500]])
        assert score(detect([heatmap], 1024), box, 1024)[0, 0] == hit


def test_equal_maxima_share_the_point() -> None:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = heatmap[3, 3] = heatmap[3, 0] = heatmap[0, 3] = 2
    assert find_maxima(heatmap, SIZE).tolist() == [[8, 8], [56, 8], [8, 56], [56, 56]]
    assert score_one(heatmap, (0, 0, 16, 16))["pointing"] == [0.25]
    assert score_one(heatmap, (0, 0, 16, 16), (40, 40, 64, 64))["pointing"] == [0.5]


def test_each_region_at_each_cut_is_a_box() -> None:
    weak, strong, touching = (0, 0, 10, 10), (30, 30, 40, 44), (40, 44, 50, 50)
    heatmap = np.maximum(paint(weak, value=0.5), paint(strong, touching))
    found = {tuple(box) for box in find_regions(heatmap).tolist()}
    assert found == {weak, (30, 30, 50, 50)}  # corners that touch are one region
    assert len(find_regions(heatmap)) == 3
    assert CUTS == (60 / 255, 180 / 255)
    assert len(find_regions(np.maximum(paint(weak, value=0.23), paint(strong)))) == 2


def test_a_detected_box_within_the_box_has_iobb_1_and_a_small_iou() -> None:
    scores = score_one(paint((10, 10, 20, 20)), (0, 0, 40, 40))
    assert scores["iobb"] == [1] * 5
    assert scores["iou"] == [0] * 5  # 100 / 1600
    assert scores["iou_false_boxes"] == [2] * 5  # of both cuts


def test_an_overlap_of_exactly_the_threshold_is_not_above_it() -> None:
    assert score_one(paint((0, 0, 10, 10)), (0, 0, 10, 20))["iou"] == [1, 1, 1, 1, 0]


def test_shares_are_what_lies_between_0_and_1() -> None:
    assert len(COLUMNS) == 21
    assert SHARES.sum() == 11
