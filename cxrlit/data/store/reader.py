"""The store: the images of an index at one size, decoded and resized once, read in place afterwards.

``manifest.py`` says what lies in its folder, ``find_store.py`` finds it, ``builder.py`` makes it, ``remote.py`` fetches
it from elsewhere.
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
"""Shards that a process has open at a time, of the 1,024 files that it may have."""


class _OpenShard:
    """A shard's file. It is read and not mapped: then a disk that fails is an error, and not the end of the process."""

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
        """Have the disk fetch bytes that are read soon."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(self.descriptor, offset, n_bytes, os.POSIX_FADV_WILLNEED)

    def read_into(self, image: NDArray[np.uint8], offset: int) -> None:
        """Fill an image.

        Raises:
            DataError: It cannot be read, or the shard ends before it does.
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
    """An open store, or several as one. Threads may share it.

    It pickles as paths: another process opens the shards anew.

    Attributes:
        size: Side of the images, pixels.
        paths: The shards.
        starts: (n_shards + 1,) position of the first image of each shard, and their number at the end.
        positions: (N,) place of each row of the index in the store, -1 where the image could not be decoded.
        dropped: Those images: ``source``, ``image``, ``path``, ``reason``.
        files_sha256: Hash of the bytes of all files of the index, in its order, as they were when they were decoded.
        digests: (N,) the first 8 bytes of the SHA-256 of the file of each row.
        is_flat: (N,) whether its image is of one gray, or almost; False where that was not measured.
        warnings: (N,) how its image is read otherwise than its file says; empty where it is not.
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
        """(B, S, S) the images at positions.

        Raises:
            IndexError: There is no such position.
            DataError: A shard cannot be read, or is not there any more.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= self.starts[-1])]
        if outside.size:
            raise IndexError(f"there is no image at {outside[0]} of {self.starts[-1]}")
        shards = self.starts.searchsorted(wanted, side="right") - 1
        offsets = NPY_HEADER_BYTES + (wanted - self.starts[shards]) * self.size**2
        places = list(zip(shards.tolist(), offsets.tolist(), strict=True))
        for shard, offset in places:  # all at once: images of a batch lie apart, and the disk would wait for each
            self._open_shard(shard).announce(offset, self.size**2)
        images = np.empty((len(places), self.size, self.size), dtype=np.uint8)
        for image, (shard, offset) in zip(images, places, strict=True):
            self._open_shard(shard).read_into(image, offset)
        return images

    def list_shards(self) -> list[int]:
        """Numbers of the shards that hold an image of the index."""
        good = self.positions[self.positions >= 0]
        held: list[int] = np.unique(self.starts.searchsorted(good, side="right") - 1).tolist()
        return held

    def _open_shard(self, number: int) -> _OpenShard:
        shard = self._shards.get(number)
        if shard is None:
            if len(self._shards) >= MAX_OPEN:
                self._shards.popitem()  # stays open while another thread reads from it
            shard = self._shards[number] = _OpenShard(self.paths[number])
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}


def join_stores(stores: Sequence[Store], places: Sequence[NDArray[np.int64]]) -> Store:
    """Several stores of one size as one.

    Args:
        stores: The stores.
        places: For each the rows of the joint index that are its own, in the order of its ``positions``.
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
        index: The rows that are wanted; ``source``, ``image`` and ``path`` count.

    Raises:
        StoreFault: A file is missing or damaged, or an image of the index is not in it.
        DataError: A file cannot be read, which may pass.
    """
    manifest = read_manifest(folder)
    store = match_images(folder, manifest, read_image_table(folder, manifest), index)
    for shard in store.list_shards():
        check_shard(store.paths[shard], manifest.shards[shard], manifest.size)
    return store


def match_images(folder: Path, manifest: Manifest, images: pd.DataFrame, index: pd.DataFrame) -> Store:
    """The store of the rows of an index, whose shards may not be there yet.

    Raises:
        StoreFault: An image of the index is not in it.
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
    """(N,) the first 8 bytes of each hash, 0 where there is none.

    Raises:
        StoreFault: One is no hash.
    """
    try:
        digests = np.frombuffer(bytes.fromhex("".join(text[:16] or "0" * 16 for text in sha256.tolist())), dtype=">i8")
    except ValueError:
        digests = np.empty(0, dtype=">i8")
    if len(digests) != len(sha256):
        raise StoreFault("the table of images is damaged")
    return digests.astype(np.int64)


def find_rows(images: pd.Series, wanted: pd.Series) -> NDArray[np.intp]:
    """(N,) the row of each image that is wanted, in a table that has each image once.

    Raises:
        StoreFault: One is not in it; names the first.
    """
    places: NDArray[np.intp] = pd.Index(images).get_indexer(wanted)
    if (places < 0).any():
        raise StoreFault(f"it does not have {wanted.iloc[int((places < 0).argmax())]}")
    return places


def verify_store(folder: Path, sizes: Sequence[int] | None = None, removes: bool = True) -> list[str]:
    """Check every byte of a store against its manifests.

    Args:
        folder: The store.
        sizes: Which of its sizes; None: all.
        removes: Remove a damaged shard, so that it is built anew.

    Returns:
        What is wrong, a line each; nothing where all is well.

    Raises:
        DataError: There is no store in the folder, or a file cannot be read, which may pass.
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
