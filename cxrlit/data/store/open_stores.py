"""Open the prepared images of loaded data: one source or several, from the cache or elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import format_path, say
from cxrlit.core.errors import DataError, format_count
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.index import DataTables
from cxrlit.data.store.builder import prepare_stores
from cxrlit.data.store.find_store import list_stores
from cxrlit.data.store.manifest import list_sizes
from cxrlit.data.store.reader import Store, join_stores, verify_store
from cxrlit.data.store.remote import find_local, open_remote_store


def open_data_store(data: DataTables, size: int, resize: Resize, cache_dir: Path) -> Store:
    """The images at one size, prepared first if necessary."""
    return open_data_stores(data, [size], resize, cache_dir)[0]


def open_data_stores(
    data: DataTables, sizes: Sequence[int], resize: Resize, cache_dir: Path, workers: int | None = None
) -> list[Store]:
    """A store per size over all rows of the index; each file is decoded once for all sizes.

    Args:
        data: The data, of one source or several.
        sizes: Sides of the square images, pixels.
        resize: How to make a rectangular image square.
        cache_dir: Folder of all stores.
        workers: Decoding threads; None: one per core.

    Raises:
        DataError: Images cannot be prepared or fetched.
    """
    by_source, places = [], []
    for source, rows, index in list_sources(data):
        address = data.stores.get(source)
        if address is None:
            stores = prepare_stores(index, source, sizes, resize, cache_dir, workers)
        else:
            stores = [open_remote_store(address, index, size, resize, cache_dir) for size in sizes]
        by_source.append(stores)
        places.append(rows)
    if len(by_source) == 1:
        return by_source[0]
    return [join_stores(list(stores), places) for stores in zip(*by_source, strict=True)]


def find_data_store(data: DataTables, size: int, resize: Resize, cache_dir: Path) -> Store | None:
    """The images at one size if the cache has them; files that were written since are checked again.

    None if they are not prepared, and for images from an address.
    """
    for source, _, index in list_sources(data):
        served = [size for _, sizes in list_stores(index, source, resize, cache_dir) for size in sizes]
        if source in data.stores or size not in served:
            return None
    return open_data_store(data, size, resize, cache_dir)


def verify_data_stores(data: DataTables, resize: Resize, cache_dir: Path) -> None:
    """Check every byte of the stores of loaded data, at all existing sizes.

    Damaged files are removed from the cache, so that they are rebuilt; a folder of ``data.store`` is only read.

    Raises:
        DataError: A store is damaged or missing; the message names the first fault, all are printed.
    """
    for source, address in data.stores.items():
        if find_local(address) is None:
            raise DataError(
                f"data.store={address}: what comes from there is compared with its hashes as it is fetched: verify "
                f"{source} where it was prepared"
            )
    faults, remedy = [], "run the same command without --verify"
    for source, _, index in list_sources(data):
        own = find_local(data.stores[source]) if source in data.stores else None
        served = list_stores(index, source, resize, cache_dir) if own is None else [(own, list_sizes(own))]
        if not served:
            raise DataError(f"{source}: it is not prepared: run cxrlit prepare without --verify")
        for folder, sizes in served:
            found = verify_store(folder, sizes, removes=own is None)
            for fault in found:
                say(fault, style="red")
            if not found:
                names = ", ".join(map(str, sizes))
                say(f"{format_path(folder)}: every byte of the images at {names} px is as it was written")
            elif own is not None:
                remedy = f"prepare {source} anew where data.store={own} came from"
            faults += found
    if faults:
        raise DataError(f"{format_count(len(faults), 'fault')}, the first: {faults[0]}; {remedy}")


def list_sources(data: DataTables) -> list[tuple[str, NDArray[np.int64], pd.DataFrame]]:
    """Each source of loaded data: name, its rows of the index, and its own index."""
    of_rows = data.index["source"]
    places = [(source, np.flatnonzero((of_rows == source).to_numpy())) for source in of_rows.unique()]
    return [(source, rows, data.index.iloc[rows].reset_index(drop=True)) for source, rows in places]
