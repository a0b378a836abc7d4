"""Build stores: decode each file once for all sizes, and keep finished shards of earlier builds.

``find_store.py`` finds the store of an index.
"""

import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import format_path, say, track
from cxrlit.core.cores import open_pool
from cxrlit.core.errors import DataError, format_count
from cxrlit.core.files import hold_lock, replace_file, write_json
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize, decode_image, resize_square
from cxrlit.data.image_io.gray_levels import is_flat
from cxrlit.data.image_io.memory_budget import hold_file, hold_pixels, keep_freed
from cxrlit.data.store.find_store import StoreSpec, find_sizes, open_sizes
from cxrlit.data.store.manifest import FILES_TABLE, MANIFEST_FILE, STORE_FILE, StoreRecord, check_space
from cxrlit.data.store.reader import Store
from cxrlit.data.store.reuse import list_earlier_shards
from cxrlit.data.store.shard_writer import Outcome, SizeBuild, order_files

AHEAD = 8
"""Maximum number of images per thread that are being decoded or wait."""

AHEAD_BYTES = 64 * 2**20
"""Maximum size of waiting images, bytes."""


def prepare_stores(
    index: pd.DataFrame, source: str, sizes: Sequence[int], resize: Resize, cache_dir: Path, workers: int | None = None
) -> list[Store]:
    """Open the stores of an index at several sizes, after building what is missing or out of date.

    Args:
        index: The index; ``source``, ``image``, ``path``, ``file``, ``n_bytes`` and ``mtime_ns`` are used.
        source: Name of the data set, for the folder and the messages.
        sizes: Sides of the square images, pixels.
        resize: How to make a rectangular image square.
        cache_dir: Folder of all stores.
        workers: Decoding threads; None: one per core. Does not affect the bytes.

    Raises:
        DataError: No image could be decoded, a file cannot be read, or the disk is full.
    """
    wanted = StoreSpec(index, source, resize)
    folder = wanted.locate(cache_dir)
    stores, faults = find_sizes(folder, sizes, wanted)
    if not faults:
        return [stores[size] for size in sizes]
    try:
        with hold_lock(folder, f"waiting for another process that prepares {format_path(folder)}"):
            stores, faults = find_sizes(folder, sizes, wanted)  # another process may have built it
            for size, fault in faults.items():
                if (folder / str(size) / MANIFEST_FILE).is_file():
                    say(f"{format_path(folder / str(size))}: {fault}: what is not as it was is prepared anew")
            if faults:
                build_store(folder, sorted(faults), wanted, workers or os.cpu_count() or 1)
                built, faults = open_sizes(folder, sorted(faults), wanted)
                stores |= built
    except OSError as error:
        raise DataError(_explain(folder, error)) from None
    if faults:
        fault = next(iter(faults.values()))
        raise DataError(f"{folder}: {fault}, although it was just written: is the disk damaged?")
    return [stores[size] for size in sizes]


def build_store(folder: Path, sizes: Sequence[int], wanted: StoreSpec, workers: int) -> None:
    """Build or complete a store at several sizes. The caller holds its lock.

    Raises:
        DataError: As raised by ``prepare_stores``.
        OSError: The store cannot be written.
    """
    start = time.perf_counter()
    cv2.setNumThreads(0)  # parallelism comes from the threads below
    source, resize = wanted.source, wanted.resize
    files, keys = order_files(wanted.index)
    _sweep(folder)
    _write_head(folder, wanted)
    builds = [
        SizeBuild(folder / str(size), size, files, keys, list_earlier_shards(folder, size, source, resize, files))
        for size in sizes
    ]
    with keep_freed(workers), open_pool(workers) as pool:
        digests = _hash_touched(builds, files, source, pool)
        for build in builds:
            build.take_over(digests)
        n_decoded = int(np.logical_or.reduce([build.is_open for build in builds]).sum())
        check_space(folder, sum(int(build.is_open.sum()) * build.size**2 for build in builds), "the store")
        try:
            _fill(builds, files, source, resize, pool, AHEAD * workers)
        finally:
            for build in builds:
                build.discard()
    reasons = builds[0].reasons
    if (reasons != "").all():
        first = int(files["image"].argmin())
        raise DataError(
            f"{source}: none of the {len(files):,} images can be decoded; {files['image'][first]}: {reasons[first]}"
        )
    for build in builds:
        build.publish(source, resize)
    n_dropped = int((reasons != "").sum())
    say(
        f"{format_path(folder)}: {format_count(len(files) - n_dropped, 'image')} "
        f"at {' and '.join(f'{size} px' for size in sizes)}, "
        f"{n_dropped:,} cannot be used; {n_decoded:,} of {len(files):,} were decoded; "
        f"{time.perf_counter() - start:.0f} s"
    )


def _sweep(folder: Path) -> None:
    """Remove unfinished files of killed processes."""
    for leftover in folder.rglob(".*") if folder.is_dir() else ():
        if leftover.is_file():
            leftover.unlink()


def _write_head(folder: Path, wanted: StoreSpec) -> None:
    """Write the description of the store. It is the same for every build of this folder."""
    with replace_file(folder / FILES_TABLE) as staged:
        staged.write_bytes(wanted.files)
    record = StoreRecord(
        version=PREPROCESSING_VERSION,
        source=wanted.source,
        resize=wanted.resize,
        n_files=len(wanted.index),
        files_sha256=wanted.files_sha256,
    )
    write_json(folder / STORE_FILE, record.model_dump())


def _hash_touched(builds: Sequence[SizeBuild], files: pd.DataFrame, source: str, pool: Executor) -> NDArray[np.object_]:
    """(N,) hashes of files that were written since they were decoded but may be unchanged; "" for all others."""
    touched = np.logical_or.reduce([build.find_touched() for build in builds])
    n_touched = int(touched.sum())
    hashed = pool.map(_hash_source, files["path"].to_numpy(object)[touched])
    digests = np.full(len(files), "", dtype=object)
    digests[touched] = list(track(hashed, f"Comparing {source}", total=n_touched, disable=not n_touched))
    return digests


def _hash_source(path: str) -> str:
    try:
        with hold_file(Path(path)) as content:
            return hashlib.sha256(content).hexdigest()
    except ValueError:
        return ""


def _fill(
    builds: Sequence[SizeBuild], files: pd.DataFrame, source: str, resize: Resize, pool: Executor, n_ahead: int
) -> None:
    """Write every missing shard. Decoding continues while a shard is synced."""
    rows = np.flatnonzero(np.logical_or.reduce([build.is_open for build in builds])).tolist()
    n_ahead = min(n_ahead, max(2, AHEAD_BYTES // sum(build.size**2 for build in builds)))
    ahead = _decode_ahead(builds, files, rows, resize, pool, n_ahead)
    with ThreadPoolExecutor(1) as finisher:  # a shard being finished completes even if something else fails
        finishing: deque[Future[None]] = deque()
        for row, outcome in track(ahead, f"Preparing {source}", total=len(rows), disable=not rows):
            for build in builds:
                if build.is_open[row]:
                    shard = build.add(row, outcome, finisher)
                    if shard is not None:
                        finishing.append(shard)
            while finishing and (finishing[0].done() or len(finishing) > len(builds)):
                finishing.popleft().result()
        for shard in finishing:
            shard.result()


def _decode_ahead(
    builds: Sequence[SizeBuild],
    files: pd.DataFrame,
    rows: Sequence[int],
    resize: Resize,
    pool: Executor,
    n_ahead: int,
) -> Iterator[tuple[int, Outcome]]:
    """Decode rows ahead, and yield their outcomes in order."""
    paths, n_bytes = files["path"].to_numpy(object), files["n_bytes"].to_numpy()
    ahead: deque[tuple[int, Future[Outcome]]] = deque()
    for row in rows:
        sizes = [build.size for build in builds if build.is_open[row]]
        ahead.append((row, pool.submit(_process_file, paths[row], int(n_bytes[row]), sizes, resize)))
        if len(ahead) > n_ahead:
            done, future = ahead.popleft()
            yield done, future.result()
    for done, future in ahead:
        yield done, future.result()


def _process_file(path: str, n_bytes: int, sizes: Sequence[int], resize: Resize) -> Outcome:
    """Read, decode and resize a file.

    Raises:
        DataError: The file cannot be read, perhaps temporarily, or differs from the index.
    """
    digest = ""
    try:
        with hold_file(Path(path)) as content:
            if len(content) != n_bytes:
                raise DataError(f"{path}: it was written while the images were prepared: start again")
            digest = hashlib.sha256(content).hexdigest()
            with hold_pixels(content):
                pixels, _, read_otherwise = decode_image(content)
                squares = {size: resize_square(pixels, size, resize) for size in sizes}
                return Outcome(digest, "", squares, is_flat(pixels), "; ".join(read_otherwise))
    except ValueError as error:
        return Outcome(digest, _to_line(error), {})


def _to_line(error: ValueError) -> str:
    """An error as a one-line reason for a table, never empty."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split()) or type(error).__name__


def _explain(folder: Path, error: OSError) -> str:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    remedy = "make room, or set cache_dir to another disk; what is finished is kept" if full else "mend that"
    return f"{error.filename or folder}: {error.strerror or error}: {remedy}, and start again"
