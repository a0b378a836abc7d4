"""DeLong's variance of AUROC. Publications report it, so it serves for comparison with their numbers. It treats
images as independent, but several images of a patient are not; ``bootstrap.py`` does not need that assumption.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from cxrlit.metrics.intervals import LEVEL
from cxrlit.metrics.ranking import count_below, split_scores
from cxrlit.metrics.types import Floats


class Areas(NamedTuple):
    """AUROCs of several models on the same images, and their sampling covariance.

    Attributes:
        aurocs: (M,) equal to ``auroc`` but for rounding: the mean placement of the positives.
        covariance: (M, M) of the AUROCs; NaN where a class has fewer than two images.
    """

    aurocs: NDArray[np.float64]
    covariance: NDArray[np.float64]


def estimate_areas(scores: Floats, targets: Floats) -> Areas:
    """AUROCs and their covariance, in O(M N log N).

    Args:
        scores: (N, M) the scores of M models for one label.
        targets: (N,) 1 present, 0 absent, NaN unknown: excluded.

    Raises:
        ValueError: A score of a known target is NaN.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
        characteristic curves", Biometrics 1988; Sun and Xu, "Fast implementation of DeLong's algorithm", IEEE Signal
        Processing Letters 2014 (from ranks).

    >>> scores = np.array([[0.1, 0.3], [0.4, 0.1], [0.4, 0.5], [0.8, 0.2]])
    >>> areas = estimate_areas(scores, np.array([0.0, 0.0, 1.0, 1.0]))
    >>> areas.aurocs.tolist(), np.diagonal(areas.covariance).tolist()
    ([0.875, 0.75], [0.03125, 0.125])
    """
    positives, negatives = split_scores(scores, targets)
    n_models = scores.shape[1]
    unknown = np.full((n_models, n_models), np.nan)
    if not len(positives) or not len(negatives):
        return Areas(unknown[0], unknown)
    placements = [_place(positives, negatives), _place(negatives, positives)]
    aurocs = placements[0].mean(axis=0)
    if min(len(positives), len(negatives)) < 2:
        return Areas(aurocs, unknown)
    parts = [np.cov(placement, rowvar=False) / len(placement) for placement in placements]
    return Areas(aurocs, np.sum(parts, axis=0).reshape(n_models, n_models))


def _place(scores: Floats, others: Floats) -> NDArray[np.float64]:
    """(N, M) fraction of the others below each score; a tie counts half."""
    columns = zip(scores.T, others.T, strict=True)
    return np.stack([count_below(*column) / (2 * len(others)) for column in columns], axis=1)


def delong_interval(areas: Areas) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normal 95 % interval of each AUROC, clipped to [0, 1]; NaN for an AUROC of 0 or 1, where it has no width.

    Args:
        areas: From ``estimate_areas``.

    Returns:
        Lower and upper bounds, (M,) each.
    """
    variance = np.diagonal(areas.covariance)
    width = float(ndtri((1 + LEVEL) / 2)) * np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.clip(areas.aurocs - width, 0, 1), np.clip(areas.aurocs + width, 0, 1)


def p_of_areas(areas: Areas) -> float:
    """Two-sided p-value of the hypothesis that two AUROCs on the same images are equal; 1 for identical rankings.

    Args:
        areas: From ``estimate_areas``, M = 2.

    Returns:
        In [0, 1]; NaN where the standard error of the change is unknown.
    """
    change = areas.aurocs[1] - areas.aurocs[0]
    contrast = np.array([-1.0, 1.0])
    variance = float(contrast @ areas.covariance @ contrast)
    if variance <= 1e-15 * np.trace(areas.covariance):  # zero but for rounding
        return 1.0 if change == 0 else float("nan")
    return float(2 * ndtr(-abs(change) / np.sqrt(variance)))
