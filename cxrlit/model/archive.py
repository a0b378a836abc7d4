"""Write and read checkpoint files, complete and of plain types.

A checkpoint is a file of ``torch.save``: a zip archive with a CRC-32 of each member, which torch does not check when
it reads. So any reader of torch files can read it, and each file shows by itself whether it is complete. The same
content makes the same bytes.
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
"""Names of the members that ``torch.save`` writes."""

NOT_OURS = "not a checkpoint of cxrlit; plain weights go in model.weights=, or weights= of evaluate.py"
"""Message for a file that may hold weights of another program."""

MAX_DEPTH = 100
MAX_VALUES = 2_000_000
"""Limits on nesting and number of values in a checkpoint; a tensor is one value."""


def write_archive(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place, sync it, and rename it.

    Raises:
        CheckpointError: The content has other types than plain types and tensors, or the disk is full; a previous file
            stays intact.
    """
    check_plain(content, path)
    try:
        with replace_file(path) as staged, staged.open("wb") as file:
            torch.save(content, file)  # to an open file: given a path, torch hides the system's error
    except (OSError, RuntimeError) as error:
        fault = error if isinstance(error, OSError) else error.__context__  # torch fails again on closing
        if not isinstance(fault, OSError):
            raise
        raise CheckpointError(
            f"{path}: it cannot be written ({fault.strerror}); what was saved before is kept: mend that, and the same "
            "command goes on"
        ) from None


def read_archive(path: Path) -> dict[str, Any]:
    """Read a checkpoint. No code in it runs: only plain types and tensors are accepted.

    Raises:
        CheckpointError: It is missing, damaged, too large, or was not written by ``write_archive``.
    """
    try:
        with open_regular(path) as file:
            _check_archive(path, file)
            file.seek(0)
            return _load(path, file)
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read: {error.strerror}") from None


def check_plain(value: Any, path: Path) -> None:
    """Check that a value has only plain types and tensors, so that it can be read again.

    Raises:
        CheckpointError: It has another type or too many values; the message says where.
    """
    fault = _find_fault(value)
    if fault is not None:
        raise CheckpointError(
            f"{path}: {fault}, which cannot be saved: a callback must return numbers, strings, lists, dicts or tensors "
            "from state_dict()"
        )


def is_whole(tensor: Tensor) -> bool:
    """Whether a tensor stores each of its elements: one that repeats elements can claim any size.

    >>> is_whole(torch.zeros(3, 2)), is_whole(torch.zeros(1).expand(10**12))
    (True, False)
    """
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def check_members(archive: zipfile.ZipFile, file: BinaryIO, what: str) -> None:
    """Check that each member of an archive occurs once, uncompressed, with the right checksum.

    Args:
        archive: An archive of ``torch.save``.
        file: Its bytes.
        what: What to call it in messages.

    Raises:
        CheckpointError: A member fails one of these checks.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{what}: refused: its members would become larger than they lie there")
    n_bytes = sum(member.file_size for member in members)  # checksums of overlapping members would take hours
    if n_bytes > file.seek(0, os.SEEK_END) or archive.testzip() is not None:
        raise CheckpointError(f"{what}: it is damaged: its checksum is not that of its bytes")
    if len({member.filename.casefold() for member in members}) < len(members):  # torch ignores the case of names
        raise CheckpointError(f"{what}: refused: it holds a member twice, which torch.save does not write")


def _find_fault(value: Any) -> str | None:
    """Find a value of another type, or too many values; None if there is no fault.

    A list that holds one list twice, and so on, is a small pickle but fills any memory when it is copied or shown.
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
    except Exception:  # on bytes that are no archive, the reader can raise anything
        raise CheckpointError(f"{path}: refused: it is damaged, or {NOT_OURS}") from None


def _load(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: refused: it holds more than plain types") from None
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(f"{path}: refused: it cannot be read: {first_line(error, 160)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: {NOT_OURS}")
    fault = _find_fault(content)
    if fault is not None:
        raise CheckpointError(f"{path}: refused: {fault}")
    return content
