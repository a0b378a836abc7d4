"""Tables of a page: rounded values in the cells, full values behind them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxrlit.html.text import count_reasons, format_number, format_p

REASON = "reason"

MAX_LISTED = 200
"""Maximum number of rows of a list of images, which may contain every image."""

SHADES = 10
"""Number of colour shades of a cell; the style sheet has a class for each."""


@dataclass(frozen=True)
class Column:
    """A column of a table on the page.

    Attributes:
        name: Column of the frame.
        head: Head on the page; None: the name, with spaces.
        low, high: The frame's columns of the interval, shown beside each number.
        digits: Minimum number of decimals; small numbers get more, so that two digits remain. The interval has as many.
        signed: Show a plus before positive numbers.
        is_p: The numbers are p-values.
        is_figure: The texts are figures, such as ``12 (3.4 %)``, and are aligned like numbers.
        shade: The frame's column of fractions, in [0, 1] or NaN, that colour the cells.
    """

    name: str
    head: str | None = None
    low: str | None = None
    high: str | None = None
    digits: int = 3
    signed: bool = False
    is_p: bool = False
    is_figure: bool = False
    shade: str | None = None


def span(name: str, head: str | None = None, digits: int = 3, signed: bool = False) -> Column:
    """A column with its interval in ``<name>_low`` and ``<name>_high``."""
    return Column(name, head, f"{name}_low", f"{name}_high", digits, signed)


class Number(NamedTuple):
    """A number in full, as ``write_csv`` writes it, and as shown."""

    full: str
    shown: str


class Cell(NamedTuple):
    """A cell: text, a number with or without an interval, or blank for a reason."""

    text: str = ""
    number: Number | None = None
    low: Number | None = None
    high: Number | None = None
    has_interval: bool = False
    reason: str = ""
    shade: int = 0


class Grid(NamedTuple):
    """The rendered content of a table.

    Attributes:
        heads: Text of each column head, and whether the column contains text.
        rows: Cells of each row, as many as heads.
        n_more: Number of rows that are not shown.
    """

    heads: list[tuple[str, bool]]
    rows: list[list[Cell]]
    n_more: int


@dataclass(frozen=True)
class Table:
    """A table of rounded numbers; the page also has the full numbers, as ``write_csv`` writes them.

    Attributes:
        caption: Title, unique on a page.
        frame: The numbers. Its column ``x_reason`` says why a cell of ``x`` is blank or lacks its interval; its column
            ``reason`` does so for all cells of a row.
        columns: The columns to show, in order.
        n_heads: Number of columns that name a row.
        n_totals: Number of summary rows at the end.
        folded: Whether the table is folded until the reader opens it.
        max_rows: Maximum number of rows; a line below says how many more there are.
    """

    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    n_heads: int = 1
    n_totals: int = 0
    folded: bool = False
    max_rows: int | None = None

    @property
    def grid(self) -> Grid:
        """The cells. Where some are blank, an additional column says why.

        Raises:
            ValueError: The table names a column that its frame lacks.
        """
        frame = self.frame.iloc[: self.max_rows]
        for name in (name for one in self.columns for name in (one.name, one.low, one.high, one.shade) if name):
            if name not in frame:
                raise ValueError(f"{self.caption}: the table has no column {name}")
        by_column = [_make_cells(frame, column) for column in self.columns]
        heads = [
            (
                column.name.replace("_", " ") if column.head is None else column.head,
                not column.is_figure and any(cell.text for cell in cells),
            )
            for column, cells in zip(self.columns, by_column, strict=True)
        ]
        rows = [list(cells) for cells in zip(*by_column, strict=True)]
        if all(column.name != REASON for column in self.columns):
            texts = [_explain(cells, [head for head, _ in heads], REASON in frame) for cells in rows]
            if any(texts):
                heads.append(("why blank", True))
                rows = [[*cells, Cell(text=text)] for cells, text in zip(rows, texts, strict=True)]
        return Grid(heads, rows, len(self.frame) - len(frame))


def make_figures(caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Table:
    """A table of formatted figures, such as ``12 (3.4 %)``.

    Args:
        caption: Title of the table.
        heads: Heads of the columns; the first column names the rows.
        rows: Name and figures of each row.
    """
    names = [str(number) for number in range(len(heads))]
    frame = pd.DataFrame([[name, *figures] for name, figures in rows], columns=names)
    columns = [Column(name, head, is_figure=name != "0") for name, head in zip(names, heads, strict=True)]
    return Table(caption, frame, columns)


def make_pairs(caption: str, pairs: Iterable[tuple[str, str]]) -> Table:
    """A table of name and value pairs, without column heads."""
    return Table(caption, pd.DataFrame(list(pairs), columns=["0", "1"]), [Column("0", ""), Column("1", "")])


def make_reasons(caption: str, images: pd.DataFrame) -> Table:
    """Reasons why images are excluded, with the number of images for each.

    Args:
        caption: Title of the table.
        images: ``image`` and ``reason``, one row per image.
    """
    rows = [(reason, number, ", ".join(names)) for reason, number, names in count_reasons(images)]
    frame = pd.DataFrame(rows, columns=["why", "images", "such as"])
    columns = [Column("why", "reason"), Column("images"), Column("such as")]
    return Table(caption, frame, columns, max_rows=MAX_LISTED)


def count_decimals(value: float, digits: int = 3) -> int:
    """Decimals that leave a number two significant digits: at least ``digits``, at most eight.

    >>> [count_decimals(value) for value in (12.3456, 0.81234, 0.0031234, 0.0, -1e-30)]
    [3, 3, 4, 3, 8]
    """
    return digits if not value else min(max(digits, 1 - math.floor(math.log10(abs(value)))), 8)


def format_value(value: float, digits: int = 3, signed: bool = False) -> str:
    """A number with at least ``digits`` decimals.

    >>> format_value(1234.5678), format_value(-0.0), format_value(0.0123, signed=True)
    ('1,234.568', '0.000', '+0.012')
    """
    return f"{value + 0.0:{'+' if signed else ''},.{digits}f}"


def _make_cells(frame: pd.DataFrame, column: Column) -> list[Cell]:
    """The cells of a column."""
    # Convert the array, not the series: a series turns float32 into float64, and NumPy turns integers into float64.
    names = (column.name, column.low, column.high, column.shade)
    parts = [[None] * len(frame) if name is None else list(frame[name].array) for name in names]
    name = next((name for name in (f"{column.name}_{REASON}", REASON) if name in frame), None)
    reasons = [""] * len(frame) if name is None else frame[name].fillna("").astype(str).tolist()
    return [
        _make_cell(column, value, (low, high), reason)._replace(
            shade=0 if pd.isna(share) else math.ceil(SHADES * share)
        )
        for value, low, high, share, reason in zip(*parts, reasons, strict=True)
    ]


def _make_cell(column: Column, value: Any, ends: Sequence[Any], reason: str) -> Cell:
    if isinstance(value, str):
        return Cell(text=value)
    if isinstance(value, bool | np.bool_):
        return Cell(text="yes" if value else "no")
    if pd.isna(value):
        return Cell(reason=reason)
    if column.is_p:
        return Cell(number=Number(str(value), format_p(float(value))))
    digits = count_decimals(float(value), column.digits)
    number, low, high = (_make_number(part, digits, column.signed) for part in (value, *ends))
    return Cell("", number, low, high, column.low is not None, reason)


def _make_number(value: Any, digits: int, signed: bool) -> Number | None:
    if value is None or pd.isna(value):
        return None
    if isinstance(value, int | np.integer):
        return Number(str(value), format_number(int(value)))
    return Number(str(value), format_value(float(value), digits, signed))


def _explain(cells: Sequence[Cell], heads: Sequence[str], shared: bool) -> str:
    """Why cells of a row are blank or lack their interval: each reason with its columns, or the reason of the row."""
    reasons: dict[str, list[str]] = {}
    for cell, head in zip(cells, heads, strict=True):
        if cell.reason and not cell.text and (cell.number is None or (cell.has_interval and cell.low is None)):
            reasons.setdefault(cell.reason, []).append(head)
    return "; ".join(reason if shared else f"{', '.join(of)}: {reason}" for reason, of in reasons.items())
