"""How well a heatmap of a label agrees with the boxes of that label on its image.

Pointing game: the map's maximum is in a box, or at most 15 pixels of a 1024 x 1024 image beside it.

IoU and IoBB: the map, in its image's size and divided by its maximum, is cut at 60 / 255 and at 180 / 255; the bounding
box of each region that is left (8-connected) is a detected box. Its IoU with a box is intersection over union, its IoBB
intersection over the detected box. Of several boxes on the image, each detected box counts with the one that it fits
best. The label is found at T where a detected box is above T; a false box is one that is not. Two cuts and no
punishment for many boxes favour maps that say little: hence the number of false boxes, and the maps of ``priors.py``.

A map that is 0 everywhere points nowhere and detects nothing: it misses.

Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016 (pointing game, its 15 pixels);
    Wang et al., "ChestX-ray8", CVPR 2017 (the cuts, IoBB, accuracy and false boxes).
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.evaluation.localisation.overlays import enlarge

TOLERANCE = 15 / 1024
"""Of the pointing game, as a share of the image's side."""

CUTS = (60 / 255, 180 / 255)
"""Shares of a map's maximum at which it becomes regions."""

OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""T."""

COLUMNS: tuple[tuple[str, float], ...] = (
    ("pointing", float("nan")),
    *((metric, overlap) for metric in ("iou", "iobb", "iou_false_boxes", "iobb_false_boxes") for overlap in OVERLAPS),
)
"""Metric and T of each score of a map."""

SHARES = np.array([not metric.endswith("false_boxes") for metric, _ in COLUMNS])
"""Which of them are between 0 and 1; the others count boxes."""

Floats = NDArray[np.float64]


class Detections(NamedTuple):
    """What is read off one map or several.

    Attributes:
        points: (M, 2) x and y of the maxima, pixels of the image; of a map with several as many.
        of_point: (M,) the map of each, ascending.
        boxes: (D, 4) left, top, right, bottom of the detected boxes, pixels.
        of_box: (D,) the map of each.
        n_maps: How many maps.
    """

    points: Floats
    of_point: NDArray[np.intp]
    boxes: Floats
    of_box: NDArray[np.intp]
    n_maps: int


def detect(heatmaps: Sequence[NDArray[np.float32]], size: int) -> Detections:
    """Points and boxes of maps.

    Args:
        heatmaps: Each (h, w), none negative, over the whole of its image; they may be coarser than it.
        size: Side of the image, pixels.
    """
    points = [find_maxima(heatmap, size) for heatmap in heatmaps]
    boxes = [find_regions(enlarge(heatmap, size)) for heatmap in heatmaps]
    numbers = np.arange(len(heatmaps))
    return Detections(
        np.concatenate([np.empty((0, 2)), *points]),
        np.repeat(numbers, [len(found) for found in points]),
        np.concatenate([np.empty((0, 4)), *boxes]),
        np.repeat(numbers, [len(found) for found in boxes]),
        len(heatmaps),
    )


def find_maxima(heatmap: NDArray[np.float32], size: int) -> Floats:
    """(M, 2) x and y of the centres of the cells that have the map's maximum; none where nothing is positive.

    Bilinear interpolation has its maximum in such a centre, so the coarse map says it without rounding.
    """
    highest = heatmap.max()
    rows, columns = np.nonzero(heatmap == highest) if highest > 0 else np.zeros((2, 0))
    return np.stack([(columns + 0.5) / heatmap.shape[1], (rows + 0.5) / heatmap.shape[0]], axis=1) * size


def find_regions(heatmap: NDArray[np.float32]) -> Floats:
    """(D, 4) the bounding boxes of the regions of a map (S, S) at ``CUTS``; none where nothing is positive."""
    highest = heatmap.max()
    if highest <= 0:
        return np.empty((0, 4))
    found = []
    for cut in CUTS:
        regions = (heatmap >= cut * highest).astype(np.uint8)
        left, top, width, height, _ = cv2.connectedComponentsWithStats(regions, connectivity=8)[2][1:].T
        found.append(np.stack([left, top, left + width, top + height], axis=1).astype(np.float64))
    return np.concatenate(found)


def score(detections: Detections, boxes: Floats, size: int) -> Floats:
    """How well each map agrees with the boxes of its label.

    Args:
        detections: Of M maps of one image and label, or of maps that it is compared with.
        boxes: (G, 4) left, top, right, bottom of the image's boxes of the label, at least one.
        size: Side of the image, pixels.

    Returns:
        (M, C) the scores of ``COLUMNS``. Pointing of several equal maxima is the share that hits.
    """
    hits = (measure_box_distance(detections.points, boxes).min(axis=1) <= TOLERANCE * size).astype(np.float64)
    n_points = np.bincount(detections.of_point, minlength=detections.n_maps)
    pointing = np.bincount(detections.of_point, hits, minlength=detections.n_maps) / np.maximum(n_points, 1)
    found, false = [], []
    cells = detections.of_box[:, None] * len(OVERLAPS) + np.arange(len(OVERLAPS))  # of an array (M, T)
    n_boxes = np.bincount(detections.of_box, minlength=detections.n_maps)[:, None]
    for overlap in measure_overlap(detections.boxes, boxes):
        above = overlap.max(axis=1)[:, None] > np.array(OVERLAPS)  # (D, T)
        counts = np.bincount(cells[above], minlength=detections.n_maps * len(OVERLAPS)).reshape(-1, len(OVERLAPS))
        found.append((counts > 0).astype(np.float64))
        false.append((n_boxes - counts).astype(np.float64))
    return np.concatenate([pointing[:, None], *found, *false], axis=1)


def measure_overlap(detected: Floats, boxes: Floats) -> tuple[Floats, Floats]:
    """IoU and IoBB, (D, G) each, of (D, 4) detected boxes with (G, 4) boxes, none of them empty.

    >>> iou, iobb = measure_overlap(np.array([[0.0, 0.0, 2.0, 1.0]]), np.array([[1.0, 0.0, 4.0, 1.0]]))
    >>> iou.tolist(), iobb.tolist()
    ([[0.25]], [[0.5]])
    """
    low = np.maximum(detected[:, None, :2], boxes[None, :, :2])
    high = np.minimum(detected[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    of_detected = np.prod(detected[:, 2:] - detected[:, :2], axis=1)[:, None]
    of_boxes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[None]
    return shared / (of_detected + of_boxes - shared), shared / of_detected


def measure_box_distance(points: Floats, boxes: Floats) -> Floats:
    """(M, G) the distance of (M, 2) points to (G, 4) boxes; 0 inside and on the edge.

    >>> measure_box_distance(np.array([[0.0, 0.0], [4.0, 6.0]]), np.array([[3.0, 4.0, 5.0, 8.0]])).tolist()
    [[5.0], [0.0]]
    """
    outside = np.maximum(boxes[None, :, :2] - points[:, None], points[:, None] - boxes[None, :, 2:])
    distance: Floats = np.hypot(*np.moveaxis(np.maximum(outside, 0), 2, 0))
    return distance
