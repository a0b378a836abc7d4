"""Open a label table (CSV, TSV or Parquet) and read it once."""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlit.core.errors import DataError, first_line, name_some
from cxrlit.core.extras import import_extra
from cxrlit.core.files import open_regular
from cxrlit.data.tables.csv_rows import N_FIRST, read_csv, read_header, read_text, strip_cells
from cxrlit.data.tables.separators import SEPARATORS, find_separator
from cxrlit.data.tables.text_table import MAX_ROWS, TextTable, clip

MAX_COLUMNS = 10**4
"""Maximum number of columns of a table."""


@dataclass(frozen=True)
class OpenTable:
    """A table with its header read and rows that can be read once.

    Attributes:
        path: The file.
        header: Names of the columns.
        read_columns: Function that reads columns with unique names.
        first: Cells of the first rows, for choosing columns.
    """

    path: Path
    header: list[str]
    read_columns: Callable[[Sequence[str]], TextTable]
    first: Sequence[Sequence[str]] = ()

    def read(self, needed: Sequence[str], optional: Sequence[str] = ()) -> TextTable:
        """Read the rows; same arguments and errors as ``read_table``."""
        absent = [column for column in needed if column not in self.header]
        if absent:
            there = name_some([clip(column) for column in self.header if column], limit=12)
            raise DataError(f"{self.path}: the column {name_some(absent)} is missing; there are {there}")
        wanted = [column for column in dict.fromkeys([*needed, *optional]) if column in self.header]
        twice = [column for column in wanted if self.header.count(column) > 1]
        if twice:
            raise DataError(f"{self.path}: there are two columns {clip(twice[0])}: take one of them out")
        table = self.read_columns(wanted)
        if table.cells.empty:
            raise DataError(f"{self.path}: the table has no rows")
        return table


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> TextTable:
    """Read columns of a table as text.

    Args:
        path: A file that ``open_table`` accepts.
        needed: Required columns.
        optional: Optional columns; the result omits missing ones.

    Raises:
        DataError: The file cannot be read, is not UTF-8, has no rows, lacks a column, or has one twice.
        ConfigError: The file is Parquet, and pyarrow is not installed.
    """
    with open_table(path) as table:
        return table.read(needed, optional)


@contextmanager
def open_table(path: Path) -> Iterator[OpenTable]:
    """Open a table and read its header, for callers that choose columns from it.

    ``.parquet`` is Parquet, ``.tsv`` is tab-separated, all else comma-separated; ``.gz`` is unpacked. Byte-order marks
    and CRLF are accepted.

    Raises:
        DataError: The file cannot be read as a table.
        ConfigError: The file is Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        with _open_parquet(path) as file:
            with _say_parquet_fault(path):
                header = [str(name) for name in file.schema_arrow.names]
            _check_header(header, path)
            yield OpenTable(path, header, partial(_read_parquet, path, file), _read_first(path, file, header))
        return
    with closing(read_text(path)) as pieces:
        header, first, text = read_header(pieces, path)
        others = [name for mark, name in SEPARATORS.items() if mark in "".join(header)] if len(header) == 1 else []
        if others:
            wanted = SEPARATORS[find_separator(path)]
            raise DataError(f"{path}: its columns are separated by {others[0]}, not by {wanted}: save it with {wanted}")
        _check_header(header, path)
        yield OpenTable(path, header, partial(read_csv, path, text, len(header)), first)


def _check_header(header: Sequence[str], path: Path) -> None:
    if not header:
        raise DataError(f"{path}: it is empty")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}: it has {len(header)} columns: that is no label table")


def _read_parquet(path: Path, file: Any, columns: Sequence[str]) -> TextTable:
    with _say_parquet_fault(path):
        cells = _write_cells(file.read(columns=list(columns)), columns)
    return TextTable(path, cells, range(1, len(cells) + 1), unit="row")


def _read_first(path: Path, file: Any, header: list[str]) -> list[list[str]]:
    """Cells of the first rows; blank in columns that may contain whole files, and in columns with duplicate names."""
    types = importlib.import_module("pyarrow").types
    named = Counter(header)
    plain = (types.is_primitive, types.is_string, types.is_large_string, types.is_dictionary)
    with _say_parquet_fault(path):
        columns = [
            name
            for name, kind in zip(header, file.schema_arrow.types, strict=True)
            if named[name] == 1 and any(is_kind(kind) for is_kind in plain)
        ]
        batch = next(file.iter_batches(N_FIRST, columns=columns), None) if columns else None
        if batch is None:
            return []
        cells = _write_cells(batch, columns)
        return cells.reindex(columns=list(named), fill_value="")[header].to_numpy().tolist()


def _write_cells(table: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of a pyarrow table or batch as text; missing values are blank."""
    frame = table.replace_schema_metadata(None).to_pandas()  # pandas metadata is not trusted
    texts = {name: frame[name].astype(object).where(frame[name].notna(), "") for name in columns}
    return pd.DataFrame({name: strip_cells(column.astype(str)) for name, column in texts.items()})


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    parquet = import_extra("pyarrow.parquet", "parquet", f"{path}: Parquet")
    with _say_parquet_fault(path):
        content = open_regular(path)
    with content:
        with _say_parquet_fault(path):
            file = parquet.ParquetFile(content)
            n_rows = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        if n_rows > MAX_ROWS:
            raise DataError(f"{path}: it has {n_rows} rows: that is no label table")
        yield file


@contextmanager
def _say_parquet_fault(path: Path) -> Iterator[None]:
    """Turn the errors that pyarrow raises for a damaged file, its own and Python's, into one line."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, importlib.import_module("pyarrow").ArrowException) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {clip(first_line(error))}") from None
