"""A label table as text, for messages with file and line. ``open_table.py`` reads it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlit.core.errors import DataError
from cxrlit.data.near_files import check_folder

MAX_ROWS = 10**7
"""Maximum number of rows or lines: a few bytes of Parquet or gzip can expand to a billion equal rows."""

MAX_SHOWN = 60
"""Maximum number of characters of a cell in a message."""

MAX_LINES = 5
"""Maximum number of lines in a message."""


@dataclass(frozen=True)
class TextTable:
    """Columns of a table as text, with the position of each row in the file.

    Attributes:
        path: The file.
        cells: The columns, stripped; an empty cell is an empty string. Rows are numbered from 0.
        lines: Line at which each row begins, from 1; in Parquet the row number.
        unit: What ``lines`` counts: line or row.
        uneven: The message about the first row with more or fewer cells than the header; None: no such row.
    """

    path: Path
    cells: pd.DataFrame
    lines: Sequence[int]
    unit: str = "line"
    uneven: str | None = None

    def format_lines(self, rows: Iterable[int]) -> str:
        """Positions of rows in the file, for a message: ``line 3``, or ``lines 3, 7``."""
        wanted = [int(row) for row in rows]
        numbers = ", ".join(str(self.lines[row]) for row in wanted[:MAX_LINES])
        more = f" and {len(wanted) - MAX_LINES} more" if len(wanted) > MAX_LINES else ""
        return f"{self.unit}{'s' if len(wanted) > 1 else ''} {numbers}{more}"

    def check_cells(self) -> None:
        """Check that every row has as many cells as the header: an extra comma shifts all cells after it.

        Raises:
            DataError: A row differs; the message names the line.
        """
        if self.uneven is not None:
            raise DataError(self.uneven)


def find_table(root: Path, names: Sequence[str]) -> Path:
    """The first existing file of several names in a folder, also gzipped.

    Raises:
        DataError: The folder or the files do not exist.
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
    """Shorten a text for a message, and make it printable.

    >>> clip("a" * 100)[-10:]
    'aaaaaaa...'
    """
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
