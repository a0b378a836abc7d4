"""Read cells with scores as probs: every number exactly, or a message that names the line."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from cxrlit.config.evaluate import Scores
from cxrlit.core.errors import DataError
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import refuse_cells
from cxrlit.metrics.types import Floats

ROUNDING = 0.01
"""Distance beyond 0 or 1 that rounding of a prob explains; such a number is refused all the same."""


def read_scores(table: TextTable, columns: Sequence[str], kind: Scores = "probs") -> NDArray[np.float64]:
    """Read columns of scores as probs.

    Args:
        table: The table.
        columns: Names of the L columns.
        kind: Kind of the scores in the file: probs, logits, or percent.

    Returns:
        (N, L) in [0, 1], in the order of the scores: different scores give different probs.

    Raises:
        DataError: A cell is blank or no finite number, or the scores are of another kind; the message names the
            column, the lines, and the right setting.
    """
    scores = np.stack([_read_numbers(table.cells[column], table) for column in columns], axis=1)
    _check_kind(scores, columns, table, kind)
    if kind == "probs":
        return scores
    probs = np.empty_like(scores)
    for column in range(scores.shape[1]):
        values, places = np.unique(scores[:, column], return_inverse=True)
        probs[:, column] = _separate(expit(values) if kind == "logits" else values / 100)[places]
    return probs


def narrow_probs(probs: NDArray[np.float64]) -> Floats:
    """Probs as float32 if they were float32 when written, with 9 digits or with all.

    A table written by this program is recovered bit for bit, and different numbers of other tables stay different.

    >>> narrow_probs(np.array([0.349999994, 1.0])).dtype, narrow_probs(np.array([0.35, 1.0])).dtype
    (dtype('float32'), dtype('float64'))
    """
    narrow = probs.astype(np.float32)
    if (narrow == probs).all():
        return narrow
    pairs = zip(narrow.ravel().tolist(), probs.ravel().tolist(), strict=True)
    return narrow if all(float(f"{rounded:.9g}") == prob for rounded, prob in pairs) else probs


def _read_numbers(cells: pd.Series, table: TextTable) -> NDArray[np.float64]:
    """Correctly rounded numbers: an error of one bit would create or break ties."""
    fault = "is blank: every image needs a score of every label; predict it, or take out the row and say missing=drop"
    refuse_cells(cells == "", cells, fault, table)
    texts = cells.tolist()
    numbers = np.array([_to_number(text) for text in texts])
    refuse_cells(~np.isfinite(numbers), cells, "is no finite number; decimals are written with a point", table)
    return numbers


def _to_number(text: str) -> float:
    try:
        return float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return np.nan


def _check_kind(scores: NDArray[np.float64], columns: Sequence[str], table: TextTable, kind: Scores) -> None:
    """Check that the scores can be of the stated kind.

    Raises:
        DataError: They cannot.
    """
    highest = 100 if kind == "percent" else 1
    outside = (scores < 0) | (scores > highest)
    if kind != "probs" and not ((scores < 0) | (scores > 1)).any():
        raise DataError(
            f"{table.path}: scores={kind}, and all of them are in [0, 1]: these are probs, drop scores={kind}"
        )
    if kind == "logits" or not outside.any():
        return
    column = int(np.flatnonzero(outside.any(axis=0))[0])
    rows = np.flatnonzero(outside[:, column])
    low, high = scores.min(), scores.max()
    if kind == "probs" and low >= -ROUNDING and high <= 1 + ROUNDING:
        remedy = "if it was rounded, write 0 and 1"
    elif kind == "probs" and low >= 0 and high <= 100:
        remedy = f"all are in [0, {high:g}]: scores=percent, if they are percent, scores=logits, if they are logits"
    else:
        remedy = f"all are in [{low:g}, {high:g}]: if they are logits, say scores=logits"
    raise DataError(
        f"{table.path}, {table.format_lines(rows)}: {clip(columns[column])} is {scores[rows[0], column]:.9g}, outside "
        f"[0, {highest}]; {remedy}"
    )


def _separate(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make (K,) ascending probs strictly ascending: a logit of 50 is above one of 40, and so must be its prob.

    Probs that float64 rounds to the same number move to the next number, away from 0 and from 1.
    """
    steps, places = np.maximum.accumulate(probs).view(np.int64), np.arange(len(probs))  # bits sort like numbers
    falling = np.minimum.accumulate((steps - places)[::-1])[::-1] + places
    return np.maximum(falling, places).view(np.float64)
