"""Which training images an epoch draws, and in what order: a function of (seed, epoch) and nothing else."""

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
        epoch: From 0. A loader process that lives for many epochs knows from it which one it is in.
        row: Row of the training part.
        copy: 0, or the number of times that this epoch has drawn the image before: each copy is augmented anew.
    """

    epoch: int
    row: int
    copy: int


class EpochSampler(Sampler[Draw]):
    """Draws each row as often as ``repeats`` says, in an order that is a function of (seed, epoch).

    A row with 2.3 repeats is drawn twice in most epochs and three times in some; every epoch has the same number of
    draws, the sum of the repeats.

    Args:
        repeats: (N,) how often an epoch draws each row on average, >= 0.
        seed: Of the order.
        first_epoch: The epoch that a training goes on in.
        n_done: Draws of that epoch that are completed and are not made again.
    """

    def __init__(self, repeats: NDArray[np.float64], seed: int, first_epoch: int = 0, n_done: int = 0) -> None:
        self.repeats, self.seed = repeats, seed
        self.first_epoch, self.n_done = first_epoch, n_done
        self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        rows, copies = draw_epoch(self.repeats, self.seed, self.epoch)
        n_done = self.n_done if self.epoch == self.first_epoch else 0
        epoch = self.epoch  # the draws are taken later, and set_epoch may come between
        left = zip(rows[n_done:], copies[n_done:], strict=True)
        return (Draw(epoch, int(row), int(copy)) for row, copy in left)

    def __len__(self) -> int:
        """Draws of a whole epoch, also where some of it is behind."""
        return count_draws(self.repeats)


class BatchShares(Sampler[list[Any]]):
    """Global batches, and of each the share of one device: device r of n takes its items r, r + n, ...

    All devices take as many steps, and together the batches that one would take alone. The share of a batch of fewer
    than n items is empty on some.

    Args:
        sampler: The items of all devices, in order.
        batch_size: Items of a global batch.
        rank: Number of this device, from 0.
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
    """Draws of an epoch."""
    return round(float(repeats.sum()))


def draw_epoch(repeats: NDArray[np.float64], seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The draws of an epoch: (D,) rows in their order, and (D,) which copy of its row each is.

    Systematic sampling: with the rows in a random order, along a line on which each takes ``repeats`` of length, every
    whole step from a random start draws the row that it falls on. So each row is drawn ``floor(repeats)`` or
    ``ceil(repeats)`` times, and ``repeats`` times on average over the epochs.
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
    """How often an epoch draws each training image on average.

    ``oversample``: a positive of a label whose prevalence f is below ``prevalence`` p is drawn sqrt(p / f) times; an
    image that is positive for several such labels as often as the rarest of them; all others once.

    Args:
        targets: (N, L) of the training images, NaN unknown. Prevalence is over the known targets.
        labels: The L labels.
        config: ``sampler``.

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
    """Batches of every row once, shuffled; rows that make no whole batch are not drawn, unless there is none.

    >>> [len(batch) for batch in draw_whole_batches(11, batch_size=4, seed=0)]
    [4, 4]
    """
    rows = np.random.default_rng(seed).permutation(n_rows).tolist()
    n_batches = max(n_rows // batch_size, 1)
    return [rows[number * batch_size :][:batch_size] for number in range(n_batches)]
