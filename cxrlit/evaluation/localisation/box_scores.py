"""Score the agreement of a label's heatmap with the boxes of that label on its image.

Pointing game: the map's maximum is in a box, or at most 15 pixels of a 1024 x 1024 image beside it.

IoU and IoBB: the map, resized to its image and divided by its maximum, is cut at 60 / 255 and 180 / 255; the bounding
box of each remaining region (8-connected) is a detected box. Its IoU with a box is intersection over union, its IoBB
intersection over the detected box. With several boxes on the image, each detected box is compared with the one that it
fits best. The label is found at T if a detected box is above T; detected boxes at or below T are false boxes. Two cuts
without a penalty for many boxes favour unspecific maps: hence the number of false boxes, and the maps of ``priors.py``.

A map that is 0 everywhere misses: it has no maximum and no detected box.

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
"""Tolerance of the pointing game, as a share of the image's side."""

CUTS = (60 / 255, 180 / 255)
"""Shares of a map's maximum at which it is cut into regions."""

OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Values of T, the smallest overlap of a hit."""

COLUMNS: tuple[tuple[str, float], ...] = (
    ("pointing", float("nan")),
    *((metric, overlap) for metric in ("iou", "iobb", "iou_false_boxes", "iobb_false_boxes") for overlap in OVERLAPS),
)
"""Metric and T of each score of a map."""

SHARES = np.array([not metric.endswith("false_boxes") for metric, _ in COLUMNS])
"""Whether each of ``COLUMNS`` is a share from 0 to 1; the others count boxes."""

Floats = NDArray[np.float64]


class Detections(NamedTuple):
    """Maxima and detected boxes of one or several maps.

    Attributes:
        points: (M, 2) x and y of the maxima, pixels of the image; a map may have several.
        of_point: (M,) map of each maximum, ascending.
        boxes: (D, 4) left, top, right, bottom of the detected boxes, pixels.
        of_box: (D,) map of each box.
        n_maps: Number of maps.
    """

    points: Floats
    of_point: NDArray[np.intp]
    boxes: Floats
    of_box: NDArray[np.intp]
    n_maps: int


def detect(heatmaps: Sequence[NDArray[np.float32]], size: int) -> Detections:
    """Find the maxima and detected boxes of maps.

    Args:
        heatmaps: Each (h, w), >= 0, over its whole image; may be coarser than the image.
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
    """Find (M, 2) x and y of the centres of the cells with the map's maximum; none without a positive value.

    Bilinear interpolation has its maximum at such a centre, so the coarse map gives it without rounding.
    """
    highest = heatmap.max()
    rows, columns = np.nonzero(heatmap == highest) if highest > 0 else np.zeros((2, 0))
    return np.stack([(columns + 0.5) / heatmap.shape[1], (rows + 0.5) / heatmap.shape[0]], axis=1) * size


def find_regions(heatmap: NDArray[np.float32]) -> Floats:
    """Find (D, 4) bounding boxes of the regions of a map (S, S) at ``CUTS``; none without a positive value."""
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
    """Score the agreement of each map with the boxes of its label.

    Args:
        detections: Detections of M maps for one image and label, heatmaps or priors.
        boxes: (G, 4) left, top, right, bottom of the label's boxes on the image, at least one.
        size: Side of the image, pixels.

    Returns:
        (M, C) scores of ``COLUMNS``. For several equal maxima, pointing is the share that hits.
    """
    hits = (measure_box_distance(detections.points, boxes).min(axis=1) <= TOLERANCE * size).astype(np.float64)
    n_points = np.bincount(detections.of_point, minlength=detections.n_maps)
    pointing = np.bincount(detections.of_point, hits, minlength=detections.n_maps) / np.maximum(n_points, 1)
    found, false = [], []
    cells = detections.of_box[:, None] * len(OVERLAPS) + np.arange(len(OVERLAPS))  # flat index into (M, T)
    n_boxes = np.bincount(detections.of_box, minlength=detections.n_maps)[:, None]
    for overlap in measure_overlap(detections.boxes, boxes):
        above = overlap.max(axis=1)[:, None] > np.array(OVERLAPS)  # (D, T)
        counts = np.bincount(cells[above], minlength=detections.n_maps * len(OVERLAPS)).reshape(-1, len(OVERLAPS))
        found.append((counts > 0).astype(np.float64))
        false.append((n_boxes - counts).astype(np.float64))
    return np.concatenate([pointing[:, None], *found, *false], axis=1)


def measure_overlap(detected: Floats, boxes: Floats) -> tuple[Floats, Floats]:
    """Compute IoU and IoBB, (D, G) each, of (D, 4) detected boxes with (G, 4) boxes, none of them empty.

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
    """Compute (M, G) distances of (M, 2) points to (G, 4) boxes; 0 inside and on the edge.

    >>> measure_box_distance(np.array([[0.0, 0.0], [4.0, 6.0]]), np.array([[3.0, 4.0, 5.0, 8.0]])).tolist()
    [[5.0], [0.0]]
    """
    outside = np.maximum(boxes[None, :, :2] - points[:, None], points[:, None] - boxes[None, :, 2:])
    distance: Floats = np.hypot(*np.moveaxis(np.maximum(outside, 0), 2, 0))
    return distance
