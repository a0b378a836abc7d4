"""Two predictions tables of the same images, row by row; what does not agree is named."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.errors import DataError, name_some, say_count
from cxrlit.evaluation.predictions import PROB, TARGET, list_labels, split_arrays


def pair_rows(baseline: pd.DataFrame, candidate: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """The baseline with its rows and labels in the order of the candidate's.

    Args:
        baseline: A predictions table.
        candidate: Another, of the same images, patients, labels and targets, in any order.
        names: What messages call the two.

    Raises:
        DataError: The two do not agree; the message names the labels, or the images.
    """
    labels = list_labels(candidate)
    _check_same(set(list_labels(baseline)), set(labels), names, "labels", "compare models of the same labels")
    for table, name in zip((baseline, candidate), names, strict=True):
        twice = table.loc[table["image"].duplicated(), "image"].unique().tolist()
        if twice:
            raise DataError(
                f"{name}: {say_count(len(twice), 'image stands', 'images stand')} "
                f"in it twice ({name_some(twice)}): keep one row"
            )
    _check_same(set(baseline["image"]), set(candidate["image"]), names, "images", "predict the same images with both")
    rows = pd.Index(baseline["image"]).get_indexer(pd.Index(candidate["image"]))
    aligned = baseline.iloc[rows].reset_index(drop=True)
    _check_equal(aligned["patient"].to_numpy() != candidate["patient"].to_numpy(), candidate, names, "patient")
    columns = [f"{kind}{label}" for kind in (PROB, TARGET) for label in labels]
    paired: pd.DataFrame = aligned.loc[:, [*aligned.columns.difference(columns, sort=False), *columns]]
    (_, before), (_, after) = split_arrays(paired), split_arrays(candidate)
    other = (before != after) & ~(np.isnan(before) & np.isnan(after))
    for column in np.flatnonzero(other.any(axis=0)):
        _check_equal(other[:, column], candidate, names, f"{TARGET}{labels[column]}")
    return paired


def _check_same(before: set[str], after: set[str], names: tuple[str, str], what: str, remedy: str) -> None:
    alone = [
        f"{len(own - other)} {what} are in {name} alone ({name_some(sorted(own - other))})"
        for own, other, name in ((before, after, names[0]), (after, before, names[1]))
        if own - other
    ]
    if alone:
        raise DataError(f"{', and '.join(alone)}: {remedy}")


def _check_equal(other: NDArray[np.bool_], table: pd.DataFrame, names: tuple[str, str], column: str) -> None:
    if other.any():
        images = table.loc[other, "image"].tolist()
        raise DataError(
            f"{column} of {len(images)} images is another in {names[0]} than in {names[1]} ({name_some(images)}): "
            "these are predictions of other data"
        )
