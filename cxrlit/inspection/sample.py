"""A sample of the images: how it is chosen, and what its files contain."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import track
from cxrlit.core.cores import open_pool
from cxrlit.data.copies import Duplicates, find_duplicates
from cxrlit.data.image_io.gray_levels import MIN_STD
from cxrlit.data.image_io.memory_budget import keep_freed
from cxrlit.data.index import read_targets
from cxrlit.inspection.image_check import LEVELS, ImageFacts, ReadImage, read_image

N_EXAMPLES = 6
"""Number of images shown for each label, and for images without any."""

CHUNK = 512
"""Maximum number of images read ahead."""


@dataclass(frozen=True)
class Sample:
    """Results of the images that were read.

    Attributes:
        facts: Properties of each image of the sample, in an order that depends only on names and seed.
        levels: (256,) fraction of the pixels at each gray level, each image with the same weight, as in training.
        duplicates: Images of the sample with identical files; those across parts and patients first.
        examples: Rows of the images to show, by label; key None: images without any label present.
        thumbnails: PNG of each example that was decoded, by row.
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
        """Images that could be decoded."""
        return [facts for facts in self.facts if not facts.reason]

    @property
    def corrupt(self) -> list[ImageFacts]:
        """Images that could not be decoded."""
        return [facts for facts in self.facts if facts.reason]

    @property
    def flat(self) -> list[ImageFacts]:
        """Constant and almost constant images."""
        return [facts for facts in self.decoded if facts.std < MIN_STD]

    @property
    def mean(self) -> float:
        """Mean of the pixels, each image with the same weight; NaN if none could be decoded."""
        return _mean([facts.mean for facts in self.decoded])

    @property
    def std(self) -> float:
        """Standard deviation of all pixels, within and between images; NaN if none could be decoded."""
        return float(np.sqrt(_mean([facts.std**2 + (facts.mean - self.mean) ** 2 for facts in self.decoded])))

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """The gray values at or below which these percentages of the pixels lie, rounded up to one of 256 levels."""
        shares = np.cumsum(self.levels) / self.levels.sum()
        levels = np.searchsorted(shares, np.asarray(percents) / 100 - 1e-9)  # tolerance for the rounding of sums
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
        rows: The index, with the column ``split`` if there is a split.
        labels: The labels in use.
        readable: (N,) whether the image is a file on disk.
        n_sample: Number of image files to read.
        seed: Seed of the choice, together with the images' names; the order of rows does not matter.
        workers: Decoding threads; None: one per core.
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
        if row in is_sampled:  # additional examples of rare labels would bias the statistics
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
    """(N,) a pseudorandom number for each image: a function of its name and the seed only."""
    digests = b"".join(hashlib.blake2b(f"{seed}:{image}".encode(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def choose_sample_images(
    rows: pd.DataFrame, labels: Sequence[str], order: NDArray[np.int64]
) -> dict[str | None, list[int]]:
    """Rows of ``N_EXAMPLES`` images for each label, and, under None, without any; the first in ``order``.

    An image with two labels may be an example of both.
    """
    targets = read_targets(rows, labels)[order]
    chosen: dict[str | None, list[int]] = {
        label: order[targets[:, column] == 1][:N_EXAMPLES].tolist() for column, label in enumerate(labels)
    }
    chosen[None] = order[(targets != 1).all(axis=1)][:N_EXAMPLES].tolist()
    return chosen


def _read_all(rows: pd.DataFrame, wanted: Sequence[int], shown: set[int], workers: int | None) -> Iterator[ReadImage]:
    """Read images in the given order, at most ``CHUNK`` of them ahead."""
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
