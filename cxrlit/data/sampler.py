"""Which training images an epoch draws, and in which order: a function of (seed, epoch) only."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from cxrlit.config import SamplerConfig


class Draw(NamedTuple):
    """One training image of one epoch.

    Attributes:
        epoch: Epoch, from 0. It tells a loader process that lives for many epochs which one is current.
        row: Row of the training part.
        copy: How often this epoch has drawn the image before; each copy is augmented differently.
    """

    epoch: int
    row: int
    copy: int


class EpochSampler(Sampler[Draw]):
    """Draws each row as often as ``repeats`` says, in an order that depends only on (seed, epoch).

    A row with 2.3 repeats is drawn twice in most epochs and three times in others; every epoch has the same number of
    draws, the sum of the repeats.

    Args:
        repeats: (N,) mean number of draws of each row per epoch, >= 0.
        seed: Seed of the order.
        first_epoch: Epoch in which training starts or resumes.
        n_done: Completed draws of that epoch, which are skipped.
    """

    def __init__(self, repeats: NDArray[np.float64], seed: int, first_epoch: int = 0, n_done: int = 0) -> None:
        self.repeats, self.seed = repeats, seed
        self.first_epoch, self.n_done = first_epoch, n_done
        self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        rows, copies = draw_epoch(self.repeats, self.seed, self.epoch)
        n_done = self.n_done if self.epoch == self.first_epoch else 0
        epoch = self.epoch  # the draws are lazy, and set_epoch may be called in between
        left = zip(rows[n_done:], copies[n_done:], strict=True)
        return (Draw(epoch, int(row), int(copy)) for row, copy in left)

    def __len__(self) -> int:
        """Draws of a whole epoch, including completed ones."""
        return count_draws(self.repeats)


class BatchShares(Sampler[list[Any]]):
    """Splits global batches among devices: device r of n takes items r, r + n, ... of each.

    All devices take the same number of steps, and together they see the batches of a single device. If a batch has
    fewer than n items, the share of some devices is empty.

    Args:
        sampler: Items of all devices, in order.
        batch_size: Items per global batch.
        rank: Rank of this device, from 0.
        n_ranks: Number of devices.
    """

    def __init__(self, sampler: EpochSampler | Sequence[Any], batch_size: int, rank: int = 0, n_ranks: int = 1) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.rank, self.n_ranks = rank, n_ranks

    def __iter__(self) -> Iterator[list[Any]]:
        items = iter(self.sampler)
        while batch := list(islice(items, self.batch_size)):
            yield batch[self.rank :: self.n_ranks]

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-len(self.sampler) // self.batch_size)


def count_draws(repeats: NDArray[np.float64]) -> int:
    """Number of draws per epoch."""
    return round(float(repeats.sum()))


def draw_epoch(repeats: NDArray[np.float64], seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The draws of an epoch: (D,) rows in order, and (D,) copy number of each draw.

    Systematic sampling: the rows lie in random order along a line, each with length ``repeats``; from a random start,
    each whole step draws the row at its position. So each row is drawn ``floor(repeats)`` or ``ceil(repeats)`` times,
    and ``repeats`` times on average over the epochs.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(repeats))
    if (repeats == 1).all():
        return order, np.zeros_like(order)
    n_draws = count_draws(repeats)
    ends = np.cumsum(repeats[order])
    passed = np.floor(ends * (n_draws / ends[-1]) + rng.random()).astype(np.int64)
    passed[-1] = n_draws
    times = np.diff(passed, prepend=0)
    rows = np.repeat(order, times)
    copies = np.arange(n_draws) - np.repeat(np.cumsum(times) - times, times)
    shuffled = rng.permutation(n_draws)
    return rows[shuffled], copies[shuffled]


def count_repeats(targets: NDArray[np.float32], labels: Sequence[str], config: SamplerConfig) -> NDArray[np.float64]:
    """Mean number of draws of each training image per epoch.

    ``oversample``: a positive of a label with prevalence f below ``prevalence`` p is drawn sqrt(p / f) times; an
    image with several such labels as often as its rarest; all others once.

    Args:
        targets: (N, L) of the training images, NaN unknown. Prevalence counts known targets only.
        labels: The L labels.
        config: Section ``sampler`` of the config.

    Returns:
        (N,) float64, >= 1.

    Source: the repeat factor of Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019.
    """
    repeats = np.ones(len(targets))
    for label in config.labels or []:
        values = targets[:, labels.index(label)]
        known = int((~np.isnan(values)).sum())
        if config.prevalence is not None and (values == 1).any():
            prevalence = (values == 1).sum() / known
            repeats[values == 1] = np.maximum(repeats[values == 1], np.sqrt(max(1.0, config.prevalence / prevalence)))
    return repeats


def draw_whole_batches(n_rows: int, batch_size: int, seed: int) -> list[list[int]]:
    """Shuffled batches of all rows; rows of an incomplete batch are not drawn, unless it is the only one.

    >>> [len(batch) for batch in draw_whole_batches(11, batch_size=4, seed=0)]
    [4, 4]
    """
    rows = np.random.default_rng(seed).permutation(n_rows).tolist()
    n_batches = max(n_rows // batch_size, 1)
    return [rows[number * batch_size :][:batch_size] for number in range(n_batches)]
