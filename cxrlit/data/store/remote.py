"""Stores that were prepared elsewhere: a folder that is read in place, or an address that fsspec knows.

What is needed of a remote store is fetched once a machine, into ``<cache_dir>/remote/<key>/``: each file under a lock,
beside its place, compared with the hash that the manifest gives it, and renamed. What the address serves is not
trusted: names, sizes and counts are checked before anything is written.
"""

import errno
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pandas as pd
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from rich.progress import track

from cxrlit.core.console import say
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
    is_size,
    read_files,
    read_image_table,
    read_manifest,
    read_store_record,
)
from cxrlit.data.store.reader import Store, match_images, open_size

TRIES = 5
"""Tries for each file; of those that brought other bytes than they should, 2."""

FIRST_WAIT = 0.2
"""Seconds before the second try; each wait is twice the last."""

SECONDS_WITHOUT_A_BYTE = 60

ResultT = TypeVar("ResultT")


def read_stored_files(address: str, cache_dir: Path) -> StoredFiles:
    """The files that a prepared store was made of, in place of those on disk.

    Args:
        address: A store's folder, or its address (``s3://bucket/nih``).
        cache_dir: Where what is fetched is kept.

    Raises:
        DataError: There is no store, it cannot be reached, or it is damaged.
    """
    mirror = _Mirror(address, cache_dir)

    def read() -> StoredFiles:
        record = mirror.read_record(STORE_FILE, StoreRecord)
        mirror.fetch(FILES_TABLE, MAX_TABLE_BYTES, record.files_sha256)
        files = read_files(mirror.folder, record)
        return StoredFiles(address, dict(zip(files["file"], files["n_bytes"].tolist(), strict=True)))

    return mirror.explain(read)


def open_remote_store(address: str, index: pd.DataFrame, size: int, resize: Resize, cache_dir: Path) -> Store:
    """Open a prepared store at one size, fetching what the index needs of it.

    Args:
        address: As for ``read_stored_files``.
        index: The rows that are wanted.
        size: Side of the images, pixels.
        resize: How images that are not square were to become square.
        cache_dir: Where what is fetched is kept.

    Raises:
        DataError: It has not this size, was prepared in another way, cannot be reached, or is damaged.
    """
    mirror = _Mirror(address, cache_dir)
    folder = mirror.folder / str(size)

    def fetch() -> Store:
        record = mirror.read_record(STORE_FILE, StoreRecord)
        if record.resize != resize:
            raise StoreFault(f"it was prepared with data.resize={record.resize}, not {resize}")
        try:
            mirror.read_record(f"{size}/{MANIFEST_FILE}", Manifest)
        except FileNotFoundError:
            raise StoreFault(f"{mirror.say_sizes(size)}: cxrlit prepare sizes=[{size}] makes them") from None
        if mirror.is_local:
            return open_size(folder, index)
        manifest = read_manifest(folder)
        mirror.fetch(f"{size}/{manifest.images_file}", MAX_TABLE_BYTES, manifest.images_sha256)
        store = match_images(folder, manifest, read_image_table(folder, manifest), index)
        wanted = [manifest.shards[number] for number in store.list_shards()]
        missing = [shard for shard in wanted if not _is_whole(folder, shard, size)]
        mirror.check_space(sum(shard.n_images for shard in missing) * size**2)
        for shard in track(missing, f"Fetching {mirror.address}", disable=not missing):
            mirror.fetch(f"{size}/{shard.file}", NPY_HEADER_BYTES + shard.n_images * size**2, shard.sha256)
            check_shard(folder / shard.file, shard, size)
        return store

    return mirror.explain(fetch)


def find_local(address: str) -> Path | None:
    """The folder that an address is; None where it is of another protocol."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address):
        return None
    return Path(address).expanduser().absolute()


class _Mirror:
    """What lies at an address, as a folder on this machine."""

    def __init__(self, address: str, cache_dir: Path) -> None:
        self.address = address.rstrip("/")
        self.is_reachable = True
        local = find_local(self.address)
        self.is_local = local is not None
        self.folder = local or cache_dir / "remote" / hash_value(self.address)
        if self.is_local:
            return
        try:
            self.remote, self.root = url_to_fs(self.address, **_choose_options(self.address))
        except Exception as error:  # no such protocol, its package is not installed, or what else it may say
            raise DataError(f"data.store={self.address}: {first_line(error)}") from None

    def explain(self, read: Callable[[], ResultT]) -> ResultT:
        """Run a function; what goes wrong becomes a fault of this address."""
        try:
            return read()
        except StoreFault as fault:
            raise DataError(f"data.store={self.address}: {fault}") from None
        except FileNotFoundError as error:
            raise DataError(
                f"data.store={self.address}: there is no prepared store ({first_line(error)}): name the folder that "
                f"holds {STORE_FILE}"
            ) from None

    def read_record(self, name: str, schema: type[HeadT]) -> HeadT:
        """A JSON file, fetched anew; where the address cannot be reached, as it was fetched last.

        Raises:
            FileNotFoundError: There is none.
            StoreFault: It is damaged, or cannot be had.
        """
        path = self.folder / name
        if self.is_local and not path.is_file():
            raise FileNotFoundError(f"no {name}")
        if not self.is_local and self.is_reachable:
            try:
                self.fetch(name, MAX_JSON_BYTES, None, lambda staged: read_store_record(staged, schema, name))
            except _UnreachableFault as fault:
                if not path.is_file():
                    raise
                self.is_reachable = False
                say(f"{self.address}: {fault}: going on with what was fetched before", style="yellow")
        try:
            return read_store_record(path, schema)
        except StoreFault:
            if not self.is_reachable and not path.is_file():
                raise StoreFault(f"{name} was not fetched before, and the address cannot be reached") from None
            raise

    def fetch(
        self, name: str, max_bytes: int, sha256: str | None, check: Callable[[Path], object] | None = None
    ) -> None:
        """Fetch a file, unless it is there with this hash.

        Args:
            name: Path below the address.
            max_bytes: It is not longer than that.
            sha256: What it must be; None: whatever is there now.
            check: Raises a ``StoreFault`` where what came cannot be used.

        Raises:
            FileNotFoundError: There is no such file, and it has no hash.
            StoreFault: It cannot be had, or is another one.
            DataError: It cannot be written.
        """
        path = self.folder / name
        if self.is_local or _has_hash(path, sha256):
            return
        with hold_lock(path, f"waiting for another process that fetches {self.address}/{name}"):
            if _has_hash(path, sha256):
                return  # by that process
            n_wrong, fault = 0, StoreFault(f"{name} cannot be fetched")
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
                try:
                    with replace_file(path) as staged:
                        self._get(name, staged, max_bytes)
                        if sha256 is not None and hash_file(staged) != sha256:
                            raise StoreFault(f"{name} is not what it should be")
                        if check is not None:
                            check(staged)
                    return
                except FileNotFoundError:
                    if sha256 is None:
                        raise FileNotFoundError(f"no {name}") from None
                    raise StoreFault(f"{name} is missing there") from None
                except _UnreachableFault as error:
                    fault = error
                except StoreFault as error:
                    n_wrong, fault = n_wrong + 1, error
                    if n_wrong == 2:
                        break
            raise fault

    def _get(self, name: str, staged: Path, max_bytes: int) -> None:
        try:
            self.remote.get_file(f"{self.root}/{name}", str(staged), callback=_Limit(name, max_bytes))
        except (FileNotFoundError, StoreFault):
            raise
        except Exception as error:  # every protocol has errors of its own
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise DataError(f"{self.folder}: {error.strerror}: make room, or set cache_dir elsewhere") from None
            raise _UnreachableFault(f"{name} cannot be fetched ({first_line(error)[:200]})") from None
        if staged.is_dir():  # so is what is there
            staged.rmdir()
            raise FileNotFoundError(name)

    def say_sizes(self, size: int) -> str:
        """That a size is not there, and which are, where it is a folder: what else might list has no bounds."""
        names = [path.parent.name for path in self.folder.glob(f"*/{MANIFEST_FILE}")] if self.is_local else []
        sizes = sorted(int(name) for name in names if is_size(name))
        return f"it has no images of {size} px{', but of ' if sizes else ''}{', '.join(map(str, sizes))}"

    def check_space(self, needed: int) -> None:
        """The disk has the space for what is to be fetched.

        Raises:
            DataError: It has not.
        """
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"{self.folder}: {needed / 2**30:.1f} GiB are to be fetched and the disk has {free / 2**30:.1f} GiB "
                "left: make room, or set cache_dir to another disk"
            )


class _UnreachableFault(StoreFault):
    """The address does not answer as it should, which may pass."""


_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Limit(Callback):  # type: ignore[misc]  # fsspec has no types
    """Stops a transfer that brings more than it may."""

    def __init__(self, name: str, max_bytes: int) -> None:
        super().__init__()
        self.name, self.max_bytes = name, max_bytes

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.max_bytes:
            raise StoreFault(f"{self.name} is longer than the {self.max_bytes:,} bytes that it may have")


def _choose_options(address: str) -> dict[str, object]:
    """A slow line may take its time; one that brings nothing may not."""
    if not address.startswith(("http:", "https:")):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SECONDS_WITHOUT_A_BYTE, sock_read=SECONDS_WITHOUT_A_BYTE)
    return {"client_kwargs": {"timeout": timeout}}


def _has_hash(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and hash_file(path) == sha256


def _is_whole(folder: Path, shard: ShardRecord, size: int) -> bool:
    try:
        check_shard(folder / shard.file, shard, size)
    except StoreFault:
        return False
    return True
