"""Read CSV and TSV in one pass: check the bytes, split the text into columns, and record the line of each row."""

import codecs
import csv
import gzip
import itertools
import zlib
from array import array
from collections.abc import Generator, Iterator, Sequence
from io import BufferedReader, StringIO, TextIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlit.core.errors import DataError, first_line, format_count
from cxrlit.core.files import open_regular
from cxrlit.data.tables.separators import drop_preamble, find_separator
from cxrlit.data.tables.text_table import MAX_ROWS, TextTable, clip

MAX_LINE = 2**20
"""Maximum length of a line, bytes. A longer line is no label table, and is not read into memory."""

MAX_UNPACKED = 2**32
"""Maximum size of a table, unpacked, bytes."""

N_FIRST = 100
"""Number of rows examined before the columns are chosen."""

CHUNK = 2**18
"""Bytes per read."""


def read_text(path: Path) -> Generator[str, None, None]:
    """The text of a file in pieces of whole lines, without byte-order mark and with a blank line for ``sep=,``.

    Raises:
        DataError: The file cannot be read, is not UTF-8, has a ``sep=`` line with another separator, or is larger or
            has longer lines than any label table.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line, size, tail = 1, 0, 0  # number of the current line, bytes read, bytes of that line
    n_returns = 0  # carriage returns that end a row for pandas
    rest = ""  # text of the current line
    is_first = True
    try:
        with open_regular(path) as packed:
            file: gzip.GzipFile | BufferedReader = packed
            if path.suffix.lower() == ".gz":
                file = gzip.GzipFile(fileobj=packed)
            for chunk in iter(lambda: file.read(CHUNK), b""):
                size += len(chunk)
                if b"\0" in chunk:
                    line += chunk[: chunk.index(b"\0")].count(b"\n")
                    raise DataError(f"{path}, line {line}: there is a NUL byte: save the table as text in UTF-8")
                if size > MAX_UNPACKED:
                    raise DataError(f"{path}: it has more than {MAX_UNPACKED >> 30} GiB: that is no label table")
                try:
                    text = decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].count(b"\n")
                    raise DataError(f"{path}, line {line}: it is not UTF-8 text: save it as UTF-8") from None
                first = chunk.find(b"\n")
                if tail + (len(chunk) if first < 0 else first) > MAX_LINE:
                    raise DataError(f"{path}, line {line}: it has more than {MAX_LINE} bytes: that is no label table")
                tail = tail + len(chunk) if first < 0 else len(chunk) - chunk.rfind(b"\n") - 1
                line += chunk.count(b"\n")
                n_returns += chunk.count(b"\r")
                if max(line, n_returns) > MAX_ROWS:
                    raise DataError(f"{path}: it has more than {MAX_ROWS:,} lines: that is no label table")
                lines, end, begun = text.rpartition("\n")
                if end:
                    piece = rest + lines + end
                    yield drop_preamble(piece, path) if is_first else piece
                    rest, is_first = "", False
                rest += begun
            if decoder.getstate()[0]:
                raise DataError(f"{path}, line {line}: it is not UTF-8 text: it ends within a character")
            if rest:
                yield drop_preamble(rest, path) if is_first else rest
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it cannot be read: {clip(first_line(error))}") from None


def read_header(pieces: Iterator[str], path: Path) -> tuple[list[str], list[list[str]], Iterator[str]]:
    """The column names, empty if no line has text; the first rows; and all pieces again.

    Raises:
        DataError: The text is no CSV.
    """
    parsed: list[str] = []
    first: list[list[str]] = []
    for record in _parse_records(pieces, parsed, path):
        first.append([cell.strip() for cell in record.cells])
        if record.ends_piece or len(first) > N_FIRST:
            break
    return first[0] if first else [], first[1:], itertools.chain(parsed, pieces)


def read_csv(path: Path, pieces: Iterator[str], n_columns: int, columns: Sequence[str]) -> TextTable:
    """Read columns of a text. Short rows are filled up, long rows are cut, and rows of separators only, as spreadsheets
    leave them, are skipped.

    Args:
        path: The file; its name determines the separator.
        pieces: The text, from the header on.
        n_columns: Number of columns in the header.
        columns: Columns to read.

    Raises:
        DataError: The text is no CSV; the message names the line.
    """
    rows = _RowFinder(path, n_columns)
    try:
        table = pd.read_csv(
            _Feed(rows.watch(pieces)),
            dtype=str,
            index_col=False,
            usecols=lambda column: column.strip() in columns,
            keep_default_na=False,
            sep=find_separator(path),
        )
    except (ValueError, pd.errors.ParserError) as error:
        if "EOF inside string" in str(error):
            line = rows.lines[-1]
            raise DataError(f"{path}, line {line}: a quotation mark is opened there and never closed") from None
        raise DataError(f"{path}: it cannot be read as a CSV table: {clip(first_line(error))}") from None
    cells = pd.DataFrame({str(name).strip(): strip_cells(column) for name, column in table.items()})
    n_rows = len(rows.lines) - 1
    if len(cells) != n_rows:
        raise DataError(
            f"{path}: it cannot be read as a CSV table: of {n_rows} rows pandas sees {len(cells)}: end lines with a "
            "line feed, and take out blank ones"
        )
    if not rows.blank:
        return TextTable(path, cells, rows.lines[1:], uneven=rows.uneven)
    kept = np.delete(np.arange(n_rows), np.array(rows.blank) - 1)
    lines = np.asarray(rows.lines[1:])[kept]
    return TextTable(path, cells.iloc[kept].reset_index(drop=True), lines.tolist(), uneven=rows.uneven)


def strip_cells(column: pd.Series) -> pd.Series:
    """Strip white space around texts."""
    texts = column.tolist()
    stripped = list(map(str.strip, texts))
    return column if stripped == texts else pd.Series(stripped, index=column.index, dtype=column.dtype)


class _Feed(TextIOBase):
    """Pieces of text as a file that pandas reads once."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces

    def read(self, size: int | None = -1, /) -> str:
        """The next piece, whatever its size; empty after the last."""
        return next(self._pieces, "")


class _RowFinder:
    """Finds the rows in passing text: where each begins, and the first uneven one.

    Attributes:
        lines: Line at which each row begins, from 1, starting with the header.
        uneven: As in ``TextTable``.
        blank: Numbers of rows with only blank cells; the header is row 0.
    """

    def __init__(self, path: Path, n_columns: int) -> None:
        self.path, self.n_columns = path, n_columns
        self.lines = array("i")
        self.uneven: str | None = None
        self.blank: list[int] = []

    def watch(self, pieces: Iterator[str]) -> Iterator[str]:
        """Yield the pieces unchanged, and record their rows."""
        line = 1
        for piece in pieces:
            n_lines = self._note_plain_rows(piece, line)
            if n_lines:
                line += n_lines
                yield piece
            else:
                parsed: list[str] = []
                line = self._parse(itertools.chain([piece], pieces), parsed, line)
                yield from parsed

    def _note_plain_rows(self, piece: str, line: int) -> int:
        """Record the rows of a piece and return its number of lines; 0 if a row is incomplete or a quote is out of
        place.

        Most pieces are like that, and a CSV reader would take ten times as long.
        """
        returns = "\r" in piece and piece.count("\r") > piece.count("\r\n")  # carriage returns end a row too
        if self.n_columns == 1 or returns or not piece.endswith("\n"):
            return 0
        octets, separator = np.frombuffer(piece.encode(), dtype=np.uint8), ord(find_separator(self.path))
        is_end = octets == ord("\n")
        marks, quotes = np.flatnonzero(is_end | (octets == separator)), np.flatnonzero(octets == ord('"'))
        if len(quotes):
            before, after = octets[quotes[::2] - 1], octets[quotes[1::2] + 1]
            outside = [separator, *b'\r\n"']  # two adjacent quotes are one quote in a cell
            if len(quotes) % 2 or not np.isin(np.concatenate([before, after]), outside).all():
                return 0
            marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
        last = np.flatnonzero(is_end[marks])  # positions of the row-ending marks among all
        if len(last) * self.n_columns != len(marks) or (np.diff(last, prepend=-1) != self.n_columns).any():
            return 0
        starts = np.concatenate([[0], marks[last] + 1])
        if np.diff(starts).max() > csv.field_size_limit():
            return 0
        # Only a short row can have all cells blank.
        for row in np.flatnonzero(np.diff(starts) <= 3 * self.n_columns + 1).tolist():
            if not octets[starts[row] : starts[row + 1]].tobytes().strip(b'"' + bytes([separator]) + b" \t\r\n"):
                self.blank.append(len(self.lines) + row)
        ends = np.flatnonzero(is_end)
        places = np.arange(len(last)) if len(ends) == len(last) else np.searchsorted(ends, starts[:-1])
        self.lines.frombytes((places + line).astype(np.int32).tobytes())
        return len(ends)

    def _parse(self, pieces: Iterator[str], parsed: list[str], line: int) -> int:
        """Parse pieces up to the first that ends with a row; return the number of the next line."""
        for record in _parse_records(pieces, parsed, self.path, line):
            cells, line = record.cells, record.following
            self.lines.append(record.line)
            if self.n_columns > 1 and not any(map(str.strip, cells)):
                self.blank.append(len(self.lines) - 1)
            elif self.uneven is None and (len(cells) < self.n_columns or any(cells[self.n_columns :])):
                remedy = (
                    "complete the row or take it out"
                    if len(cells) < self.n_columns
                    else "put a cell that holds a separator into quotes"
                )
                self.uneven = (
                    f"{self.path}, line {record.line}: it has {format_count(len(cells), 'cell')} and the header "
                    f"{self.n_columns}: {remedy}"
                )
            if record.ends_piece:
                break
        return line


class _Record(NamedTuple):
    """A row found by a CSV reader.

    Attributes:
        line: Line at which it begins.
        following: Line after it.
        cells: Cells of the row.
        ends_piece: Whether the piece of text ends with it.
    """

    line: int
    following: int
    cells: list[str]
    ends_piece: bool


def _parse_records(pieces: Iterator[str], parsed: list[str], path: Path, line: int = 1) -> Iterator[_Record]:
    """Yield the records of a text; blank lines are skipped, as in pandas.

    Args:
        pieces: The text.
        parsed: Receives the consumed pieces.
        path: The file.
        line: Number of the first line.

    Raises:
        DataError: The text is no CSV; the message names the line.
    """
    last, first, end = "", line, line

    def read_lines() -> Iterator[str]:
        nonlocal last, end
        for piece in pieces:
            parsed.append(piece)
            lines = list(StringIO(piece, newline=""))
            end += len(lines)
            for text in lines:
                last = text
                yield text

    reader = csv.reader(read_lines(), delimiter=find_separator(path))
    try:
        for cells in reader:
            following = first + reader.line_num
            if len(cells) > 1 or following > line + 1 or last.strip(" \t\r\n"):
                yield _Record(line, following, cells, following == end)
            line = following
    except csv.Error as error:
        raise DataError(f"{path}, line {first + reader.line_num - 1}: {clip(first_line(error))}") from None
