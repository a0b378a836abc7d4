"""A hidden file beside a table, with a line for each batch of rows, written completely and synced.

Its first line identifies the source of the rows (bundle, files, backend, ...); for another source, it starts anew. Rows
stay on disk, so that memory does not grow.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cxrlit.core.console import format_path, say
from cxrlit.core.files import replace_file, sync

Row = dict[str, Any]


class Journal:
    """Rows of a table that is not yet written.

    Args:
        path: The file.
        file: The same file, open for appending.
        n_rows: Number of rows in it.
    """

    def __init__(self, path: Path, file: TextIO, n_rows: int) -> None:
        self.path, self.n_rows = path, n_rows
        self._file = file

    def add(self, rows: list[Row]) -> None:
        """Write and sync rows."""
        self._file.write(json.dumps(rows, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.n_rows += len(rows)


def name_journal(out: Path) -> Path:
    """Path of the journal of a table."""
    return out.with_name(f".{out.name}.journal")


@contextmanager
def open_journal(path: Path, subject: Mapping[str, Any]) -> Iterator[Journal]:
    """Open a journal to continue, with the rows of all complete batches."""
    first = json.dumps(subject, sort_keys=True) + "\n"
    n_rows = 0
    with replace_file(path) as staged, staged.open("w", encoding="utf-8") as kept:
        kept.write(first)
        for line, rows in _read_whole(path, first):
            kept.write(line)
            n_rows += len(rows)
    if n_rows:
        say(f"{n_rows:,} files are done")
    with path.open("a", encoding="utf-8") as file:
        yield Journal(path, file, n_rows)
    sync(path)


def read_journal(path: Path) -> Iterator[Row]:
    """Yield the rows of a journal, one by one."""
    with path.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            yield from json.loads(line)


def _read_whole(path: Path, first: str) -> Iterator[tuple[str, list[Row]]]:
    """Yield the complete lines of an earlier journal with the same subject, and their rows."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        begun = file.readline()
        if begun.endswith("\n") and begun != first:
            say(f"{format_path(path)} is of other files or settings: it is begun anew", style="yellow")
        if begun != first:
            return
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):  # incomplete
                return
            try:
                rows = json.loads(line)
            except ValueError:
                say(f"{format_path(path)} is damaged: what comes after its line {number} is done again", style="yellow")
                return
            yield line, rows
