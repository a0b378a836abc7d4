"""One size of a store while it is built: which shards are taken over, and how the others are written.

A shard is written beside its place, synced and renamed, and then vouched for by a note that lists its images; so a
process that is killed loses at most the shards in flight, and the next one goes on. The manifest comes last.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
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
from cxrlit.data.store.reuse import ReusableShards, name_note

SHARD_BYTES = 48 * 2**20
MAX_SHARD_BITS = 8
"""At most 256 shards."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: hash of its bytes, why it cannot be used or "", and its pixels at each size."""

    sha256: str
    reason: str
    pixels: Mapping[int, NDArray[np.uint8]]


def order_files(index: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.uint64]]:
    """The files of an index in the order of its store, by a hash of the image's name; and those hashes."""
    files = index[["image", "path", "n_bytes", "mtime_ns"]].sort_values("image", kind="stable")
    digests = b"".join(hashlib.blake2b(image.encode(), digest_size=8).digest() for image in files["image"])
    keys = np.frombuffer(digests, dtype=">u8").astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    return files.iloc[order].reset_index(drop=True), keys[order]


def divide_into_shards(keys: NDArray[np.uint64], size: int) -> dict[int, slice]:
    """The rows of each shard by its number: the first bits of the hash, as many as keep it to ``SHARD_BYTES``."""
    n_bits = min(MAX_SHARD_BITS, max(0, math.ceil(math.log2(len(keys) * size**2 / SHARD_BYTES))))
    edges = np.searchsorted(keys, [np.uint64(number << (64 - n_bits)) for number in range(2**n_bits)]).tolist()
    ranges = zip(edges, [*edges[1:], len(keys)], strict=True)
    return {number: slice(first, last) for number, (first, last) in enumerate(ranges) if first < last}


class ShardWriter:
    """Appends images to a shard, whose header and name are known when it is finished."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        self.folder, self.number, self.size, self.n_images = folder, number, size, 0
        self.staged = folder / f".shard-{number:03d}.npy"
        self.file = self.staged.open("wb")
        self.file.seek(NPY_HEADER_BYTES)

    def append(self, pixels: NDArray[np.uint8]) -> None:
        self.file.write(np.ascontiguousarray(pixels).data)
        self.n_images += 1

    def finish(self, n_rows: int) -> ShardRecord:
        """Make it durable."""
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
        self.file.close()
        self.staged.unlink(missing_ok=True)


class SizeBuild:
    """One size under way. Rows are those of ``files``, in the order of the store.

    Attributes:
        known: What earlier work can give.
        is_fresh: (N,) whether it is used: the file has not changed since.
        is_open: (N,) whether the image belongs to a shard that is to be written.
        sha256, reasons: (N,) of each file, as far as they are known.
    """

    def __init__(
        self, folder: Path, size: int, files: pd.DataFrame, keys: NDArray[np.uint64], known: ReusableShards
    ) -> None:
        self.folder, self.size, self.files, self.known = folder, size, files, known
        self.ranges = divide_into_shards(keys, size)
        self._firsts = {rows.start: number for number, rows in self.ranges.items()}
        self._lasts = {rows.stop - 1 for rows in self.ranges.values()}
        self.is_fresh = known.mtime_ns == files["mtime_ns"].to_numpy()
        self.is_open = np.ones(len(files), dtype=bool)
        self.sha256, self.reasons = known.sha256.copy(), known.reasons.copy()
        self.finished: dict[int, ShardRecord] = {}
        self._writer: ShardWriter | None = None
        self._map: tuple[int, NDArray[np.uint8]] = (-1, np.empty(0, np.uint8))

    @property
    def needs_decoding(self) -> NDArray[np.bool_]:
        """(N,) whether the image is to be written and nothing earlier has it."""
        needed: NDArray[np.bool_] = self.is_open & ~self.is_fresh
        return needed

    def adopt_shards(self, pool: Executor) -> None:
        """Take over every shard that already has exactly the images that it should have."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._adopt(lambda path: path.parent == self.folder)
        self._check_sources(pool)
        self._adopt(lambda path: True)

    def _adopt(self, is_wanted: Callable[[Path], bool]) -> None:
        for number, rows in self.ranges.items():
            if number in self.finished or not self.is_fresh[rows].all():
                continue
            sources = np.unique(self.known.shard[rows][self.reasons[rows] == ""])
            if len(sources) != 1:
                continue
            source = self.known.shards[sources[0]]
            n_images = int((self.reasons[rows] == "").sum())
            name = shard_path(number, source.record.sha256)
            if is_wanted(source.path) and source.record.n_images == n_images and self._link(source.path, name):
                n_rows, digest = rows.stop - rows.start, source.record.sha256
                self.finished[number] = ShardRecord(file=name, n_rows=n_rows, n_images=n_images, sha256=digest)
                self.is_open[rows] = False

    def _link(self, source: Path, name: str) -> bool:
        """Whether the same file is there under another name."""
        if source == self.folder / name:
            return True
        staged = self.folder / f".{name}"
        try:
            os.link(source, staged)
        except OSError:  # another owner, too many links, or a file system without: its images are copied
            return False
        os.replace(staged, self.folder / name)
        return True

    def _check_sources(self, pool: Executor) -> None:
        """Compare the shards that are to be used with their hashes: damage is not handed on, neither copied nor linked.

        What stays where it is, is left to ``verify_store``.
        """
        used = self.is_fresh & (self.reasons == "")
        numbers = np.unique(self.known.shard[used & self.is_open]).tolist()
        sources = [self.known.shards[number] for number in numbers]
        digests = pool.map(hash_file, [source.path for source in sources])
        for number, source, digest in zip(numbers, sources, digests, strict=True):
            if digest != source.record.sha256:
                say(
                    f"{format_path(source.path)} is damaged: the images that it holds are decoded again", style="yellow"
                )
                self.is_fresh[used & (self.known.shard == number)] = False

    def add(self, row: int, outcome: Outcome | None, finisher: Executor) -> Future[None] | None:
        """The next image of a shard that is to be written; with the last one, the shard is finished elsewhere."""
        if self._writer is None:
            self._writer = ShardWriter(self.folder, self._firsts[row], self.size)
        if self.is_fresh[row]:
            pixels = None if self.reasons[row] else self._copy(row)
        else:
            assert outcome is not None
            self.sha256[row], self.reasons[row] = outcome.sha256, outcome.reason
            pixels = outcome.pixels.get(self.size)
        if pixels is not None:
            self._writer.append(pixels)
        if row not in self._lasts:
            return None
        writer, self._writer = self._writer, None
        return finisher.submit(self._finish, writer)

    def _copy(self, row: int) -> NDArray[np.uint8]:
        number = int(self.known.shard[row])
        if number != self._map[0]:  # neighbours lie in the same one, mostly
            source = self.known.shards[number]
            self._map = (number, np.load(source.path, mmap_mode="r", allow_pickle=False).view(np.ndarray))
        image: NDArray[np.uint8] = self._map[1][self.known.row[row]]
        return image

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
        """Write the manifest; what it does not name can go then."""
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
        # The times come last. With new times and old pixels, a kill in between would make stale images look current;
        # without them the next process comes back to this folder, and removes what is left.
        with replace_file(self.folder / SEEN_TABLE) as staged:
            self.files[["image", "mtime_ns"]].to_csv(staged, index=False, lineterminator="\n")
            kept = {MANIFEST_FILE, SEEN_TABLE, manifest.images_file, *(shard.file for shard in manifest.shards)}
            for path in self.folder.iterdir():
                if path.name not in kept and path != staged and path.is_file():
                    path.unlink()

    def discard(self) -> None:
        """Remove what a failed build leaves of the shard under way."""
        if self._writer is not None:
            self._writer.discard()

    def _describe(self, rows: slice) -> pd.DataFrame:
        columns = {"image": self.files["image"].to_numpy(object), "sha256": self.sha256, "reason": self.reasons}
        return pd.DataFrame({name: values[rows] for name, values in columns.items()})
