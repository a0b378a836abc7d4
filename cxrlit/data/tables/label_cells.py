"""Convert cells of a label column to targets, in the same way for training and evaluation."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.errors import DataError, name_some
from cxrlit.data.tables.placeholders import is_placeholder
from cxrlit.data.tables.text_table import TextTable, clip

PRESENT = frozenset({"true", "t", "yes", "y", "positive", "pos", "present"})
ABSENT = frozenset({"false", "f", "no", "n", "negative", "neg", "absent"})

NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*|,\d{1,2})?|\.\d+)(?:e[+-]?\d{1,3})?", re.ASCII)
"""A decimal number; a comma is a decimal comma (1,0), not a thousands separator (1,000)."""

UNCERTAIN = -1.0
"""Code of ``read_marks`` for a cell that means uncertain."""


def read_mark(text: str) -> float | Decimal | None:
    """Read one cell: 1.0 present, 0.0 absent, NaN unknown, any other number unchanged; None: not understood.

    >>> [read_mark(text) for text in ("1.00", "TRUE", "neg", "NA", "-1", "maybe")]
    [1.0, 1.0, 0.0, nan, Decimal('-1'), None]
    """
    word = text.casefold()
    if word in PRESENT or word in ABSENT:
        return float(word in PRESENT)
    if is_placeholder(word):
        return np.nan
    if not NUMBER.fullmatch(word):
        return None
    number = Decimal(word.replace(",", "."))  # exact, because 0.99999999999999999 is not 1
    return float(number) if number in {0, 1} else number


def read_marks(
    cells: pd.DataFrame,
    columns: Sequence[str],
    table: TextTable,
    uncertain: float | None = None,
    uncertain_key: str | None = None,
) -> NDArray[np.float32]:
    """Convert label columns to numbers.

    Args:
        cells: Cells of the table, or values derived from them.
        columns: Names of the C columns.
        table: The table, for messages.
        uncertain: Number that means uncertain; None: no number does.
        uncertain_key: Config key of ``uncertain``, for advice.

    Returns:
        (N, C): 1 present, 0 absent, NaN unknown, or ``UNCERTAIN``.

    Raises:
        DataError: A cell has other text; the message names the line.
    """
    numbers = np.empty((len(cells), len(columns)), dtype=np.float32)
    wanted = None if uncertain is None else Decimal(str(uncertain))
    odd: dict[tuple[str, str], Any] = {}  # invalid cells, by column and text
    for column, name in enumerate(columns):
        codes, texts = pd.factorize(cells[name])
        marks = [read_mark(text) for text in texts]
        values = [UNCERTAIN if isinstance(mark, Decimal) and mark == wanted else mark for mark in marks]
        odd |= {
            (name, text): value
            for text, value in zip(texts, values, strict=True)
            if value is None or isinstance(value, Decimal)
        }
        if not odd:
            numbers[:, column] = np.array(values, dtype=np.float32)[codes]
    if odd:
        _refuse_marks(odd, cells, table, wanted, uncertain_key)
    return numbers


def _refuse_marks(
    odd: dict[tuple[str, str], Any], cells: pd.DataFrame, table: TextTable, wanted: Decimal | None, key: str | None
) -> None:
    words = [place for place, value in odd.items() if value is None]
    name, text = min(words or odd, key=lambda place: int((cells[place[0]] == place[1]).to_numpy().argmax()))
    others = [clip(other) for (_, other), value in odd.items() if value is not None and value != odd[name, text]]
    uncertain = "" if wanted is None else f", {wanted.normalize():f} (uncertain)"
    if not words and not others and wanted is None and key:
        fault = f"is neither 1 nor 0: if that number means uncertain, say {key}={text}"
    elif words or not others:
        fault = f"is no label: write 1 or 0 (or true, yes, positive, ...){uncertain}, or NA or nothing for unknown"
    else:
        fault = (
            f"is no label, nor are {name_some(others, limit=3)}: write 1 or 0{uncertain}, or nothing for unknown; "
            "probabilities and counts are no labels"
        )
    same = [spelled for (column, spelled), value in odd.items() if column == name and value == odd[name, text]]
    rows = np.flatnonzero(cells[name].isin(same).to_numpy())
    raise DataError(f"{table.path}, {table.format_lines(rows)}: {clip(name)} {clip(text)!r} {fault}")
