"""Files in the folder of a store, and checks of what is read from them.

A folder ``<cache_dir>/store/<source>-<key>/`` contains the decoded images. The key is a hash of everything that
determines the pixels and is known without reading an image: other data or another version has another folder, so that
the two are never confused. Its files:

| file | content |
| --- | --- |
| ``store.json`` | version, source, resize, hash of ``files.csv`` |
| ``files.csv`` | image, path below the data set's root and size of each file, by image |
| ``<size>/manifest.json`` | size, counts, hash of the table of images, and each shard with its hash |
| ``<size>/images-<hash>.csv`` | each image in shard order: hash of its file, reason if excluded, flat, odd |
| ``<size>/shard-NNN-<hash>.npy`` | uint8 (n, S, S) |
| ``<size>/seen.csv`` | last change of each file: specific to this machine, not part of the store |

Images are sorted by a hash of their names, and a shard is a range of that hash. So the bytes of a store depend on
the images only, and a new or changed image affects one shard. A file with its hash in its name is never rewritten: only
the manifest changes, and it changes atomically.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxrlit.core.errors import DataError, first_line
from cxrlit.core.files import open_regular
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize

STORE_FILE, FILES_TABLE = "store.json", "files.csv"
MANIFEST_FILE, SEEN_TABLE = "manifest.json", "seen.csv"
MAX_JSON_BYTES = 2**20
MAX_TABLE_BYTES = 2**28
NPY_HEADER_BYTES = 128

Count = Annotated[int, Field(ge=0, lt=2**40)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class StoreFault(Exception):
    """The files of a store are wrong; the message says how in a few words."""


class StoreIOFault(DataError):
    """A file of a store cannot be read now, perhaps temporarily; the store may still be intact."""


class _Record(BaseModel):
    """A part of a JSON file, which is not trusted: no unknown keys, no conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Head(_Record):
    """First keys of a JSON file of the store."""

    version: int
    source: Annotated[str, Field(min_length=1, max_length=100)]
    resize: Resize


class StoreRecord(_Head):
    """Content of ``store.json``."""

    n_files: Count
    files_sha256: Digest


class ShardRecord(_Record):
    """A shard in a manifest: ``n_rows`` rows of the image table, of which ``n_images`` have pixels in the shard."""

    file: Annotated[str, Field(pattern=r"^shard-[0-9]{3}-[0-9a-f]{12}\.npy$")]
    n_rows: Count
    n_images: Count
    sha256: Digest

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if self.file != shard_path(self.number, self.sha256):
            raise ValueError("a shard does not have its hash in its name")
        return self

    @property
    def number(self) -> int:
        """Number of the shard, from its file name."""
        return int(self.file[6:9])


class Manifest(_Head):
    """Content of ``<size>/manifest.json``."""

    size: Annotated[int, Field(ge=1, le=2**14)]
    n_images: Count
    n_dropped: Count
    images_sha256: Digest
    shards: Annotated[list[ShardRecord], Field(max_length=1000)]

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        numbers = [shard.number for shard in self.shards]
        if numbers != sorted(set(numbers)):
            raise ValueError("the shards are not in order")
        if sum(shard.n_images for shard in self.shards) != self.n_images:
            raise ValueError("the shards do not have so many images")
        if sum(shard.n_rows for shard in self.shards) != self.n_images + self.n_dropped:
            raise ValueError("the shards do not have so many rows")
        return self

    @property
    def images_file(self) -> str:
        """File name of the image table."""
        return images_path(self.images_sha256)


HeadT = TypeVar("HeadT", bound=_Head)


def shard_path(number: int, sha256: str) -> str:
    """File name of a shard."""
    return f"shard-{number:03d}-{sha256[:12]}.npy"


def images_path(sha256: str) -> str:
    """File name of the image table."""
    return f"images-{sha256[:12]}.csv"


def read_store_record(path: Path, schema: type[HeadT], name: str = "") -> HeadT:
    """Read a JSON file of a store.

    Args:
        path: The file.
        schema: Schema of its content.
        name: Name of the file in messages, if it still has another name.

    Raises:
        StoreFault: The file is missing, damaged, or of another version.
        StoreIOFault: The file cannot be read now.
    """
    name = name or path.name
    try:
        record = schema.model_validate_json(_read_bytes(path, MAX_JSON_BYTES))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))[:100]
        raise StoreFault(f"{name} is damaged ({place}{': ' if place else ''}{fault['msg'][:200]})") from None
    if record.version != PREPROCESSING_VERSION:
        raise StoreFault(f"{name} is of version {record.version}, this program makes {PREPROCESSING_VERSION}")
    return record


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` in the folder of a size.

    Raises:
        StoreFault: The file is missing, damaged, or of another version, size or store.
    """
    manifest = read_store_record(folder / MANIFEST_FILE, Manifest)
    record = read_store_record(folder.parent / STORE_FILE, StoreRecord)
    if (str(manifest.size), manifest.source, manifest.resize) != (folder.name, record.source, record.resize):
        raise StoreFault(f"{MANIFEST_FILE} is of other images")
    return manifest


def read_files(folder: Path, record: StoreRecord) -> pd.DataFrame:
    """Read ``files.csv``: ``image``, ``file``, ``n_bytes``.

    Raises:
        StoreFault: The file is missing, or does not match its hash.
    """
    files = _read_checked_table(folder / FILES_TABLE, ("image", "file", "n_bytes"), record.files_sha256)
    n_bytes = pd.to_numeric(files["n_bytes"], errors="coerce")
    if len(files) != record.n_files or not n_bytes.between(0, 2**40).all() or files["image"].duplicated().any():
        raise StoreFault(f"{FILES_TABLE} is damaged")
    return files.assign(n_bytes=n_bytes.astype(np.int64))


def read_image_table(folder: Path, manifest: Manifest) -> pd.DataFrame:
    """Read the image table of a size: ``image``, ``sha256`` of its file, ``reason``, ``flat``, ``warning``.

    Raises:
        StoreFault: The table is damaged, or belongs to another manifest.
    """
    name = manifest.images_file
    images = _read_checked_table(
        folder / name, ("image", "sha256", "reason"), manifest.images_sha256, ("flat", "warning")
    )
    ends = np.cumsum([0, *(shard.n_rows for shard in manifest.shards)])
    if len(images) != ends[-1] or images["image"].duplicated().any():
        raise StoreFault(f"{name} is damaged")
    n_good = np.concatenate([[0], np.cumsum(images["reason"] == "")])[ends]
    if np.diff(n_good).tolist() != [shard.n_images for shard in manifest.shards]:
        raise StoreFault(f"{name} and {MANIFEST_FILE} do not belong together")
    return images


def read_seen(folder: Path, images: pd.Series) -> NDArray[np.int64]:
    """(N,) last change of each image's file when this machine read it; -1 if it has not."""
    nothing = np.full(len(images), -1, dtype=np.int64)
    try:
        with open_regular(folder / SEEN_TABLE) as file:
            seen = pd.read_csv(file, dtype={"image": str, "mtime_ns": np.int64}, keep_default_na=False)
        names, mtime_ns = pd.Index(seen["image"]), seen["mtime_ns"].to_numpy()
    except (OSError, ValueError, KeyError, OverflowError):  # without these times the files are read and compared
        return nothing
    if names.empty or names.has_duplicates:
        return nothing
    rows = names.get_indexer(images)
    return np.where(rows >= 0, mtime_ns[rows], -1)


def make_npy_header(n_images: int, size: int) -> bytes:
    """The header of a shard."""
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (n_images, size, size)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def check_shard(path: Path, shard: ShardRecord, size: int) -> None:
    """Check that a shard exists, with the right size and header.

    Raises:
        StoreFault: The shard is missing or damaged.
    """
    try:
        with open_regular(path) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            header = file.read(NPY_HEADER_BYTES)
    except FileNotFoundError:
        raise StoreFault(f"{path.name} is missing") from None
    except OSError as error:
        raise StoreIOFault(f"{path}: cannot be read: {error.strerror}") from None
    if n_bytes != NPY_HEADER_BYTES + shard.n_images * size**2 or header != make_npy_header(shard.n_images, size):
        raise StoreFault(f"{path.name} is damaged")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Check that the disk has the space for files in a folder.

    Args:
        folder: Folder to write to.
        needed: Required bytes.
        what: Name of the files, at the beginning of a sentence.

    Raises:
        DataError: The space does not suffice.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: {what} needs {needed / 2**30:.1f} GiB more and the disk has {free / 2**30:.1f} GiB left: "
            "make room, or set cache_dir to another disk"
        )


def list_sizes(folder: Path) -> list[int]:
    """The sizes that have a folder in a store."""
    return sorted(int(path.name) for path in folder.iterdir() if is_size(path.name) and path.is_dir())


def is_size(name: str) -> bool:
    """Whether a folder's name is that of a size."""
    return name.isascii() and name.isdigit() and len(name) <= 5 and not name.startswith("0")


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise StoreFault(f"{path.name} is missing") from None
    except OSError as error:
        raise StoreIOFault(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise StoreFault(f"{path.name} is larger than {limit // 2**20} MiB")
    return content


def _read_checked_table(path: Path, columns: Sequence[str], sha256: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    content = _read_bytes(path, MAX_TABLE_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreFault(f"{path.name} is damaged")
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, lineterminator="\n")
        absent = {name: "" for name in optional if name not in table}
        return table.assign(**absent)[[*columns, *optional]]
    except (ValueError, KeyError) as error:
        raise StoreFault(f"{path.name} is damaged ({first_line(error)})") from None
