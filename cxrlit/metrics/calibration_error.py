"""Expected calibration error of one label, and the reliability diagram with the same bins."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.division import divide_or_nan
from cxrlit.metrics.types import Floats
from cxrlit.metrics.wilson_interval import wilson_interval

N_BINS = 15


class Reliability(NamedTuple):
    """The reliability diagram of a label, one row per bin, from the lowest probs up.

    Attributes:
        lowest, highest: (bins,) smallest and largest prob of the bin.
        n_images: (bins,) int64 number of images.
        mean_prob: (bins,) mean prob.
        observed: (bins,) share of positives.
        low, high: (bins,) 95 % Wilson interval of that share, treating images as independent.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    n_images: NDArray[np.int64]
    mean_prob: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def find_edges(probs: Floats, n_bins: int = N_BINS) -> Floats:
    """The highest prob of each bin but the last. Bins hold equally many images; equal probs share a bin.

    Equal counts rather than equal widths: for a rare label, nearly all probs would be in the first bin of equal
    width, and the other bins would hold a handful.

    Args:
        probs: (N,) without NaN.
        n_bins: Maximum number of bins; ties can reduce it.

    Source: Guo et al., ICML 2017 (15 bins); Nguyen and O'Connor, "Posterior calibration and exploratory analysis for
        natural language processing models", EMNLP 2015, and Roelofs et al., "Mitigating bias in calibration error
        estimation", AISTATS 2022 (equal mass, and why).

    >>> find_edges(np.array([0.1, 0.2, 0.3, 0.3, 0.3, 0.9]), n_bins=3).tolist()
    [0.2, 0.3]
    """
    if not len(probs):
        return probs
    last = np.ceil(np.arange(1, n_bins) * len(probs) / n_bins).astype(int) - 1
    edges = np.unique(np.sort(probs)[last])
    below_top: Floats = edges[edges < probs.max()]
    return below_top


def assign_bins(probs: Floats, edges: Floats) -> NDArray[np.intp]:
    """(N,) bin of each prob, 0 to ``len(edges)``.

    >>> assign_bins(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.2, 0.3])).tolist()
    [0, 0, 1, 2]
    """
    bins: NDArray[np.intp] = np.searchsorted(edges, probs, side="left")
    return bins


def make_reliability(probs: Floats, targets: Floats) -> Reliability:
    """The reliability diagram of one label.

    Args:
        probs: (N,) in [0, 1].
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

    Returns:
        One row per bin, each with at least one image; no rows without a known target.

    Source: DeGroot and Fienberg, "The comparison and evaluation of forecasters", The Statistician 1983.

    >>> make_reliability(np.array([0.2, 0.2, 0.9]), np.array([0.0, 1.0, 1.0])).observed.tolist()
    [0.5, 1.0]
    """
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
        divide_or_nan(np.bincount(bins, probs, minlength=len(counts)), counts),
        divide_or_nan(hits, counts),
        *wilson_interval(hits, counts),
    )


def expected_calibration_error(probs: Floats, targets: Floats) -> float:
    """Mean distance between mean prob and share of positives, over the bins of ``find_edges``; 0 is best.

    Noise in the bins biases it upwards. See ``intervals.interval`` for how much.

    Args:
        probs: (N,) in [0, 1].
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

    Returns:
        In [0, 1]; NaN without a known target: there is no bin.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.

    >>> round(expected_calibration_error(np.array([0.2, 0.2, 0.9]), np.array([0.0, 1.0, 1.0])), 3)
    0.233
    """
    bins = make_reliability(probs, targets)
    return float(divide_or_nan((bins.n_images * np.abs(bins.mean_prob - bins.observed)).sum(), bins.n_images.sum()))
