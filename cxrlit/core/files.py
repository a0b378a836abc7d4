"""Whole files: written beside the target, synced, renamed. A kill or a full disk leaves the old file."""

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrlit.core.console import say

if TYPE_CHECKING:  # importing pandas takes half a second, and most callers do not need it
    import pandas as pd

STAGED = re.compile(r"\.(.+)-[0-9a-f]{8}(\.\w+)?")
"""File names of unfinished work; the groups give the name of the finished file."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; the file written there replaces ``path`` if the block succeeds.

    Raises:
        OSError: The file cannot be written, for example because the disk is full; the message names ``path``.
    """
    staged = _name_beside(path)
    try:
        yield staged
        sync(staged)
        os.replace(staged, path)
        sync(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(staged):
            error.filename = str(path)
        raise
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """The same for a folder that does not exist yet. If another process creates it first, that folder stays."""
    staged = _name_beside(path)
    staged.mkdir()
    try:
        yield staged
        for entry in (staged, *staged.rglob("*")):
            sync(entry)
        try:
            os.rename(staged, path)
        except OSError:
            if not path.is_dir():
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def sweep_staged(folder: Path, patterns: Sequence[str] = ("*",)) -> None:
    """Remove the unfinished files of killed processes from a folder. Nobody may be writing there."""
    for path in folder.iterdir():
        staged = STAGED.fullmatch(path.name)
        if staged and path.is_file() and any(fnmatch(staged[1] + (staged[2] or ""), name) for name in patterns):
            path.unlink()


class NotAFileError(OSError):
    """The path is a folder, a pipe or a device instead of a file."""

    def __str__(self) -> str:
        return "not a file"


def open_descriptor(path: Path, flags: int = 0) -> int:
    """Open a regular file to read, as a descriptor.

    Args:
        path: The file.
        flags: Additional flags of ``os.open``.

    Raises:
        NotAFileError: The path is no regular file.
        OSError: The file cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe without a writer would block for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFileError(errno.EINVAL, "not a file", str(path))
    return descriptor


def open_regular(path: Path, flags: int = 0) -> BufferedReader:
    """Open a regular file to read; same arguments and errors as ``open_descriptor``."""
    return os.fdopen(open_descriptor(path, flags), "rb")


@contextmanager
def hold_lock(path: Path, waiting: str) -> Iterator[None]:
    """Let one process at a time into the block; a process that dies releases its lock at once.

    Args:
        path: The locked path; the lock is a hidden file beside it, which stays.
        waiting: Line to print while another process holds the lock.

    Raises:
        RuntimeError: A worker process imports a script that locks without ``if __name__ == "__main__":``, and would
            wait for its own parent.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError('a script that calls cxrlit needs its work under if __name__ == "__main__":')
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replace_file(path) as staged:
        staged.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file."""
    with replace_file(path) as staged:
        staged.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write plain types as JSON; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a table without its row numbers; NaN becomes an empty cell."""
    with replace_file(path) as staged:
        table.to_csv(staged, index=False, float_format=float_format, lineterminator="\n")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_value(value: Any, digits: int = 12) -> str:
    """Short SHA-256 of a value of plain types, independent of the order of its keys.

    >>> hash_value({"a": 1, "b": [2.5]}) == hash_value({"b": [2.5], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _name_beside(path: Path) -> Path:
    _make_folder(path.parent)
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")


def _make_folder(path: Path) -> None:
    """Make a folder and its parents, each synced so that it survives a power cut."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)
