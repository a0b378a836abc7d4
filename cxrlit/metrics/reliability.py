"""How far probs are from what is observed: the reliability diagram, Brier score and calibration error."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from cxrlit.metrics.classification import divide
from cxrlit.metrics.types import Floats

N_BINS = 15


class Reliability(NamedTuple):
    """The reliability diagram of a label, a row a bin, from the lowest probs up.

    Attributes:
        lowest, highest: (bins,) the probs of the bin.
        n_images: (bins,) int64.
        mean_prob: (bins,).
        observed: (bins,) the share of positives.
        low, high: (bins,) 95 % Wilson interval of that share, as if images were independent.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    n_images: NDArray[np.int64]
    mean_prob: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def find_edges(probs: Floats, n_bins: int = N_BINS) -> Floats:
    """The highest prob of each bin but the last: bins of as many images each, equal probs together.

    As many images, not equal widths: of a rare label nearly all probs would lie in the first of equal widths, and the
    others hold a handful.

    Args:
        probs: (N,) without NaN.
        n_bins: At most so many; with ties there can be fewer.

    Source: Guo et al., ICML 2017 (15 bins); Nguyen and O'Connor, "Posterior calibration and exploratory analysis for
        natural language processing models", EMNLP 2015, and Roelofs et al., "Mitigating bias in calibration error
        estimation", AISTATS 2022 (equal mass, and why).
    """
    if not len(probs):
        return probs
    last = np.ceil(np.arange(1, n_bins) * len(probs) / n_bins).astype(int) - 1
    edges = np.unique(np.sort(probs)[last])
    below_top: Floats = edges[edges < probs.max()]
    return below_top


def assign_bins(probs: Floats, edges: Floats) -> NDArray[np.intp]:
    """(N,) the bin of each prob, 0 to ``len(edges)``."""
    bins: NDArray[np.intp] = np.searchsorted(edges, probs, side="left")
    return bins


def make_reliability(probs: Floats, targets: Floats) -> Reliability:
    """The reliability diagram of one label: (N,) probs and (N,) targets, NaN unknown and left out."""
    known = ~np.isnan(targets)
    probs, present = probs[known].astype(np.float64), targets[known] == 1
    bins = assign_bins(probs, edges := find_edges(probs))
    counts: NDArray[np.int64] = np.bincount(bins, minlength=len(edges) + 1) if len(probs) else np.zeros(0, np.int64)
    order: NDArray[np.float64] = np.sort(probs)
    ends = np.cumsum(counts)
    hits = np.bincount(bins[present], minlength=len(counts))
    return Reliability(
        order[ends - counts],
        order[ends - 1],
        counts,
        divide(np.bincount(bins, probs, minlength=len(counts)), counts),
        divide(hits, counts),
        *wilson_interval(hits, counts),
    )


def wilson_interval(
    hits: NDArray[np.int64], counts: NDArray[np.int64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of a share, within [0, 1] and sensible at 0 and 1; NaN of nothing.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    >>> low, high = wilson_interval(np.array([0, 5]), np.array([10, 10]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.237], [0.278, 0.763])
    """
    z2 = float(ndtri((1 + level) / 2)) ** 2
    share = divide(hits, counts)
    centre = divide(share * counts + z2 / 2, counts + z2)
    half = np.sqrt(z2) * divide(np.sqrt(counts * share * (1 - share) + z2 / 4), counts + z2)
    # At the ends the bound is 0 or 1; rounding would leave it a trifle beyond.
    return np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)


def brier_score(probs: Floats, targets: Floats) -> float:
    """The mean squared distance of probs to targets; NaN without a known target.

    Args:
        probs: (N,).
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> brier_score(np.array([0.5, 1.0]), np.array([0.0, 1.0]))
    0.125
    """
    known = ~np.isnan(targets)
    return float(divide(((probs[known].astype(np.float64) - targets[known]) ** 2).sum(), known.sum()))


def expected_calibration_error(probs: Floats, targets: Floats) -> float:
    """The mean distance between mean prob and share of positives, over the bins of ``find_edges``.

    Too high by chance: noise in a bin adds to it. See ``intervals.interval`` for how much.

    Args:
        probs: (N,).
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.

    Returns:
        In [0, 1]; NaN without a known target.
    """
    bins = make_reliability(probs, targets)
    return float(divide((bins.n_images * np.abs(bins.mean_prob - bins.observed)).sum(), bins.n_images.sum()))
