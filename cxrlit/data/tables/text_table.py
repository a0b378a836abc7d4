"""Label tables as text: one way to read them, with messages that name the file and the line."""

import codecs
import csv
import gzip
import importlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlit.core.errors import ConfigError, DataError, first_line, name_some
from cxrlit.core.files import open_regular

MAX_LINE = 2**20
"""Bytes of a line at most. A longer one is no label table: nobody's memory is spent on finding out."""

MAX_UNPACKED = 2**32
"""Bytes of a table at most, unpacked."""

MAX_COLUMNS = 10**4
"""Columns of a table at most."""

MAX_ROWS = 10**7
"""Rows of a table at most, or lines of its text: a few bytes of Parquet or gzip may stand for a billion equal ones."""

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}

MAX_SHOWN = 60
"""Characters of a cell that a message shows."""

MAX_LINES = 5
"""Lines that a message names."""


def find_table(root: Path, names: Sequence[str]) -> Path:
    """The first of several names that is in a folder, also gzipped.

    Raises:
        DataError: There is no such folder, or none of the names is in it.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder")
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(f"data.root={root}: there is no label table in it ({' or '.join(names)})")


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of a table as text, stripped; an empty cell is an empty string.

    ``.parquet`` is Parquet, ``.tsv`` is separated by tabs, all else by commas; ``.gz`` is unpacked. A byte-order mark
    and CRLF make no difference. Rows are numbered from 0; ``say_lines`` says where in the file they are.

    Args:
        path: The file.
        needed: Columns that must be there.
        optional: Columns that may be there; they are left out of the result where they are not.

    Raises:
        DataError: It cannot be read, is no UTF-8, has no rows, lacks a column, or has one of them twice.
        ConfigError: It is Parquet, and pyarrow is not installed.
    """
    header = read_header(path)
    absent = [column for column in needed if column not in header]
    if absent:
        there = name_some([show(column) for column in header if column], limit=12)
        raise DataError(f"{path}: the column {name_some(absent)} is missing; there are {there}")
    wanted = [column for column in dict.fromkeys([*needed, *optional]) if column in header]
    twice = [column for column in wanted if header.count(column) > 1]
    if twice:
        raise DataError(f"{path}: there are two columns {show(twice[0])}: rename one of them")
    table = _read_parquet(path, wanted) if is_parquet(path) else _read_csv(path, wanted)
    if table.empty:
        raise DataError(f"{path}: the table has no rows")
    return table


def read_header(path: Path) -> list[str]:
    """Names of a table's columns.

    Raises:
        DataError: It cannot be read as a table.
        ConfigError: It is Parquet, and pyarrow is not installed.
    """
    if is_parquet(path):
        file = _open_parquet(path)
        with _say_parquet_fault(path):
            header = [str(name) for name in file.schema_arrow.names]
    else:
        _check_bytes(path)
        header = [name.strip() for name in next(_read_records(path), (1, []))[1]]
    if not header:
        raise DataError(f"{path}: it is empty")
    others = (
        [] if is_parquet(path) or len(header) > 1 else [name for mark, name in SEPARATORS.items() if mark in header[0]]
    )
    if others:
        wanted = SEPARATORS[_separator_of(path)]
        raise DataError(f"{path}: its columns are separated by {others[0]}, not by {wanted}: save it with {wanted}")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}: it has {len(header)} columns: that is no label table")
    return header


def check_cells(path: Path) -> None:
    """Every row of a CSV table has as many cells as the header: a comma too many moves all that follow it.

    Raises:
        DataError: One has not; the message names the line.
    """
    if is_parquet(path):
        return
    records = _read_records(path)
    n_columns = len(next(records)[1])
    for line, cells in records:
        if len(cells) < n_columns or any(cells[n_columns:]):
            raise DataError(
                f"{path}, line {line}: it has {len(cells)} cells and the header {n_columns}: "
                "put a cell that holds a separator into quotes"
            )


def say_lines(path: Path, rows: Iterable[int]) -> str:
    """Where rows of a table are, for a message: ``line 3``, or ``lines 3, 7``; rows of Parquet are counted from 1.

    The file is read again: blank lines and cells that span lines count.
    """
    wanted = [int(row) for row in rows]
    shown = wanted[:MAX_LINES]
    if is_parquet(path):
        word, numbers = "row", [row + 1 for row in shown]
    else:
        records = itertools.islice(_read_records(path), 1, max(shown) + 2)
        lines = [line for line, _ in records]
        word, numbers = "line", [lines[row] for row in shown]
    more = f" and {len(wanted) - len(shown)} more" if len(wanted) > len(shown) else ""
    return f"{word}{'s' if len(wanted) > 1 else ''} {', '.join(map(str, numbers))}{more}"


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet: by its name."""
    return path.suffix.lower() == ".parquet"


def show(text: str) -> str:
    """A text for a message: cut to a length that a line can hold, and printable.

    >>> show("a" * 100)[-10:]
    'aaaaaaa...'
    """
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _read_csv(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path,
            dtype=str,
            index_col=False,
            usecols=lambda column: column.strip() in wanted,
            encoding="utf-8-sig",
            keep_default_na=False,
            sep=_separator_of(path),
        )
    except (OSError, EOFError, ValueError, pd.errors.ParserError) as error:
        if "EOF inside string" in str(error):
            *_, (line, _) = _read_records(path)
            raise DataError(f"{path}, line {line}: a quotation mark is opened there and never closed") from None
        raise DataError(f"{path}: it cannot be read as a CSV table: {show(first_line(error))}") from None
    return pd.DataFrame({str(name).strip(): _strip(column) for name, column in table.items()})


def _read_parquet(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    file = _open_parquet(path)
    with _say_parquet_fault(path):
        # Metadata are for pandas alone, and may be anything.
        table = file.read(columns=list(wanted)).replace_schema_metadata(None).to_pandas()
        columns = {name: table[name].astype(object).where(table[name].notna(), "") for name in wanted}
        return pd.DataFrame({name: _strip(column.astype(str)) for name, column in columns.items()})


def _strip(column: pd.Series) -> pd.Series:
    """Without white space around the texts."""
    texts = column.tolist()
    stripped = list(map(str.strip, texts))
    return column if stripped == texts else pd.Series(stripped, index=column.index, dtype=column.dtype)


def _open_parquet(path: Path) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install 'cxrlit[parquet]', or save it as CSV"
        ) from None
    with _say_parquet_fault(path):
        open_regular(path).close()
        file = parquet.ParquetFile(path)
        n_rows = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
    if n_rows > MAX_ROWS:
        raise DataError(f"{path}: it has {n_rows} rows: that is no label table")
    return file


@contextmanager
def _say_parquet_fault(path: Path) -> Iterator[None]:
    """What a damaged file makes pyarrow raise, as a line: its own errors, and those of Python that it lets through."""
    try:
        yield
    except (OSError, ValueError, importlib.import_module("pyarrow").ArrowException) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {show(first_line(error))}") from None


def _separator_of(path: Path) -> str:
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


@contextmanager
def _open_bytes(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    with open_regular(path) as file:
        yield gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file


def _check_bytes(path: Path) -> None:
    """It is text in UTF-8, with lines and a size that a label table may have; without holding it in memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, size, tail = 1, 0, 0  # number of the line that is being read, bytes read, bytes of that line
    n_returns = 0  # which end a row for pandas
    try:
        with _open_bytes(path) as file:
            for chunk in iter(lambda: file.read(MAX_LINE), b""):
                size += len(chunk)
                if b"\0" in chunk:
                    line += chunk[: chunk.index(b"\0")].count(b"\n")
                    raise DataError(f"{path}, line {line}: there is a NUL byte: save the table as text in UTF-8")
                if size > MAX_UNPACKED:
                    raise DataError(f"{path}: it has more than {MAX_UNPACKED >> 30} GiB: that is no label table")
                try:
                    decoder.decode(chunk)
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
            if decoder.getstate()[0]:
                raise DataError(f"{path}, line {line}: it is not UTF-8 text: it ends within a character")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it cannot be read: {show(first_line(error))}") from None


def _read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, from 1, and its cells; blank lines are none, as for pandas."""
    try:
        with _open_bytes(path) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter=_separator_of(path))
            line = 1
            for cells in reader:
                if len(cells) > 1 or "".join(cells).strip():
                    yield line, cells
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {show(first_line(error))}") from None
