"""A sample of the images: which are read, and what was found in them."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from cxrlit.core.cores import open_pool
from cxrlit.data.copies import Duplicates, find_duplicates
from cxrlit.data.image_io.gray_levels import MIN_STD
from cxrlit.data.image_io.memory_budget import keep_freed
from cxrlit.data.index import read_targets
from cxrlit.inspection.image_check import LEVELS, ImageFacts, ReadImage, read_image

N_EXAMPLES = 6
"""Images shown for each label, and of those with none present."""

CHUNK = 512
"""Images that are read ahead at most."""


@dataclass(frozen=True)
class Sample:
    """What was found in the images that were read.

    Attributes:
        facts: Of each image of the sample, in an order that is a function of names and seed alone.
        levels: (256,) share of the pixels by gray level, each image with the same weight, as in training.
        duplicates: Images of the sample that are the same file, those that cross parts and patients first.
        examples: Rows of the images to show, by label; under None those with none present.
        thumbnails: PNG of each example that could be decoded, by row.
        faults: Why an example could not be decoded, by row.
    """

    facts: list[ImageFacts]
    levels: NDArray[np.float64]
    duplicates: list[Duplicates]
    examples: dict[str | None, list[int]]
    thumbnails: dict[int, bytes]
    faults: dict[int, str]

    @property
    def decoded(self) -> list[ImageFacts]:
        return [facts for facts in self.facts if not facts.reason]

    @property
    def corrupt(self) -> list[ImageFacts]:
        return [facts for facts in self.facts if facts.reason]

    @property
    def flat(self) -> list[ImageFacts]:
        """Constant and almost constant images."""
        return [facts for facts in self.decoded if facts.std < MIN_STD]

    @property
    def mean(self) -> float:
        """Of the pixels, each image with the same weight; NaN where none could be decoded."""
        return _mean([facts.mean for facts in self.decoded])

    @property
    def std(self) -> float:
        """The same for the standard deviation: within images and between them."""
        return float(np.sqrt(_mean([facts.std**2 + (facts.mean - self.mean) ** 2 for facts in self.decoded])))

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """The gray values that these percents of the pixels do not exceed, to the next of 256 levels."""
        shares = np.cumsum(self.levels) / self.levels.sum()
        levels = np.searchsorted(shares, np.asarray(percents) / 100 - 1e-9)  # sums of shares are not exact
        return [float(level) / (LEVELS - 1) for level in levels]


def take_sample(
    rows: pd.DataFrame,
    labels: Sequence[str],
    readable: NDArray[np.bool_],
    *,
    n_sample: int,
    seed: int,
    workers: int | None,
) -> Sample:
    """Read a sample of the images, and a few examples of each label.

    Args:
        rows: The index, and the column ``split`` where there is one.
        labels: The labels in use.
        readable: (N,) whether the image is a file.
        n_sample: Images to read, of those that are files.
        seed: Which ones, with their names; the order of rows does not count.
        workers: Threads that decode; None: one for each core.
    """
    keys = key_images(rows["image"], seed)
    order = keys.argsort(kind="stable")
    order = order[readable[order]]
    sampled = order[:n_sample].tolist()
    examples = choose_sample_images(rows, labels, order)
    shown = {row for chosen in examples.values() for row in chosen}
    wanted = [*sampled, *sorted(shown - set(sampled))]
    is_sampled = set(sampled)

    facts: list[ImageFacts] = []
    levels = np.zeros(LEVELS)
    thumbnails, faults = {}, {}
    for image in track(_read_all(rows, wanted, shown, workers), "Reading images", total=len(wanted)):
        row = image.facts.row
        if image.thumbnail is not None:
            thumbnails[row] = image.thumbnail
        elif row in shown:
            faults[row] = image.facts.reason
        if row in is_sampled:  # examples of rare labels beside it would distort the figures
            facts.append(image.facts)
            levels += 0 if image.levels is None else image.levels
    decoded = [found for found in facts if not found.reason]
    return Sample(
        facts=facts,
        levels=levels / max(len(decoded), 1),
        duplicates=find_duplicates(rows.iloc[[found.row for found in decoded]], [found.digest for found in decoded]),
        examples=examples,
        thumbnails=thumbnails,
        faults=faults,
    )


def key_images(images: pd.Series, seed: int) -> NDArray[np.uint64]:
    """(N,) a number for each image, as good as random: a function of its name and the seed alone."""
    digests = b"".join(hashlib.blake2b(f"{seed}:{image}".encode(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def choose_sample_images(
    rows: pd.DataFrame, labels: Sequence[str], order: NDArray[np.int64]
) -> dict[str | None, list[int]]:
    """Rows of ``N_EXAMPLES`` images with each label, and, under None, with none; the first of ``order``.

    An image with two labels may stand for both.
    """
    targets = read_targets(rows, labels)[order]
    chosen: dict[str | None, list[int]] = {
        label: order[targets[:, column] == 1][:N_EXAMPLES].tolist() for column, label in enumerate(labels)
    }
    chosen[None] = order[(targets != 1).all(axis=1)][:N_EXAMPLES].tolist()
    return chosen


def _read_all(rows: pd.DataFrame, wanted: Sequence[int], shown: set[int], workers: int | None) -> Iterator[ReadImage]:
    """Read images in the given order; not more than ``CHUNK`` of them wait for being counted."""
    images, paths = rows["image"].tolist(), rows["path"].tolist()
    n_threads = workers or os.cpu_count() or 1
    with open_pool(n_threads) as pool, keep_freed(n_threads):
        for start in range(0, len(wanted), CHUNK):
            yield from pool.map(
                lambda row: read_image(row, images[row], Path(paths[row]), row in shown),
                wanted[start : start + CHUNK],
            )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
