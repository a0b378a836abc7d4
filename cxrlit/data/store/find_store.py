"""Which store serves an index: that of its own files, else one that was made of more of them."""

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
    """What a store is to be made of, and how.

    Args:
        index: The index: ``source``, ``image``, ``path``, ``file``, ``n_bytes`` and ``mtime_ns`` count.
        source: The data set's name.
        resize: How an image that is not square becomes square.
    """

    def __init__(self, index: pd.DataFrame, source: str, resize: Resize) -> None:
        self.index, self.source, self.resize = index, source, resize
        files = index[["image", "file", "n_bytes"]].sort_values("image", kind="stable")
        self.files = files.to_csv(index=False, lineterminator="\n").encode()
        self.files_sha256 = hashlib.sha256(self.files).hexdigest()

    def locate(self, cache_dir: Path) -> Path:
        """Folder of the store, whether it is there or not. No image is read."""
        key = hash_value([PREPROCESSING_VERSION, self.resize, self.files_sha256])
        return cache_dir / "store" / f"{self.source}-{key}"

    def check_files(self, folder: Path) -> None:
        """A store was made of these files, or of more.

        Raises:
            StoreFault: It was not.
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
    """Folders of the stores that serve an index, each with its sizes: its own, else those of more files."""
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
    """The sizes that can be opened, and what keeps the others from it.

    What was never prepared for these files alone may lie in a store of more, as where only some views are wanted.
    """
    stores, faults = open_sizes(folder, sizes, wanted)
    never = [size for size in faults if not (folder / str(size)).exists()]
    for sibling in list_siblings(folder, wanted.source, wanted.resize) if never else ():
        found, _ = open_sizes(sibling, [size for size in never if size in faults], wanted)
        stores |= found
        faults = {size: fault for size, fault in faults.items() if size not in found}
    return stores, faults


def open_sizes(folder: Path, sizes: Sequence[int], wanted: StoreSpec) -> tuple[dict[int, Store], dict[int, StoreFault]]:
    """The sizes of one store that are whole and of the wanted files as they are now; and the faults of the others."""
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
    """One size of a store, if none of the files was written since."""
    store = open_size(folder, index)
    n_changed = int((read_seen(folder, index["image"]) != index["mtime_ns"].to_numpy()).sum())
    if n_changed:
        raise StoreFault(f"{n_changed:,} of {len(index):,} files were written since")
    return store
