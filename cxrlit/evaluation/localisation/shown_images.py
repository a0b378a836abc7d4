"""Which images are shown: of each label those that the model is most certain of, right and wrong."""

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
"""Why an image is shown, and in words.

The first two are the images with the highest probs of those at or above the threshold, with and without the label; the
third is those with the lowest of those with the label below it. With a box: the highest probs of the images that have
one, whatever was decided, so that heatmap and box are seen together where few images have boxes.
"""


class ShownImage(NamedTuple):
    """An image to show.

    Attributes:
        label: For which label.
        kind: Of ``KINDS``.
        rank: 1 is the most certain.
        image: Its name.
        prob: Of the label.
        threshold: Of the label.
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
    """The most certain images of each label and kind, of each patient at most one: follow-ups look alike.

    Args:
        predictions: A predictions table; its probs are those that the thresholds are for.
        thresholds: A label without one has only images with a box.
        boxed: Image and label of each box.
        n_examples: Of each label and kind, at most.

    Returns:
        By label, kind and certainty; equal probs in the order of the images' names.
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
