"""Checkpoint files: whole, and of plain types.

A checkpoint is what ``torch.save`` writes: a zip archive with a CRC-32 of each member, which torch does not check when
it reads. So every reader of such files reads it, and one file alone says whether it is whole. The same content makes
the same bytes.
"""

import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cxrlit.core.errors import CheckpointError, first_line
from cxrlit.core.files import open_regular, replace_file
from cxrlit.model.scan_pickle import is_plain, scan_pickle

MEMBERS = re.compile(
    r"archive/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
"""Names of what ``torch.save`` puts into an archive."""

NOT_OURS = "not a checkpoint of cxrlit; plain weights go in model.weights=, or weights= of evaluate.py"
"""What is said of a file that may be weights of another program."""

MAX_DEPTH = 100
MAX_VALUES = 2_000_000
"""How deeply values may be nested, and how many there may be; a tensor is one."""


def write_archive(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place, sync it, and rename it.

    Raises:
        CheckpointError: It holds something else than plain types and tensors, or the disk has no space; the file that
            was there before is still there, and whole.
    """
    check_plain(content, path)
    try:
        with replace_file(path) as staged, staged.open("wb") as file:
            torch.save(content, file)  # to an open file: given a path, torch hides what the system says
    except (OSError, RuntimeError) as error:
        fault = error if isinstance(error, OSError) else error.__context__  # torch closes what it could not write
        if not isinstance(fault, OSError):
            raise
        raise CheckpointError(
            f"{path}: it cannot be written ({fault.strerror}); what was saved before is kept: mend that, and the same "
            "command goes on"
        ) from None


def read_archive(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Nothing in it is run: plain types and tensors alone are accepted.

    Raises:
        CheckpointError: It is missing, damaged, was not written by ``write_archive``, or holds more than it may.
    """
    try:
        with open_regular(path) as file:
            _check_archive(path, file)
            file.seek(0)
            return _load(path, file)
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read: {error.strerror}") from None


def check_plain(value: Any, path: Path) -> None:
    """What is to be saved is made of plain types and tensors, and so can be read again.

    Raises:
        CheckpointError: Something in it is not, or is too much; the message says where.
    """
    fault = _find_fault(value)
    if fault is not None:
        raise CheckpointError(
            f"{path}: {fault}, which cannot be saved: a callback must return numbers, strings, lists, dicts or tensors "
            "from state_dict()"
        )


def is_whole(tensor: Tensor) -> bool:
    """Whether each element of a tensor is in memory: one that repeats an element may have any size.

    >>> is_whole(torch.zeros(3, 2)), is_whole(torch.zeros(1).expand(10**12))
    (True, False)
    """
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def check_members(archive: zipfile.ZipFile, file: BinaryIO, what: str) -> None:
    """The members of an archive are there once, as large as they lie there, with the right checksums.

    Args:
        archive: That ``torch.save`` wrote.
        file: Its bytes.
        what: What to call it in messages.

    Raises:
        CheckpointError: They are not.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{what}: refused: its members would become larger than they lie there")
    n_bytes = sum(member.file_size for member in members)  # of members that overlap the checksums would take hours
    if n_bytes > file.seek(0, os.SEEK_END) or archive.testzip() is not None:
        raise CheckpointError(f"{what}: it is damaged: its checksum is not that of its bytes")
    if len({member.filename.casefold() for member in members}) < len(members):  # torch finds one whatever its case
        raise CheckpointError(f"{what}: refused: it holds a member twice, which torch.save does not write")


def _find_fault(value: Any) -> str | None:
    """What of a value is no plain type, or more than a file may hold; None: nothing.

    A list that stands in a list twice, and so on, is a small pickle and fills any memory where it is copied or shown.
    """
    todo, n_values = [(value, "", 0)], 1
    while todo:
        item, place, depth = todo.pop()
        where = place[:300]
        if type(item) in (dict, OrderedDict, list, tuple):
            n_values += len(item)
            if depth == MAX_DEPTH or n_values > MAX_VALUES:
                return f"{where} is nested too deeply or holds too much"
        if type(item) in (dict, OrderedDict):
            for key, inner in item.items():
                if not isinstance(key, (str, int)):
                    return f"{where}[{repr(key)[:80]}] is no name of a value"
                todo.append((inner, f"{place}.{key}" if place else str(key), depth + 1))
        elif type(item) in (list, tuple):
            todo.extend((inner, place, depth + 1) for inner in item)
        elif type(item) not in (Tensor, str, int, float, bool, type(None)):
            return f"{where} is a {type(item).__name__}"
        elif type(item) is Tensor and not is_whole(item):
            return f"{where} is a tensor that is not all in memory"
    return None


def _check_archive(path: Path, file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.endswith("/data.pkl") and not MEMBERS.fullmatch(member.filename):
                    raise CheckpointError(f"{path}: {NOT_OURS}")
                if not MEMBERS.fullmatch(member.filename):
                    name = repr(member.filename[:80])
                    raise CheckpointError(f"{path}: refused: it holds {name}, which no checkpoint does")
            check_members(archive, file, str(path))
            scan = scan_pickle(io.BytesIO(archive.read("archive/data.pkl")), str(path))
            if not is_plain(scan):
                raise CheckpointError(f"{path}: refused: it holds more than plain types")
    except (CheckpointError, OSError):
        raise
    except Exception:  # bytes that are no archive make its reader raise anything
        raise CheckpointError(f"{path}: refused: it is damaged, or {NOT_OURS}") from None


def _load(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: refused: it holds more than plain types") from None
    except Exception as error:  # a pickle can say anything
        raise CheckpointError(f"{path}: refused: it cannot be read: {first_line(error, 160)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: {NOT_OURS}")
    fault = _find_fault(content)
    if fault is not None:
        raise CheckpointError(f"{path}: refused: {fault}")
    return content
