"""The store: the images of an index at one size, decoded and resized once, then read in place.

``manifest.py`` describes its folder, ``find_store.py`` finds it, ``builder.py`` builds it, ``remote.py`` fetches it
from elsewhere.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxrlit.core.errors import DataError
from cxrlit.core.files import hash_file, hash_value, open_descriptor
from cxrlit.data.store.manifest import (
    NPY_HEADER_BYTES,
    STORE_FILE,
    Manifest,
    StoreFault,
    StoreRecord,
    check_shard,
    list_sizes,
    read_files,
    read_image_table,
    read_manifest,
    read_store_record,
)

MAX_OPEN = 400
"""Maximum number of open shards, of the 1,024 files that a process may have open."""


class _OpenShard:
    """A shard's file. It is read, not mapped: a failing disk then raises an error instead of killing the process."""

    descriptor = -1

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = open_descriptor(path)
        except OSError as error:
            raise self.explain(error.strerror) from None

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def announce(self, offset: int, n_bytes: int) -> None:
        """Ask the system to prefetch bytes."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(self.descriptor, offset, n_bytes, os.POSIX_FADV_WILLNEED)

    def read_into(self, image: NDArray[np.uint8], offset: int) -> None:
        """Read an image into an array.

        Raises:
            DataError: The file cannot be read, or is too short.
        """
        try:
            n_read = os.preadv(self.descriptor, [image.data], offset)
        except OSError as error:
            raise self.explain(error.strerror) from None
        if n_read < image.nbytes:
            raise self.explain("it is too short")

    def explain(self, reason: str | None) -> DataError:
        return DataError(f"{self.path}: {reason}: was the store or its disk changed while it was in use? Start again")


@dataclass(frozen=True, eq=False)
class Store:
    """An open store, or several combined. Threads may share it.

    It pickles as paths: another process reopens the shards.

    Attributes:
        size: Side of the images, pixels.
        paths: Paths of the shards.
        starts: (n_shards + 1,) position of the first image of each shard, and the number of images at the end.
        positions: (N,) position of each index row in the store, -1 if the image could not be decoded.
        dropped: Images that could not be decoded: ``source``, ``image``, ``path``, ``reason``.
        files_sha256: Hash of the bytes of all files of the index, in its order, at the time of decoding.
        digests: (N,) first 8 bytes of the SHA-256 of each row's file.
        is_flat: (N,) whether the image has a single gray, or almost; False if not measured.
        warnings: (N,) how the decoder departs from the file's own description; empty if it does not.
    """

    size: int
    paths: tuple[Path, ...]
    starts: NDArray[np.int64]
    positions: NDArray[np.int64]
    dropped: pd.DataFrame
    files_sha256: str
    digests: NDArray[np.int64]
    is_flat: NDArray[np.bool_]
    warnings: NDArray[np.object_]
    _shards: dict[int, _OpenShard] = field(default_factory=dict, repr=False)

    def take(self, positions: ArrayLike) -> NDArray[np.uint8]:
        """Read the (B, S, S) images at some positions.

        Raises:
            IndexError: A position is out of range.
            DataError: A shard is missing or cannot be read.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= self.starts[-1])]
        if outside.size:
            raise IndexError(f"there is no image at {outside[0]} of {self.starts[-1]}")
        shards = self.starts.searchsorted(wanted, side="right") - 1
        offsets = NPY_HEADER_BYTES + (wanted - self.starts[shards]) * self.size**2
        places = list(zip(shards.tolist(), offsets.tolist(), strict=True))
        for shard, offset in places:  # request all first, so that the disk need not wait for each scattered image
            self._open_shard(shard).announce(offset, self.size**2)
        images = np.empty((len(places), self.size, self.size), dtype=np.uint8)
        for image, (shard, offset) in zip(images, places, strict=True):
            self._open_shard(shard).read_into(image, offset)
        return images

    def list_shards(self) -> list[int]:
        """Numbers of the shards with an image of the index."""
        good = self.positions[self.positions >= 0]
        held: list[int] = np.unique(self.starts.searchsorted(good, side="right") - 1).tolist()
        return held

    def _open_shard(self, number: int) -> _OpenShard:
        shard = self._shards.get(number)
        if shard is None:
            if len(self._shards) >= MAX_OPEN:
                self._shards.popitem()  # stays open while another thread reads it
            shard = self._shards[number] = _OpenShard(self.paths[number])
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}


def join_stores(stores: Sequence[Store], places: Sequence[NDArray[np.int64]]) -> Store:
    """Combine several stores of one size.

    Args:
        stores: The stores.
        places: Rows of each store in the joint index, in the order of its ``positions``.
    """
    offsets = np.cumsum([0, *(store.starts[-1] for store in stores)])
    n_rows = sum(len(rows) for rows in places)
    positions, digests = np.empty(n_rows, dtype=np.int64), np.empty(n_rows, dtype=np.int64)
    is_flat, warnings = np.empty(n_rows, dtype=bool), np.empty(n_rows, dtype=object)
    for store, rows, offset in zip(stores, places, offsets[:-1], strict=True):
        positions[rows] = np.where(store.positions >= 0, store.positions + offset, -1)
        digests[rows], is_flat[rows], warnings[rows] = store.digests, store.is_flat, store.warnings
    starts = [store.starts[:-1] + offset for store, offset in zip(stores, offsets[:-1], strict=True)]
    return Store(
        size=stores[0].size,
        paths=tuple(path for store in stores for path in store.paths),
        starts=np.concatenate([*starts, offsets[-1:]]),
        positions=positions,
        dropped=pd.concat([store.dropped for store in stores], ignore_index=True),
        files_sha256=hash_value([store.files_sha256 for store in stores], digits=64),
        digests=digests,
        is_flat=is_flat,
        warnings=warnings,
    )


def open_size(folder: Path, index: pd.DataFrame) -> Store:
    """Open one size of a store.

    Args:
        folder: ``<store>/<size>``.
        index: The wanted rows; ``source``, ``image`` and ``path`` are used.

    Raises:
        StoreFault: A file is missing or damaged, or the store lacks an image of the index.
        DataError: A file cannot be read, perhaps temporarily.
    """
    manifest = read_manifest(folder)
    store = match_images(folder, manifest, read_image_table(folder, manifest), index)
    for shard in store.list_shards():
        check_shard(store.paths[shard], manifest.shards[shard], manifest.size)
    return store


def match_images(folder: Path, manifest: Manifest, images: pd.DataFrame, index: pd.DataFrame) -> Store:
    """A store for the rows of an index, whose shards need not exist yet.

    Raises:
        StoreFault: The store lacks an image of the index.
    """
    places = find_rows(images["image"], index["image"])
    good = (images["reason"] == "").to_numpy()
    positions = np.where(good, np.cumsum(good) - 1, -1)[places].astype(np.int64)
    bad = positions < 0
    return Store(
        size=manifest.size,
        paths=tuple(folder / shard.file for shard in manifest.shards),
        starts=np.cumsum([0, *(shard.n_images for shard in manifest.shards)], dtype=np.int64),
        positions=positions,
        dropped=index.loc[bad, ["source", "image", "path"]]
        .assign(reason=images["reason"].to_numpy()[places[bad]])
        .reset_index(drop=True),
        files_sha256=hashlib.sha256("\n".join(images["sha256"].to_numpy()[places]).encode()).hexdigest(),
        digests=_shorten(images["sha256"])[places],
        is_flat=(images["flat"] == "1").to_numpy()[places],
        warnings=images["warning"].to_numpy(object)[places],
    )


def _shorten(sha256: pd.Series) -> NDArray[np.int64]:
    """(N,) first 8 bytes of each hash, 0 for an empty one.

    Raises:
        StoreFault: A value is no hash.
    """
    try:
        digests = np.frombuffer(bytes.fromhex("".join(text[:16] or "0" * 16 for text in sha256.tolist())), dtype=">i8")
    except ValueError:
        digests = np.empty(0, dtype=">i8")
    if len(digests) != len(sha256):
        raise StoreFault("the table of images is damaged")
    return digests.astype(np.int64)


def find_rows(images: pd.Series, wanted: pd.Series) -> NDArray[np.intp]:
    """(N,) row of each wanted image in a table with unique images.

    Raises:
        StoreFault: An image is missing; the message names the first.
    """
    places: NDArray[np.intp] = pd.Index(images).get_indexer(wanted)
    if (places < 0).any():
        raise StoreFault(f"it does not have {wanted.iloc[int((places < 0).argmax())]}")
    return places


def verify_store(folder: Path, sizes: Sequence[int] | None = None, removes: bool = True) -> list[str]:
    """Check every byte of a store against its manifests.

    Args:
        folder: Folder of the store.
        sizes: Sizes to check; None: all.
        removes: Remove damaged shards, so that they are rebuilt.

    Returns:
        The faults, one line each; empty if there are none.

    Raises:
        DataError: The folder has no store, or a file cannot be read, perhaps temporarily.
    """
    if not (folder / STORE_FILE).is_file() or not list_sizes(folder):
        raise DataError(f"{folder}: there is no prepared store in it: run cxrlit prepare without --verify")
    faults = []
    try:
        read_files(folder, read_store_record(folder / STORE_FILE, StoreRecord))
    except StoreFault as fault:
        faults.append(f"{folder}: {fault}")
    for size in list_sizes(folder) if sizes is None else sizes:
        size_folder = folder / str(size)
        try:
            manifest = read_manifest(size_folder)
            read_image_table(size_folder, manifest)
        except StoreFault as fault:
            faults.append(f"{size_folder}: {fault}")
            continue
        for shard in manifest.shards:
            path = size_folder / shard.file
            try:
                check_shard(path, shard, size)
                if hash_file(path) != shard.sha256:
                    raise StoreFault(f"{shard.file} is damaged")
            except StoreFault as fault:
                removed = removes and path.is_file()
                if removed:
                    path.unlink()
                faults.append(f"{size_folder}: {fault}{', and was removed' if removed else ''}")
    return faults
