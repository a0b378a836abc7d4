"""Build one size of a store: keep earlier shards, write the others.

A shard is written beside its place, synced and renamed; then a note records its images. So a killed process loses at
most the shards in progress, and the next one continues. The manifest comes last.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import format_path, say
from cxrlit.core.files import hash_file, replace_file, sync, write_csv, write_json
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize
from cxrlit.data.store.manifest import (
    MANIFEST_FILE,
    NPY_HEADER_BYTES,
    SEEN_TABLE,
    Manifest,
    ShardRecord,
    images_path,
    make_npy_header,
    shard_path,
)
from cxrlit.data.store.reuse import EarlierShard, name_note

SHARD_BYTES = 48 * 2**20
MAX_SHARD_BITS = 8
"""Bits of the shard number: at most 256 shards."""


@dataclass(frozen=True)
class Outcome:
    """Result of processing a file: hash of its bytes, reason if unusable, pixels at each size, whether they are of one
    gray, and how the decoder departs from the file's own description.
    """

    sha256: str
    reason: str
    pixels: Mapping[int, NDArray[np.uint8]]
    is_flat: bool = False
    warning: str = ""


def order_files(index: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.uint64]]:
    """The files of an index in store order, by a hash of the image's name; and those hashes."""
    files = index[["image", "path", "n_bytes", "mtime_ns"]].sort_values("image", kind="stable")
    digests = b"".join(hashlib.blake2b(image.encode(), digest_size=8).digest() for image in files["image"])
    keys = np.frombuffer(digests, dtype=">u8").astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    return files.iloc[order].reset_index(drop=True), keys[order]


def divide_into_shards(keys: NDArray[np.uint64], size: int) -> dict[int, slice]:
    """Rows of each shard, by number: the first bits of the hash, enough to keep shards below ``SHARD_BYTES``."""
    n_bits = min(MAX_SHARD_BITS, max(0, math.ceil(math.log2(len(keys) * size**2 / SHARD_BYTES))))
    edges = np.searchsorted(keys, [np.uint64(number << (64 - n_bits)) for number in range(2**n_bits)]).tolist()
    ranges = zip(edges, [*edges[1:], len(keys)], strict=True)
    return {number: slice(first, last) for number, (first, last) in enumerate(ranges) if first < last}


class ShardWriter:
    """Appends images to a shard; its header and name are known only at the end."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        self.folder, self.number, self.size, self.n_images = folder, number, size, 0
        self.staged = folder / f".shard-{number:03d}.npy"
        self.file = self.staged.open("wb")
        self.file.seek(NPY_HEADER_BYTES)

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Append the pixels of an image, (S, S) uint8."""
        self.file.write(np.ascontiguousarray(pixels).data)
        self.n_images += 1

    def finish(self, n_rows: int) -> ShardRecord:
        """Write the header, sync the file and give it its name, which contains its hash."""
        with self.file:
            self.file.seek(0)
            self.file.write(make_npy_header(self.n_images, self.size))
            self.file.flush()
            os.fsync(self.file.fileno())
        digest = hash_file(self.staged)
        record = ShardRecord(file=shard_path(self.number, digest), n_rows=n_rows, n_images=self.n_images, sha256=digest)
        os.replace(self.staged, self.folder / record.file)
        return record

    def discard(self) -> None:
        """Remove the unfinished file."""
        self.file.close()
        self.staged.unlink(missing_ok=True)


class SizeBuild:
    """The build of one size. Rows are those of ``files``, in store order.

    Attributes:
        is_open: (N,) whether the image's shard must be written.
        sha256, reasons, flat, warnings: (N,) known facts of each file; flat is 1 or empty.
        finished: The finished shards, by number.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        files: pd.DataFrame,
        keys: NDArray[np.uint64],
        earlier: Iterable[EarlierShard],
    ) -> None:
        self.folder, self.size, self.files = folder, size, files
        self.ranges = divide_into_shards(keys, size)
        self._firsts = {rows.start: number for number, rows in self.ranges.items()}
        self._lasts = {rows.stop - 1 for rows in self.ranges.values()}
        self.is_open = np.ones(len(files), dtype=bool)
        empty = (np.full(len(files), "", dtype=object) for _ in range(4))
        self.sha256, self.reasons, self.flat, self.warnings = empty
        self.finished: dict[int, ShardRecord] = {}
        self._writer: ShardWriter | None = None
        self._earlier: dict[int, list[EarlierShard]] = {number: [] for number in self.ranges}
        images = files["image"].to_numpy(object)
        for shard in earlier:
            rows = self.ranges.get(shard.record.number, slice(0))
            if images[rows].tolist() == shard.rows["image"].tolist():
                self._earlier[shard.record.number].append(shard)

    def find_touched(self) -> NDArray[np.bool_]:
        """(N,) images in reusable shards whose file was written since, so that their hash must be compared."""
        touched = np.zeros(len(self.files), dtype=bool)
        for number, shards in self._earlier.items():
            changes = [self._find_changes(number, shard) for shard in shards]
            if changes and all(change.any() for change in changes):
                touched[self.ranges[number]] = np.logical_or.reduce(changes)
        return touched

    def take_over(self, digests: NDArray[np.object_]) -> None:
        """Keep every earlier shard whose files are unchanged.

        Args:
            digests: (N,) current hash of each file in ``find_touched``.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, shards in self._earlier.items():
            rows = self.ranges[number]
            for shard in shards:
                sha256 = shard.rows["sha256"].to_numpy(object)
                changed = self._find_changes(number, shard) & ((digests[rows] == "") | (digests[rows] != sha256))
                if not changed.any() and self._bring(shard):
                    self.finished[number] = shard.record
                    self.is_open[rows] = False
                    self.sha256[rows], self.reasons[rows] = sha256, shard.rows["reason"].to_numpy(object)
                    self.flat[rows] = shard.rows["flat"].to_numpy(object)
                    self.warnings[rows] = shard.rows["warning"].to_numpy(object)
                    break

    def _find_changes(self, number: int, shard: EarlierShard) -> NDArray[np.bool_]:
        now = self.files["mtime_ns"].to_numpy()[self.ranges[number]]
        changes: NDArray[np.bool_] = shard.rows["mtime_ns"].to_numpy() != now
        return changes

    def _bring(self, shard: EarlierShard) -> bool:
        """Bring a shard into the folder, if it is not there, by linking an undamaged one; return whether it is there.

        ``verify_store`` checks shards that are there already.
        """
        if shard.path.parent == self.folder:
            return True
        if hash_file(shard.path) != shard.record.sha256:
            say(f"{format_path(shard.path)} is damaged: its images are decoded again", style="yellow")
            return False
        staged = self.folder / f".{shard.record.file}"
        try:
            os.link(shard.path, staged)
        except OSError:  # another owner, too many links, or no links on this file system: its images are decoded again
            return False
        os.replace(staged, self.folder / shard.record.file)
        return True

    def add(self, row: int, outcome: Outcome, finisher: Executor) -> Future[None] | None:
        """Add the next image of an open shard; after the last one, the executor finishes the shard."""
        if self._writer is None:
            self._writer = ShardWriter(self.folder, self._firsts[row], self.size)
        self.sha256[row], self.reasons[row] = outcome.sha256, outcome.reason
        self.flat[row], self.warnings[row] = "1" if outcome.is_flat else "", outcome.warning
        if self.size in outcome.pixels:
            self._writer.append(outcome.pixels[self.size])
        if row not in self._lasts:
            return None
        writer, self._writer = self._writer, None
        return finisher.submit(self._finish, writer)

    def _finish(self, writer: ShardWriter) -> None:
        try:
            rows = self.ranges[writer.number]
            record = writer.finish(rows.stop - rows.start)
        finally:
            writer.discard()
        note = self._describe(rows).assign(mtime_ns=self.files["mtime_ns"].to_numpy()[rows])
        write_csv(self.folder / name_note(record), note)
        self.finished[writer.number] = record

    def publish(self, source: str, resize: Resize) -> None:
        """Write the manifest, and remove files that it does not name."""
        images = self._describe(slice(None))
        content = images.to_csv(index=False, lineterminator="\n").encode()
        digest = hashlib.sha256(content).hexdigest()
        with replace_file(self.folder / images_path(digest)) as staged:
            staged.write_bytes(content)
        n_dropped = int((self.reasons != "").sum())
        manifest = Manifest(
            version=PREPROCESSING_VERSION,
            source=source,
            resize=resize,
            size=self.size,
            n_images=len(images) - n_dropped,
            n_dropped=n_dropped,
            images_sha256=digest,
            shards=[self.finished[number] for number in self.ranges],
        )
        sync(self.folder)
        write_json(self.folder / MANIFEST_FILE, manifest.model_dump())
        # The times come last. New times with old pixels, after a kill in between, would make stale images look current;
        # without them the next process returns to this folder and removes what is left.
        with replace_file(self.folder / SEEN_TABLE) as staged:
            self.files[["image", "mtime_ns"]].to_csv(staged, index=False, lineterminator="\n")
            kept = {MANIFEST_FILE, SEEN_TABLE, manifest.images_file, *(shard.file for shard in manifest.shards)}
            for path in self.folder.iterdir():
                if path.name not in kept and path != staged and path.is_file():
                    path.unlink()

    def discard(self) -> None:
        """Remove the unfinished shard of a failed build."""
        if self._writer is not None:
            self._writer.discard()

    def _describe(self, rows: slice) -> pd.DataFrame:
        columns = {"image": self.files["image"].to_numpy(object), "sha256": self.sha256, "reason": self.reasons}
        columns |= {"flat": self.flat, "warning": self.warnings}
        return pd.DataFrame({name: values[rows] for name, values in columns.items()})
