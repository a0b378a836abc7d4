"""Concerns about a data set's tables that a user should check before training, one line each. No image is read.

``copies.py`` does the same for the images.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cxrlit.core.console import say
from cxrlit.data.index import DataTables, read_targets
from cxrlit.data.split import SPLITS


def name_label_concerns(rows: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Concerns about labels that may not be learned or evaluated, in the whole data set and in each part.

    Args:
        rows: The index with display names (``name_rows``), and the column ``split`` if there is a split.
        labels: The labels in use.
    """
    concerns = []
    targets, names = read_targets(rows, labels), np.array(labels)
    if "split" in rows and np.isnan(targets[(rows["split"] == "train").to_numpy()]).all():
        concerns.append("training will stop: no training image has a known label")
    positives, negatives = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    known = positives + negatives > 0
    for which, what in (
        (~known, "no image has a known label for {}: not trained, not scored"),
        (known & (positives == 0), "there is no positive image of {}: not learned, not scored"),
        (known & (negatives == 0), "there is no negative image of {}: not learned, not scored"),
    ):
        if which.any():
            concerns.append(what.format(", ".join(names[which])))
    if "split" in rows:
        concerns += name_part_concerns(rows, names[(positives > 0) & (negatives > 0)].tolist())
    return concerns


def name_part_concerns(rows: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Labels without positives or negatives in a part of the split, one line each.

    >>> rows = pd.DataFrame({"split": ["train", "train", "test"], "Mass": [1.0, 1.0, 0.0]})
    >>> for line in name_part_concerns(rows, ["Mass"]): print(line)
    train has no negative image of Mass: not learned, the weight of its positives is 0
    test has no positive image of Mass: no AUROC there
    """
    concerns, names = [], np.array(labels)
    there = rows["split"].unique().tolist()
    for part in [*(part for part in SPLITS if part in there), *(part for part in there if part not in SPLITS)]:
        targets = read_targets(rows[rows["split"] == part], labels)
        positives, negatives = (targets == 1).any(axis=0), (targets == 0).any(axis=0)
        trains = part == "train"
        then = "not learned" if trains else "no AUROC there"
        weight = ", the weight of its positives is 0" if trains else ""
        for which, line in (
            (~positives & ~negatives, f"{part} says nothing of {{}}: {then}"),
            (~positives & negatives, f"{part} has no positive image of {{}}: {then}"),
            (positives & ~negatives, f"{part} has no negative image of {{}}: {then}{weight}"),
        ):
            if which.any():
                concerns.append(line.format(", ".join(names[which])))
    return concerns


def warn_once(data: DataTables, concerns: Iterable[str]) -> bool:
    """Print concerns about the data that were not printed yet; return whether there were any."""
    new = [line for line in dict.fromkeys(concerns) if line not in data.said]
    data.said.update(new)
    for line in new:
        say(f"warning: {line}", style="yellow")
    return bool(new)
