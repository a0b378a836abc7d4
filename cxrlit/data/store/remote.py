"""Stores that were prepared elsewhere: a folder read in place, or an address that fsspec supports.

The needed part of a remote store is fetched once per machine into ``<cache_dir>/remote/<key>/``: each file under a
lock, beside its place, compared with its hash in the manifest, and renamed. fsspec transfers the bytes; its own caches
write files in place, so that a kill leaves a partial file under the final name, and check neither hash nor size. The
address is not trusted: names, sizes and counts are checked before anything is written.
"""

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs

from cxrlit.core.console import say, track
from cxrlit.core.errors import DataError, first_line
from cxrlit.core.files import hash_file, hash_value, hold_lock, replace_file
from cxrlit.data.image_files import StoredFiles
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.store.manifest import (
    FILES_TABLE,
    MANIFEST_FILE,
    MAX_JSON_BYTES,
    MAX_TABLE_BYTES,
    NPY_HEADER_BYTES,
    STORE_FILE,
    HeadT,
    Manifest,
    ShardRecord,
    StoreFault,
    StoreRecord,
    check_shard,
    check_space,
    list_sizes,
    read_files,
    read_image_table,
    read_manifest,
    read_store_record,
)
from cxrlit.data.store.reader import Store, match_images

WAITS = (0.0, 0.2, 0.4, 0.8, 1.6)
"""Delays before each attempt to fetch a file, seconds."""

SECONDS_WITHOUT_A_BYTE = 60


def read_stored_files(address: str, cache_dir: Path) -> StoredFiles:
    """The source files of a prepared store, in place of files on disk.

    Args:
        address: Folder of a store, or its address (``s3://bucket/nih``).
        cache_dir: Folder for fetched files.

    Raises:
        DataError: The store is missing, unreachable or damaged.
    """
    with _open_mirror(address, cache_dir) as mirror:
        record = mirror.read_record(STORE_FILE, StoreRecord)
        mirror.fetch(FILES_TABLE, MAX_TABLE_BYTES, record.files_sha256)
        files = read_files(mirror.folder, record)
        return StoredFiles(address, dict(zip(files["file"], files["n_bytes"].tolist(), strict=True)))


def open_remote_store(address: str, index: pd.DataFrame, size: int, resize: Resize, cache_dir: Path) -> Store:
    """Open a prepared store at one size, after fetching the part that the index needs.

    Args:
        address: Folder of a store, or its address.
        index: The wanted rows.
        size: Side of the images, pixels.
        resize: How rectangular images should have been made square.
        cache_dir: Folder for fetched files.

    Raises:
        DataError: The store lacks this size, was prepared differently, is unreachable or damaged.
    """
    with _open_mirror(address, cache_dir) as mirror:
        record = mirror.read_record(STORE_FILE, StoreRecord)
        if record.resize != resize:
            raise StoreFault(f"it was prepared with data.resize={record.resize}, not {resize}")
        try:
            mirror.read_record(f"{size}/{MANIFEST_FILE}", Manifest)
        except FileNotFoundError:
            sizes = list_sizes(mirror.folder) if mirror.remote is None else []  # a remote listing has no size limit
            others = f", but of {', '.join(map(str, sizes))}" if sizes else ""
            raise StoreFault(
                f"it has no images of {size} px{others}: cxrlit prepare sizes=[{size}] makes them"
            ) from None
        folder = mirror.folder / str(size)
        manifest = read_manifest(folder)
        mirror.fetch(f"{size}/{manifest.images_file}", MAX_TABLE_BYTES, manifest.images_sha256)
        store = match_images(folder, manifest, read_image_table(folder, manifest), index)
        wanted = [manifest.shards[number] for number in store.list_shards()]
        missing = [shard for shard in wanted if mirror.remote is not None and not _is_whole(folder, shard, size)]
        if missing:
            n_bytes = sum(shard.n_images for shard in missing) * size**2
            check_space(mirror.folder, n_bytes, "what is to be fetched")
        for shard in track(missing, f"Fetching {mirror.address}", disable=not missing):
            mirror.fetch(f"{size}/{shard.file}", NPY_HEADER_BYTES + shard.n_images * size**2, shard.sha256)
        for shard in wanted:
            check_shard(folder / shard.file, shard, size)
        return store


def find_local(address: str) -> Path | None:
    """The local folder of an address; None for other protocols."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address):
        return None
    return Path(address).expanduser().absolute()


@contextmanager
def _open_mirror(address: str, cache_dir: Path) -> Iterator["_Mirror"]:
    """Open the store at an address; errors inside the block become errors about this address.

    Raises:
        DataError: The protocol is unknown, or a ``StoreFault`` or a ``FileNotFoundError`` was raised.
    """
    mirror = _Mirror(address.rstrip("/"), cache_dir)
    try:
        yield mirror
    except StoreFault as fault:
        raise DataError(f"data.store={mirror.address}: {fault}") from None
    except FileNotFoundError as error:
        raise DataError(
            f"data.store={mirror.address}: there is no prepared store ({first_line(error)}): name the folder that "
            f"holds {STORE_FILE}"
        ) from None


class _Mirror:
    """A store at an address as a folder on this machine: the store itself, or a copy of the fetched files."""

    def __init__(self, address: str, cache_dir: Path) -> None:
        self.address, self.is_reachable = address, True
        self.remote: Any = None  # fsspec has no type annotations
        local = find_local(address)
        self.folder = local or cache_dir / "remote" / hash_value(address)
        if local is None:
            try:
                self.remote, self.root = url_to_fs(address, **_choose_options(address))
            except Exception as error:  # unknown protocol, missing package, or any error of the protocol
                raise DataError(f"data.store={address}: {first_line(error)}") from None

    def read_record(self, name: str, schema: type[HeadT]) -> HeadT:
        """Read a JSON file, fetched anew; if the address is unreachable, as fetched last.

        Raises:
            FileNotFoundError: There is no such file.
            StoreFault: The file is damaged, or cannot be fetched.
        """
        path = self.folder / name
        if self.is_reachable:
            try:
                self.fetch(name, MAX_JSON_BYTES, schema=schema)
            except _UnreachableFault as fault:
                if not path.is_file():
                    raise
                self.is_reachable = False
                say(f"{self.address}: {fault}: going on with what was fetched before", style="yellow")
        if not path.is_file():
            if self.is_reachable:
                raise FileNotFoundError(f"no {name}")
            raise StoreFault(f"{name} was not fetched before, and the address cannot be reached")
        return read_store_record(path, schema)

    def fetch(self, name: str, max_bytes: int, sha256: str = "", schema: type[HeadT] | None = None) -> None:
        """Fetch a file, unless it exists with its hash.

        Args:
            name: Path below the address.
            max_bytes: Maximum size.
            sha256: Required hash.
            schema: Schema of a JSON file, which has no hash.

        Raises:
            FileNotFoundError: There is no such JSON file.
            StoreFault: The file cannot be fetched, or differs from its hash.
            DataError: The file cannot be written.
        """
        path = self.folder / name
        if self.remote is None or _has_hash(path, sha256):
            return
        with hold_lock(path, f"waiting for another process that fetches {self.address}/{name}"):
            if _has_hash(path, sha256):
                return  # another process has fetched it
            fault = StoreFault(name)
            for wait in WAITS:
                time.sleep(wait)
                try:
                    with replace_file(path) as staged:
                        self._get(name, staged, max_bytes)
                        if schema is not None:
                            read_store_record(staged, schema, name)
                        elif hash_file(staged) != sha256:
                            raise StoreFault(f"{name} is not what it should be")
                    return
                except FileNotFoundError:
                    if schema is not None:
                        raise FileNotFoundError(f"no {name}") from None
                    raise StoreFault(f"{name} is missing there") from None
                except StoreFault as error:
                    fault = error
            raise fault

    def _get(self, name: str, staged: Path, max_bytes: int) -> None:
        try:
            self.remote.get_file(f"{self.root}/{name}", str(staged), callback=_Limit(name, max_bytes))
        except (FileNotFoundError, StoreFault):
            raise
        except Exception as error:  # every protocol has its own errors
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise DataError(f"{self.folder}: {error.strerror}: make room, or set cache_dir elsewhere") from None
            raise _UnreachableFault(f"{name} cannot be fetched ({first_line(error, 200)})") from None
        if staged.is_dir():  # the address has a folder under this name
            staged.rmdir()
            raise FileNotFoundError(name)


class _UnreachableFault(StoreFault):
    """The address fails to answer properly, perhaps temporarily."""


_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Limit(Callback):  # type: ignore[misc]
    """Stops a transfer that exceeds its size limit."""

    def __init__(self, name: str, max_bytes: int) -> None:
        super().__init__()
        self.name, self.max_bytes = name, max_bytes

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.max_bytes:
            raise StoreFault(f"{self.name} is longer than the {self.max_bytes:,} bytes that it may have")


def _choose_options(address: str) -> dict[str, object]:
    """Options that allow slow transfers, but not stalled ones."""
    if not address.startswith(("http:", "https:")):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SECONDS_WITHOUT_A_BYTE, sock_read=SECONDS_WITHOUT_A_BYTE)
    return {"client_kwargs": {"timeout": timeout}}


def _has_hash(path: Path, sha256: str) -> bool:
    return sha256 != "" and path.is_file() and hash_file(path) == sha256


def _is_whole(folder: Path, shard: ShardRecord, size: int) -> bool:
    try:
        check_shard(folder / shard.file, shard, size)
    except StoreFault:
        return False
    return True
