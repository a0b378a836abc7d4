"""Read a weights file into plain types and tensors, without running code and with bounded memory."""

import io
import itertools
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from cxrlit.core.errors import CheckpointError, first_line
from cxrlit.core.files import open_regular
from cxrlit.model.archive import check_members
from cxrlit.model.scan_pickle import PickleScan, check_names, is_plain, scan_pickle
from cxrlit.model.weights.pickled_module import Converter, InertUnpickler

MAX_BYTES, MAX_PICKLE = 2**30, 2**26
"""DenseNet121 has 32 MB of weights; with the state of an optimizer, three times that."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First number in files of torch before 1.6."""

ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"7z": "7-Zip", b"Rar": "RAR"}


def read_file(path: Path, what: str) -> Any:
    """Read tensors and plain types from a file; a pickled module becomes its state dict (``ModuleState``).

    Args:
        path: A file written by any version of ``torch.save``, or ``.safetensors``.
        what: What to call it in messages.

    Raises:
        CheckpointError: It is missing, damaged, too large, not a weights file, or needs an import.
    """
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles, which are checked here anyway
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise CheckpointError(f"{what}: refused: larger than {MAX_BYTES // 2**20} MiB; DenseNet121 has 32")
            if path.suffix == ".safetensors":
                return load_file(path)
            return _read_zip(file, path, what) if zipfile.is_zipfile(file) else _read_legacy(file, path, what)
    except CheckpointError:
        raise
    except pickle.UnpicklingError:
        raise CheckpointError(f"{what}: refused: it is no file of weights, or holds more than plain types") from None
    except OSError as error:
        raise CheckpointError(f"{what}: it cannot be read: {error.strerror or first_line(error)}") from None
    except Exception as error:  # on other bytes, the reader can raise anything
        raise CheckpointError(f"{what}: it is damaged or no file of weights: {first_line(error, 160)}") from None


def _read_zip(file: BinaryIO, path: Path, what: str) -> Any:
    """Read a file of torch since 1.6: an uncompressed zip archive."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        pickles = [one for one in members if one.filename.endswith("/data.pkl") and one.filename.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"{what}: an archive, and no file of weights: unpack it, and name the file in it")
        folder = pickles[0].filename.removesuffix("data.pkl")
        if not all(member.filename.startswith(folder) for member in members):
            raise CheckpointError(f"{what}: refused: an archive with members that torch.save would not write")
        if any(member.filename == f"{folder}constants.pkl" for member in members):
            raise CheckpointError(
                f"{what}: a TorchScript program: save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            )
        if pickles[0].file_size > MAX_PICKLE:
            raise CheckpointError(f"{what}: refused: its pickle is larger than that of any file of weights")
        check_members(archive, file, what)
        pickled = archive.read(pickles[0])
        scan = scan_pickle(io.BytesIO(pickled), what)
        check_names(scan.names, path, what)
        if is_plain(scan):
            file.seek(0)
            return torch.load(file, "cpu", weights_only=True)
        unpickler = InertUnpickler(io.BytesIO(pickled))
        content = unpickler.load()

        def read_storage(key: str) -> Tensor:
            return _to_tensor(archive.read(f"{folder}data/{key}"), unpickler.dtypes[key])

        return Converter(read_storage).convert(content)


def _read_legacy(file: BinaryIO, path: Path, what: str) -> Any:
    """Read a file of torch before 1.6: five pickles, then the numbers of each storage."""
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE))
    for magic, kind in ARCHIVES.items():
        if head.getbuffer()[: len(magic)] == magic:
            raise CheckpointError(f"{what}: packed with {kind}: unpack it, and name the file in it")
    first = [argument for _, argument, _ in itertools.islice(pickletools.genops(head), 8)]
    if LEGACY_MAGIC not in first:
        raise CheckpointError(f"{what}: refused: it is no file of weights")
    ends = [head.tell()]
    scans: list[PickleScan] = []
    for _ in range(4):  # version, system information, content, keys of the storages
        scans.append(scan_pickle(head, what))
        ends.append(head.tell())
    for scan in (scans[2], scans[0], scans[1], scans[3]):  # the content first: the message should be about it
        check_names(scan.names, path, what)
    if all(map(is_plain, scans)):
        file.seek(0)
        return torch.load(file, "cpu", weights_only=True)
    head.seek(ends[2])
    unpickler = InertUnpickler(head)
    content = unpickler.load()
    keys = InertUnpickler(head).load()
    return Converter(_place_storages(file, ends[4], keys, unpickler.dtypes)).convert(content)


def _place_storages(
    file: BinaryIO, begin: int, keys: list[str], dtypes: dict[str, torch.dtype]
) -> Callable[[str], Tensor]:
    """Locate each storage: an 8-byte number of elements, then the elements."""
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        file.seek(begin)
        n_bytes = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
        if n_bytes > MAX_BYTES:
            raise ValueError("a storage is larger than the file")
        places[key] = begin + 8, n_bytes
        begin += 8 + n_bytes

    def read_storage(key: str) -> Tensor:
        place, n_bytes = places[key]
        file.seek(place)
        return _to_tensor(file.read(n_bytes), dtypes[key])

    return read_storage


def _to_tensor(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
