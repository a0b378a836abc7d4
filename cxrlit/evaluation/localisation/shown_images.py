"""Choose the images to show: for each label, those that the model is most certain of, right and wrong."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlit.evaluation.predictions import PROB, TARGET
from cxrlit.metrics.operating_point import Thresholds

KINDS = {
    "true_positive": "found",
    "false_positive": "wrongly found",
    "false_negative": "missed",
    "with_box": "with a box",
}
"""Kinds of shown images, and their names.

True and false positives are the images with the highest probs at or above the threshold, with and without the label;
false negatives are the images with the label and the lowest probs below it. With a box: the highest probs of images
with a box, whatever the decision, so that heatmap and box are shown together if few images have boxes.
"""


class ShownImage(NamedTuple):
    """An image to show.

    Attributes:
        label: The label that it is shown for.
        kind: A key of ``KINDS``.
        rank: 1 is the most certain.
        image: Name of the image.
        prob: Prob of the label.
        threshold: Threshold of the label.
        target: 1 present, 0 absent, NaN unknown.
    """

    label: str
    kind: str
    rank: int
    image: str
    prob: float
    threshold: float
    target: float


def choose_examples(
    predictions: pd.DataFrame, thresholds: Thresholds, boxed: Collection[tuple[str, str]], n_examples: int
) -> list[ShownImage]:
    """Choose the most certain images of each label and kind, at most one per patient, since follow-ups look alike.

    Args:
        predictions: A predictions table, with probs on the scale of the thresholds.
        thresholds: For a label without a threshold, only images with a box are shown.
        boxed: Image and label of each box.
        n_examples: Most images per label and kind.

    Returns:
        The images by label, kind and certainty; equal probs in the order of the images' names.
    """
    chosen = []
    table = predictions.sort_values("image", kind="stable")
    names, patients = table["image"].to_numpy(), table["patient"].to_numpy()
    for label, threshold in zip(thresholds.labels, thresholds.values.tolist(), strict=True):
        probs, targets = table[f"{PROB}{label}"].to_numpy(np.float64), table[f"{TARGET}{label}"].to_numpy(np.float64)
        with_box = np.array([(name, label) in boxed for name in names], dtype=bool)
        members = {
            "true_positive": (targets == 1) & (probs >= threshold),
            "false_positive": (targets == 0) & (probs >= threshold),
            "false_negative": (targets == 1) & (probs < threshold),
            "with_box": with_box,
        }
        for kind in KINDS:
            rows = np.flatnonzero(members[kind])
            certainty = probs[rows] if kind == "false_negative" else -probs[rows]
            rows = rows[np.argsort(certainty, kind="stable")]
            firsts = ~pd.Series(patients[rows]).duplicated().to_numpy()
            chosen += [
                ShownImage(label, kind, rank, str(names[row]), float(probs[row]), threshold, float(targets[row]))
                for rank, row in enumerate(rows[firsts][:n_examples], start=1)
            ]
    return chosen
