"""What earlier work knows of images, so that only what is new or changed is decoded.

It is known from the last state of the same store, from a build of it that was interrupted, and from stores of other
files of the same data set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.files import hash_file, open_regular
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.store.manifest import (
    STORE_FILE,
    ShardRecord,
    StoreFault,
    StoreRecord,
    check_shard,
    read_files,
    read_image_table,
    read_manifest,
    read_seen,
    read_store_record,
    shard_path,
)

MAX_SIBLINGS = 16
"""Stores of other files that are looked through, the newest first."""


@dataclass(frozen=True)
class EarlierShard:
    """A shard that is whole, by its length; its content is compared with its hash before images are copied."""

    path: Path
    record: ShardRecord


@dataclass(frozen=True)
class ReusableShards:
    """What is known of the files of an index, in the order of their store, at one size.

    Attributes:
        mtime_ns: (N,) when each file was last changed as it was read; -1 for a file that is not known.
        sha256: (N,) hash of the file's bytes; empty where it was not even read.
        reasons: (N,) why it could not be decoded, or empty.
        shard: (N,) which of ``shards`` holds its pixels, -1 for none.
        row: (N,) where in it.
        shards: The shards.
    """

    mtime_ns: NDArray[np.int64]
    sha256: NDArray[np.object_]
    reasons: NDArray[np.object_]
    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    shards: list[EarlierShard]


def find_known(folder: Path, size: int, source: str, resize: Resize, files: pd.DataFrame) -> ReusableShards:
    """Gather what is known of files.

    Args:
        folder: The store that is to have them.
        size: Side of the images, pixels.
        source: The data set's name.
        resize: How an image that is not square becomes square.
        files: ``image``, ``n_bytes``, ``mtime_ns`` in the order of the store.
    """
    n_files = len(files)
    known = ReusableShards(
        mtime_ns=np.full(n_files, -1),
        sha256=np.full(n_files, "", dtype=object),
        reasons=np.full(n_files, "", dtype=object),
        shard=np.full(n_files, -1),
        row=np.full(n_files, -1),
        shards=[],
    )
    wanted = files["mtime_ns"].to_numpy()
    for table, shards in _read_all(folder, size, source, resize, files):
        if table.empty:
            continue
        places = pd.Index(table["image"]).get_indexer(files["image"])
        there = table.iloc[places]  # where it is not there the last row stands in, and is not used
        same = (there["mtime_ns"].to_numpy() == wanted) & (known.mtime_ns != wanted)
        better = (places >= 0) & ((known.mtime_ns < 0) | same)
        known.mtime_ns[better] = np.maximum(there["mtime_ns"].to_numpy()[better], 0)
        known.sha256[better] = there["sha256"].to_numpy(object)[better]
        known.reasons[better] = there["reason"].to_numpy(object)[better]
        number = there["shard"].to_numpy()[better]
        known.shard[better] = np.where(number >= 0, number + len(known.shards), -1)
        known.row[better] = there["row"].to_numpy()[better]
        known.shards.extend(shards)
        if (known.mtime_ns == wanted).all():
            break
    return known


def list_siblings(folder: Path, source: str, resize: Resize) -> Iterator[Path]:
    """Other stores of a data set with the same ``resize``, the newest first."""
    places = [path.parent for path in folder.parent.glob(f"{source}-*/{STORE_FILE}") if path.parent != folder]
    n_found = 0
    for place in sorted(places, key=lambda place: (place.stat().st_mtime_ns, place.name), reverse=True):
        try:
            record = read_store_record(place / STORE_FILE, StoreRecord)
        except StoreFault:
            continue  # whoever opens that one is told
        if (record.source, record.resize) == (source, resize) and n_found < MAX_SIBLINGS:
            n_found += 1
            yield place


Table = tuple[pd.DataFrame, list[EarlierShard]]
"""``image`` and the arrays of ``ReusableShards``, a row an image; and the shards that ``shard`` counts."""


def _read_all(folder: Path, size: int, source: str, resize: Resize, files: pd.DataFrame) -> Iterator[Table]:
    for own in (_read_notes(folder / str(size)), _read_finished(folder / str(size))):
        if own is not None:
            yield own
    for sibling in list_siblings(folder, source, resize):
        finished = _read_finished(sibling / str(size))
        try:
            theirs = read_files(sibling, read_store_record(sibling / STORE_FILE, StoreRecord))
        except StoreFault:
            continue
        both = files[["image", "n_bytes"]].merge(theirs[["image", "n_bytes"]])
        if finished is not None and len(both):
            table, shards = finished
            yield table[table["image"].isin(both["image"])], shards


def _read_finished(folder: Path) -> Table | None:
    """What a finished size knows; nothing where it cannot be trusted, which who opens it is told."""
    try:
        manifest = read_manifest(folder)
        images = read_image_table(folder, manifest)
    except StoreFault:
        return None
    good = (images["reason"] == "").to_numpy()
    shard, row, first = np.full(len(images), -1), np.full(len(images), -1), 0
    shards: list[EarlierShard] = []
    for record in manifest.shards:
        rows = slice(first, first := first + record.n_rows)
        try:
            check_shard(folder / record.file, record, manifest.size)
        except StoreFault:
            continue
        shard[rows] = np.where(good[rows], len(shards), -1)
        row[rows] = np.where(good[rows], np.cumsum(good[rows]) - 1, -1)
        shards.append(EarlierShard(folder / record.file, record))
    table = images.assign(mtime_ns=read_seen(folder, images["image"]), shard=shard, row=row)
    return table[(shard >= 0) | ~good], shards


def name_note(shard: ShardRecord) -> str:
    """File name of the note that vouches for a shard of a build under way."""
    return shard.file.replace(".npy", ".csv")


def _read_notes(folder: Path) -> Table | None:
    """What an interrupted build has finished, shard by shard."""
    tables: list[pd.DataFrame] = []
    shards: list[EarlierShard] = []
    types = {"image": str, "sha256": str, "reason": str, "mtime_ns": np.int64}
    for note in sorted(folder.glob("shard-*.csv"), key=lambda note: note.stat().st_mtime_ns):
        path = note.with_suffix(".npy")
        try:
            with open_regular(note) as file:
                table = pd.read_csv(file, dtype=types, keep_default_na=False, lineterminator="\n")[list(types)]
            digest = hash_file(path)
        except (OSError, ValueError, KeyError, OverflowError):  # not whole: its images are decoded again
            continue
        if table.empty or path.name != shard_path(int(note.name[6:9]), digest):
            continue
        good = (table["reason"] == "").to_numpy()
        row = np.where(good, np.cumsum(good) - 1, -1)
        tables.append(table.assign(shard=np.where(good, len(shards), -1), row=row))
        record = ShardRecord(file=path.name, n_rows=len(table), n_images=int(good.sum()), sha256=digest)
        shards.append(EarlierShard(path, record))
    return (pd.concat(tables).drop_duplicates("image", keep="last"), shards) if tables else None
