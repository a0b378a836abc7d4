"""Priors: scores of maps that do not depend on the image, which a heatmap must exceed.

- random: each cell of a map of the network's resolution is drawn uniformly. The expected pointing game is exact, the
  share of cells that hit; other scores are means over ``N_RANDOM`` maps, the same for every image.
- centre: a Gaussian at the image's centre, with a standard deviation of a quarter of the side.
- elsewhere: the mean of the label's boxes on the images of all other patients, the best guess of a label's place
  without the image.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrlit.evaluation.localisation.box_scores import COLUMNS, Detections, Floats, detect, score

N_RANDOM = 1000

CENTRE_SPREAD = 0.25
"""Standard deviation of the Gaussian, as a share of the side."""


def score_random(boxes: Sequence[Floats], shape: tuple[int, int], size: int, seed: int) -> Floats:
    """Compute (P, C) expected scores of a random map for each image and label.

    Args:
        boxes: (G, 4) boxes of each image and label.
        shape: Size of the network's maps, (h, w).
        size: Side of the images, pixels.
        seed: Seed of the maps.
    """
    drawn = np.random.default_rng(seed).random((N_RANDOM, *shape), dtype=np.float32)
    random = detect(list(drawn), size)
    every_cell = detect([np.ones(shape, np.float32)], size)  # all cells have the maximum
    scores = np.array([score(random, of_one, size).mean(axis=0) for of_one in boxes]).reshape(-1, len(COLUMNS))
    scores[:, 0] = [score(every_cell, of_one, size)[0, 0] for of_one in boxes]
    return scores


def score_centre(boxes: Sequence[Floats], size: int) -> Floats:
    """Compute (P, C) scores of the Gaussian."""
    centre = detect([draw_centre(size)], size)
    return np.array([score(centre, of_one, size)[0] for of_one in boxes]).reshape(-1, len(COLUMNS))


def draw_centre(size: int) -> NDArray[np.float32]:
    """Make the (S, S) Gaussian, with its peak at the image's centre."""
    distance = (np.arange(size) + 0.5) / size - 0.5
    profile = np.exp(-((distance / CENTRE_SPREAD) ** 2) / 2)
    return np.outer(profile, profile).astype(np.float32)


def score_elsewhere(boxes: Sequence[Floats], patients: NDArray[np.object_], size: int) -> Floats:
    """Compute (P, C) scores of the mean of other patients' boxes; NaN without another patient.

    Args:
        boxes: (G, 4) boxes of each image with the label.
        patients: (P,) patient of each image.
        size: Side of the images, pixels.
    """
    scores = np.full((len(boxes), len(COLUMNS)), np.nan)
    owner = np.repeat(patients, [len(of_one) for of_one in boxes])
    sides = np.concatenate([np.empty((0, 4)), *boxes])
    columns, rows = cover(sides[:, 0], sides[:, 2], size), cover(sides[:, 1], sides[:, 3], size)
    found: dict[str, Detections] = {}
    for number, (patient, of_one) in enumerate(zip(patients, boxes, strict=True)):
        others = owner != patient
        if not others.any():
            continue
        if patient not in found:
            found[patient] = detect([rows[others].T @ columns[others]], size)
        scores[number] = score(found[patient], of_one, size)[0]
    return scores


def cover(low: Floats, high: Floats, size: int) -> NDArray[np.float32]:
    """Compute (N, S) shares of each of S pixels in a row that lie between two positions.

    >>> cover(np.array([0.5]), np.array([2.0]), 4).tolist()
    [[0.5, 1.0, 0.0, 0.0]]
    """
    start = np.arange(size)
    covered = np.minimum(high[:, None], start + 1) - np.maximum(low[:, None], start)
    return np.asarray(np.clip(covered, 0, 1), dtype=np.float32)
