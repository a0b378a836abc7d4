"""Find the store of an index: that of its own files, else one made from more files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrlit.core.files import hash_file, hash_value
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize
from cxrlit.data.store.manifest import (
    FILES_TABLE,
    STORE_FILE,
    StoreFault,
    StoreRecord,
    list_sizes,
    read_files,
    read_seen,
    read_store_record,
)
from cxrlit.data.store.reader import Store, find_rows, open_size
from cxrlit.data.store.reuse import list_siblings


class StoreSpec:
    """The files and settings that determine a store.

    Args:
        index: The index; ``source``, ``image``, ``path``, ``file``, ``n_bytes`` and ``mtime_ns`` are used.
        source: Name of the data set.
        resize: How to make a rectangular image square.
    """

    def __init__(self, index: pd.DataFrame, source: str, resize: Resize) -> None:
        self.index, self.source, self.resize = index, source, resize
        files = index[["image", "file", "n_bytes"]].sort_values("image", kind="stable")
        self.files = files.to_csv(index=False, lineterminator="\n").encode()
        self.files_sha256 = hashlib.sha256(self.files).hexdigest()

    def locate(self, cache_dir: Path) -> Path:
        """Folder of the store, which need not exist. No image is read."""
        key = hash_value([PREPROCESSING_VERSION, self.resize, self.files_sha256])
        return cache_dir / "store" / f"{self.source}-{key}"

    def check_files(self, folder: Path) -> None:
        """Check that a store was made from these files, or from more.

        Raises:
            StoreFault: It was made from other files.
        """
        record = read_store_record(folder / STORE_FILE, StoreRecord)
        if (record.source, record.resize) != (self.source, self.resize):
            raise StoreFault(f"{STORE_FILE} is damaged")
        path = folder / FILES_TABLE
        if record.files_sha256 == self.files_sha256 and path.is_file() and hash_file(path) == self.files_sha256:
            return
        files = read_files(folder, record)
        rows = find_rows(files["image"], self.index["image"])
        for column in ("file", "n_bytes"):
            if files[column].to_numpy()[rows].tolist() != self.index[column].tolist():
                raise StoreFault("it was made of other files")


def list_stores(index: pd.DataFrame, source: str, resize: Resize, cache_dir: Path) -> list[tuple[Path, list[int]]]:
    """Folders of the stores that contain an index, each with its sizes: its own store, else stores of more files."""
    wanted = StoreSpec(index, source, resize)
    own = wanted.locate(cache_dir)
    served = list_sizes(own) if (own / STORE_FILE).is_file() else []
    found = [(own, served)] if served else []
    for folder in list_siblings(own, source, resize):
        try:
            wanted.check_files(folder)
        except StoreFault:
            continue
        others = [size for size in list_sizes(folder) if size not in served]
        if others:
            found.append((folder, others))
            served = served + others
    return found


def find_sizes(folder: Path, sizes: Sequence[int], wanted: StoreSpec) -> tuple[dict[int, Store], dict[int, StoreFault]]:
    """The sizes that can be opened, and the faults of the others.

    A size that was never prepared for exactly these files may be in a store of more files, as when views are excluded.
    """
    stores, faults = open_sizes(folder, sizes, wanted)
    never = [size for size in faults if not (folder / str(size)).exists()]
    for sibling in list_siblings(folder, wanted.source, wanted.resize) if never else ():
        found, _ = open_sizes(sibling, [size for size in never if size in faults], wanted)
        stores |= found
        faults = {size: fault for size, fault in faults.items() if size not in found}
    return stores, faults


def open_sizes(folder: Path, sizes: Sequence[int], wanted: StoreSpec) -> tuple[dict[int, Store], dict[int, StoreFault]]:
    """The sizes of a store that are intact and match the files as they are now; and the faults of the others."""
    stores: dict[int, Store] = {}
    faults: dict[int, StoreFault] = {}
    try:
        if sizes:
            wanted.check_files(folder)
    except StoreFault as fault:
        return stores, dict.fromkeys(sizes, fault)
    for size in sizes:
        try:
            stores[size] = _open_current(folder / str(size), wanted.index)
        except StoreFault as fault:
            faults[size] = fault
    return stores, faults


def _open_current(folder: Path, index: pd.DataFrame) -> Store:
    """Open one size of a store, unless a file was written since."""
    store = open_size(folder, index)
    n_changed = int((read_seen(folder, index["image"]) != index["mtime_ns"].to_numpy()).sum())
    if n_changed:
        raise StoreFault(f"{n_changed:,} of {len(index):,} files were written since")
    return store
