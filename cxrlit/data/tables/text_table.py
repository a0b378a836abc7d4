"""A label table as text, with messages that name the file and the line. ``open_table.py`` reads it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlit.core.errors import DataError
from cxrlit.data.near_files import check_folder

MAX_ROWS = 10**7
"""Rows of a table at most, or lines of its text: a few bytes of Parquet or gzip may stand for a billion equal ones."""

MAX_SHOWN = 60
"""Characters of a cell that a message shows."""

MAX_LINES = 5
"""Lines that a message names."""


@dataclass(frozen=True)
class TextTable:
    """Columns of a table as text, and where their rows are in the file.

    Attributes:
        path: The file.
        cells: The columns, stripped; an empty cell is an empty string. Rows are numbered from 0.
        lines: Where each row begins, from 1: its line; in Parquet its row.
        unit: What ``lines`` counts: line or row.
        uneven: The message about the first row that has more or fewer cells than the header; None: no row has.
    """

    path: Path
    cells: pd.DataFrame
    lines: Sequence[int]
    unit: str = "line"
    uneven: str | None = None

    def format_lines(self, rows: Iterable[int]) -> str:
        """Where rows are in the file, for a message: ``line 3``, or ``lines 3, 7``."""
        wanted = [int(row) for row in rows]
        numbers = ", ".join(str(self.lines[row]) for row in wanted[:MAX_LINES])
        more = f" and {len(wanted) - MAX_LINES} more" if len(wanted) > MAX_LINES else ""
        return f"{self.unit}{'s' if len(wanted) > 1 else ''} {numbers}{more}"

    def check_cells(self) -> None:
        """Every row has as many cells as the header: a comma too many moves all that follow it.

        Raises:
            DataError: A row has not; the message names the line.
        """
        if self.uneven is not None:
            raise DataError(self.uneven)


def find_table(root: Path, names: Sequence[str]) -> Path:
    """The first of several names that is in a folder, also gzipped.

    Raises:
        DataError: There is no such folder, or none of the names is in it.
    """
    check_folder(root)
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    below = [path for name in names for path in sorted(root.glob(f"*/{name}"))]
    hint = f"; {below[0]} is one: say data.root={below[0].parent}" if below else ""
    raise DataError(f"data.root={root}: there is no label table in it ({' or '.join(names)}){hint}")


def clip(text: str) -> str:
    """A text for a message: cut to a length that a line can hold, and printable.

    >>> clip("a" * 100)[-10:]
    'aaaaaaa...'
    """
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
