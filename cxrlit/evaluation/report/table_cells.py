"""The cells of a table: what a reader sees, and the whole number behind it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxrlit.evaluation.report.section import Column, Table
from cxrlit.html.text import format_number, format_p

REASON = "reason"


class Number(NamedTuple):
    """A number as ``write_csv`` would write it, and as it is shown."""

    full: str
    shown: str


class Cell(NamedTuple):
    """A cell: a text, or a number with or without an interval, or nothing for a reason."""

    text: str = ""
    number: Number | None = None
    low: Number | None = None
    high: Number | None = None
    has_interval: bool = False
    reason: str = ""


class Grid(NamedTuple):
    """A table as the template wants it.

    Attributes:
        heads: Text of each column, and whether it holds text.
        rows: Cells, as many as heads.
    """

    heads: list[tuple[str, bool]]
    rows: list[list[Cell]]


def make_grid(table: Table) -> Grid:
    """The cells of a table. Where some are blank, one more column says why.

    Raises:
        ValueError: It names a column that its frame lacks.
    """
    frame = table.frame
    columns = guess_columns(frame) if table.columns is None else list(table.columns)
    for name in (name for column in columns for name in (column.name, column.low, column.high) if name):
        if name not in frame:
            raise ValueError(f"{table.caption}: the table has no column {name}")
    by_column = [_make_cells(frame, column) for column in columns]
    heads = [
        (column.name.replace("_", " ") if column.head is None else column.head, any(cell.text for cell in cells))
        for column, cells in zip(columns, by_column, strict=True)
    ]
    rows = [list(cells) for cells in zip(*by_column, strict=True)]
    if all(column.name != REASON for column in columns):
        shared = REASON in frame
        texts = [_explain(cells, [head for head, _ in heads], shared) for cells in rows]
        if any(texts):
            heads.append(("why blank", True))
            rows = [[*cells, Cell(text=text)] for cells, text in zip(rows, texts, strict=True)]
    return Grid(heads, rows)


def guess_columns(frame: pd.DataFrame) -> list[Column]:
    """All columns but the reasons, those called ``x_low`` and ``x_high`` as the interval of ``x``.

    >>> [column.name for column in guess_columns(pd.DataFrame(columns=["label", "f1", "f1_low", "f1_high", "low"]))]
    ['label', 'f1', 'low']
    """
    names = [str(name) for name in frame.columns]
    spans = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    beside = {REASON, *(f"{name}_{REASON}" for name in names), *(end for span in spans.values() for end in span)}
    return [Column(name, None, *spans.get(name, (None, None))) for name in names if name not in beside]


def count_decimals(value: float, digits: int = 3) -> int:
    """Decimals that leave a number two digits that are not leading zeros, at least so many, at most eight.

    >>> [count_decimals(value) for value in (12.3456, 0.81234, 0.0031234, 0.0, -1e-30)]
    [3, 3, 4, 3, 8]
    """
    return digits if not value else min(max(digits, 1 - math.floor(math.log10(abs(value)))), 8)


def format_value(value: float, digits: int = 3, signed: bool = False) -> str:
    """A number with so many decimals.

    >>> format_value(1234.5678), format_value(-0.0), format_value(0.0123, signed=True)
    ('1,234.568', '0.000', '+0.012')
    """
    return f"{value + 0.0:{'+' if signed else ''},.{digits}f}"


def _make_cells(frame: pd.DataFrame, column: Column) -> list[Cell]:
    """The cells of a column."""
    # Of the array: a series would make float64 of float32, and numpy's own arrays float64 of whole numbers.
    names = (column.name, column.low, column.high)
    parts = [[None] * len(frame) if name is None else list(frame[name].array) for name in names]
    name = next((name for name in (f"{column.name}_{REASON}", REASON) if name in frame), None)
    reasons = [""] * len(frame) if name is None else frame[name].fillna("").astype(str).tolist()
    cells = []
    for value, low, high, reason in zip(*parts, reasons, strict=True):
        if isinstance(value, str):
            cells.append(Cell(text=value))
        elif isinstance(value, bool | np.bool_):
            cells.append(Cell(text="yes" if value else "no"))
        elif pd.isna(value):
            cells.append(Cell(reason=reason))
        elif column.is_p:
            cells.append(Cell(number=Number(str(value), format_p(float(value)))))
        else:
            digits = count_decimals(float(value), column.digits)
            number, lower, upper = (_make_number(part, digits, column.signed) for part in (value, low, high))
            cells.append(Cell("", number, lower, upper, column.low is not None, reason))
    return cells


def _make_number(value: Any, digits: int, signed: bool) -> Number | None:
    if value is None or pd.isna(value):
        return None
    if isinstance(value, int | np.integer):
        return Number(str(value), format_number(int(value)))
    return Number(str(value), format_value(float(value), digits, signed))


def _explain(cells: Sequence[Cell], heads: Sequence[str], shared: bool) -> str:
    """Why cells of a row are blank or lack their interval: each reason and the columns it is of, or the row's own."""
    reasons: dict[str, list[str]] = {}
    for cell, head in zip(cells, heads, strict=True):
        if cell.reason and not cell.text and (cell.number is None or (cell.has_interval and cell.low is None)):
            reasons.setdefault(cell.reason, []).append(head)
    return "; ".join(reason if shared else f"{', '.join(of)}: {reason}" for reason, of in reasons.items())
