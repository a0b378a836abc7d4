"""The store: the images of an index at one size, decoded and resized once, memory-mapped afterwards.

``records.py`` says what lies in its folder, ``build.py`` makes it, ``remote.py`` fetches it from elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.data.records import (
    NPY_HEADER_BYTES,
    STORE_FILE,
    Manifest,
    StoreFault,
    StoreRecord,
    check_shard,
    list_sizes,
    read_files,
    read_images,
    read_manifest,
    read_record,
)
from cxrlit.errors import DataError
from cxrlit.files import hash_file

MAX_MAPS = 400
"""Shards that a process has open at a time: each is an open file, of which it may have 1,024."""


@dataclass(frozen=True, eq=False)
class Store:
    """An open store, or several as one.

    It pickles as paths: a loader process maps the shards anew.

    Attributes:
        size: Side of the images, pixels.
        paths: The shards.
        starts: (n_shards + 1,) position of the first image of each shard, and their number at the end.
        positions: (N,) place of each row of the index in the store, -1 where the image could not be decoded.
        dropped: Those images: ``image``, ``path``, ``reason``.
    """

    size: int
    paths: tuple[Path, ...]
    starts: NDArray[np.int64]
    positions: NDArray[np.int64]
    dropped: pd.DataFrame
    _maps: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def read(self, position: int) -> NDArray[np.uint8]:
        """(S, S) the image at a position, as a view into its file.

        Raises:
            IndexError: There is no such position.
            DataError: The file is not there any more.
        """
        if not 0 <= position < self.starts[-1]:
            raise IndexError(f"there is no image at {position} of {self.starts[-1]}")
        shard = int(self.starts.searchsorted(position, side="right")) - 1
        images = self._maps.get(shard)
        if images is None:
            images = self._map_shard(shard)
        image: NDArray[np.uint8] = images[position - self.starts[shard]]
        return image

    def take(self, positions: Iterable[int]) -> NDArray[np.uint8]:
        """(B, S, S) copies of the images at positions."""
        wanted = list(positions)
        images = np.empty((len(wanted), self.size, self.size), dtype=np.uint8)
        for row, position in enumerate(wanted):
            images[row] = self.read(position)
        return images

    def list_shards(self) -> list[int]:
        """Numbers of the shards that hold an image of the index."""
        good = self.positions[self.positions >= 0]
        held: list[int] = np.unique(self.starts.searchsorted(good, side="right") - 1).tolist()
        return held

    def _map_shard(self, shard: int) -> NDArray[np.uint8]:
        while len(self._maps) >= MAX_MAPS:
            self._maps.pop(next(iter(self._maps)))
        shape = (int(self.starts[shard + 1] - self.starts[shard]), self.size, self.size)
        path = self.paths[shard]
        try:
            mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=NPY_HEADER_BYTES, shape=shape)
        except (OSError, ValueError) as error:  # ValueError: it is shorter than that
            reason = error.strerror if isinstance(error, OSError) else "it is too short"
            raise DataError(f"{path}: {reason}: was the store changed while it was in use? Start again") from None
        self._maps[shard] = mapped.view(np.ndarray)
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def join_stores(stores: Sequence[Store], places: Sequence[NDArray[np.int64]]) -> Store:
    """Several stores of one size as one.

    Args:
        stores: The stores.
        places: For each the rows of the joint index that are its own, in the order of its ``positions``.
    """
    offsets = np.cumsum([0, *(store.starts[-1] for store in stores)])
    positions = np.empty(sum(len(rows) for rows in places), dtype=np.int64)
    for store, rows, offset in zip(stores, places, offsets[:-1], strict=True):
        positions[rows] = np.where(store.positions >= 0, store.positions + offset, -1)
    starts = [store.starts[:-1] + offset for store, offset in zip(stores, offsets[:-1], strict=True)]
    return Store(
        size=stores[0].size,
        paths=tuple(path for store in stores for path in store.paths),
        starts=np.concatenate([*starts, offsets[-1:]]),
        positions=positions,
        dropped=pd.concat([store.dropped for store in stores], ignore_index=True),
    )


def open_size(folder: Path, index: pd.DataFrame) -> Store:
    """Open one size of a store.

    Args:
        folder: ``<store>/<size>``.
        index: The rows that are wanted; ``image`` and ``path`` count.

    Raises:
        StoreFault: A file is missing or damaged, or an image of the index is not in it.
        DataError: A file cannot be read, which may pass.
    """
    manifest = read_manifest(folder)
    store = find_images(folder, manifest, read_images(folder, manifest), index)
    for shard in store.list_shards():
        check_shard(store.paths[shard], manifest.shards[shard], manifest.size)
    return store


def find_images(folder: Path, manifest: Manifest, images: pd.DataFrame, index: pd.DataFrame) -> Store:
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
        dropped=index.loc[bad, ["image", "path"]]
        .assign(reason=images["reason"].to_numpy()[places[bad]])
        .reset_index(drop=True),
    )


def find_rows(images: pd.Series, wanted: pd.Series) -> NDArray[np.intp]:
    """(N,) the row of each image that is wanted, in a table that has each image once.

    Raises:
        StoreFault: One is not in it; names the first.
    """
    places: NDArray[np.intp] = pd.Index(images).get_indexer(wanted)
    if (places < 0).any():
        raise StoreFault(f"it does not have {wanted.iloc[int((places < 0).argmax())]}")
    return places


def verify_store(folder: Path, sizes: Sequence[int] | None = None) -> list[str]:
    """Check every byte of a store against its manifests. A damaged shard is removed, so that it is built anew.

    Args:
        folder: The store.
        sizes: Which of its sizes; None: all.

    Returns:
        What is wrong, a line each; nothing where all is well.

    Raises:
        DataError: There is no store in the folder, or a file cannot be read, which may pass.
    """
    if not (folder / STORE_FILE).is_file() or not list_sizes(folder):
        raise DataError(f"{folder}: there is no prepared store in it: run cxrlit prepare without --verify")
    faults = []
    try:
        read_files(folder, read_record(folder / STORE_FILE, StoreRecord))
    except StoreFault as fault:
        faults.append(f"{folder}: {fault}")
    for size in list_sizes(folder) if sizes is None else sizes:
        size_folder = folder / str(size)
        try:
            manifest = read_manifest(size_folder)
            read_images(size_folder, manifest)
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
                removed = path.is_file()
                path.unlink(missing_ok=True)
                faults.append(f"{size_folder}: {fault}{', and was removed' if removed else ''}")
    return faults
