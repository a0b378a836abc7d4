"""Find finished shards of earlier builds, so that only those with a new or changed image are rebuilt.

They come from the last state of the same store, from an interrupted build of it, and from stores of other files of
the same data set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

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
"""Maximum number of other stores searched, newest first."""


@dataclass(frozen=True)
class EarlierShard:
    """An earlier shard of the right length.

    Attributes:
        path: File of the shard.
        record: Entry of the shard in a manifest.
        rows: ``image``, ``sha256``, ``reason``, ``flat``, ``warning`` and ``mtime_ns`` of its source files, in order.
    """

    path: Path
    record: ShardRecord
    rows: pd.DataFrame


def list_earlier_shards(
    folder: Path, size: int, source: str, resize: Resize, files: pd.DataFrame
) -> Iterator[EarlierShard]:
    """Shards that a store may reuse, those of its own folder first.

    Args:
        folder: Folder of the store.
        size: Side of the images, pixels.
        source: Name of the data set.
        resize: How to make a rectangular image square.
        files: ``image`` and ``n_bytes`` of the store's source files.
    """
    yield from _read_notes(folder / str(size))
    yield from _read_finished(folder / str(size))
    for sibling in list_siblings(folder, source, resize):
        try:
            theirs = read_files(sibling, read_store_record(sibling / STORE_FILE, StoreRecord))
        except StoreFault:
            continue
        both = set(files[["image", "n_bytes"]].merge(theirs[["image", "n_bytes"]])["image"])
        if both:
            yield from (shard for shard in _read_finished(sibling / str(size)) if both.issuperset(shard.rows["image"]))


def list_siblings(folder: Path, source: str, resize: Resize) -> Iterator[Path]:
    """Other stores of a data set with the same ``resize``, newest first."""
    places = [path.parent for path in folder.parent.glob(f"{source}-*/{STORE_FILE}") if path.parent != folder]
    n_found = 0
    for place in sorted(places, key=lambda place: (place.stat().st_mtime_ns, place.name), reverse=True):
        try:
            record = read_store_record(place / STORE_FILE, StoreRecord)
        except StoreFault:
            continue  # opening that one reports it
        if (record.source, record.resize) == (source, resize) and n_found < MAX_SIBLINGS:
            n_found += 1
            yield place


def name_note(shard: ShardRecord) -> str:
    """File name of the note that records a finished shard of an unfinished build."""
    return shard.file.replace(".npy", ".csv")


def _read_notes(folder: Path) -> Iterator[EarlierShard]:
    """The shards of an interrupted build."""
    types = {"image": str, "sha256": str, "reason": str, "flat": str, "warning": str, "mtime_ns": np.int64}
    for note in sorted(folder.glob("shard-*.csv")):
        path = note.with_suffix(".npy")
        try:
            with open_regular(note) as file:
                rows = pd.read_csv(file, dtype=types, keep_default_na=False, lineterminator="\n")[list(types)]
            digest = hash_file(path)
        except (OSError, ValueError, KeyError, OverflowError):  # incomplete: its images are decoded again
            continue
        if path.name == shard_path(int(note.name[6:9]), digest):
            n_images = int((rows["reason"] == "").sum())
            record = ShardRecord(file=path.name, n_rows=len(rows), n_images=n_images, sha256=digest)
            yield EarlierShard(path, record, rows)


def _read_finished(folder: Path) -> Iterator[EarlierShard]:
    """The shards of a finished size; none if it is damaged, which opening it reports."""
    try:
        manifest = read_manifest(folder)
        images = read_image_table(folder, manifest)
    except StoreFault:
        return
    images["mtime_ns"] = read_seen(folder, images["image"])
    first = 0
    for record in manifest.shards:
        rows = images[first : first + record.n_rows]
        first += record.n_rows
        try:
            check_shard(folder / record.file, record, manifest.size)
        except StoreFault:
            continue
        yield EarlierShard(folder / record.file, record, rows)
