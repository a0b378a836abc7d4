"""The variance of AUROC without resampling: DeLong's, of independent images, and Obuchowski's, of independent patients.

DeLong's is what publications print, and what a number of theirs is compared with. It takes the images for independent;
several images of a patient are not, and then it is too small. Obuchowski's is the same with the images of a patient
taken together. ``bootstrap.py`` needs neither.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from cxrlit.metrics.intervals import LEVEL
from cxrlit.metrics.ranking import count_below, split_scores
from cxrlit.metrics.types import Floats


class Areas(NamedTuple):
    """AUROCs of several models on the same images, and what they owe to chance.

    Attributes:
        aurocs: (M,) those of ``auroc``, but for rounding: the mean placement of the positives.
        covariance: (M, M) of the AUROCs; NaN where a class has fewer than two images (or patients).
    """

    aurocs: NDArray[np.float64]
    covariance: NDArray[np.float64]


class PairedTest(NamedTuple):
    """The second model against the first.

    Attributes:
        change: AUROC of the second less that of the first.
        error: Standard error of the change.
        z: ``change / error``.
        p: Two-sided. 1 where the models order every pair alike; NaN where the error is unknown.
    """

    change: float
    error: float
    z: float
    p: float


def estimate_areas(scores: Floats, targets: Floats, patients: NDArray[Any] | None = None) -> Areas:
    """AUROCs and their covariance, in O(M N log N).

    Args:
        scores: (N, M) the scores of M models for one label.
        targets: (N,) 1 present, 0 absent, NaN unknown: left out.
        patients: (N,) the patient of each image: Obuchowski's covariance. None takes the images for independent:
            DeLong's. With one image a patient the two are the same.

    Raises:
        ValueError: A score of a known target is NaN.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
        characteristic curves", Biometrics 1988; Sun and Xu, "Fast implementation of DeLong's algorithm", IEEE Signal
        Processing Letters 2014 (from ranks); Obuchowski, "Nonparametric analysis of clustered ROC curve data",
        Biometrics 1997.

    >>> scores = np.array([[0.1, 0.3], [0.4, 0.1], [0.4, 0.5], [0.8, 0.2]])
    >>> areas = estimate_areas(scores, np.array([0.0, 0.0, 1.0, 1.0]))
    >>> areas.aurocs.tolist(), np.diagonal(areas.covariance).tolist()
    ([0.875, 0.75], [0.03125, 0.125])
    """
    positives, negatives = split_scores(scores, targets)
    n_models = scores.shape[1]
    if not len(positives) or not len(negatives):
        return Areas(np.full(n_models, np.nan), np.full((n_models, n_models), np.nan))
    placements = [_place(positives, negatives), 1 - _place(negatives, positives)]
    aurocs = placements[0].mean(axis=0)
    rows = [np.flatnonzero(targets == value) for value in (1, 0)]
    codes = np.arange(len(targets)) if patients is None else np.unique(patients, return_inverse=True)[1]
    n_patients = len(np.unique(codes[np.concatenate(rows)]))

    # What each patient's positives, and negatives, have above or below the mean: (2, patients, M)
    excess = np.zeros((2, codes.max() + 1, n_models))
    n_with = []
    for kind, (row, placement) in enumerate(zip(rows, placements, strict=True)):
        np.add.at(excess[kind], codes[row], (placement - aurocs) / len(row))
        n_with.append(len(np.unique(codes[row])))
    if min(n_with) < 2:
        return Areas(aurocs, np.full((n_models, n_models), np.nan))
    (of_positives, of_negatives), (i10, i01) = excess, n_with
    both = of_positives.T @ of_negatives * (n_patients / (n_patients - 1))
    covariance = of_positives.T @ of_positives * (i10 / (i10 - 1)) + of_negatives.T @ of_negatives * (i01 / (i01 - 1))
    return Areas(aurocs, covariance + both + both.T)


def _place(scores: Floats, others: Floats) -> NDArray[np.float64]:
    """(N, M) the share of the others that each score is above, a tie counting half."""
    columns = zip(scores.T, others.T, strict=True)
    return np.stack([count_below(*column) / (2 * len(others)) for column in columns], axis=1)


def delong_interval(areas: Areas, level: float = LEVEL) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normal interval of each AUROC, cut to [0, 1]; NaN for an AUROC of 0 or 1, about which it says nothing.

    Args:
        areas: From ``estimate_areas``.
        level: In (0, 1).

    Returns:
        (M,) low and (M,) high.
    """
    variance = np.diagonal(areas.covariance)
    width = float(ndtri((1 + level) / 2)) * np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.clip(areas.aurocs - width, 0, 1), np.clip(areas.aurocs + width, 0, 1)


def compare_areas(areas: Areas) -> PairedTest:
    """The test of two AUROCs on the same images.

    Args:
        areas: From ``estimate_areas``, M = 2.
    """
    change = float(areas.aurocs[1] - areas.aurocs[0])
    contrast = np.array([-1.0, 1.0])
    variance = float(contrast @ areas.covariance @ contrast)
    if variance <= 1e-15 * np.trace(areas.covariance):  # what rounding leaves of zero
        return PairedTest(change, 0.0, 0.0 if change == 0 else np.nan, 1.0 if change == 0 else np.nan)
    error = np.sqrt(variance)
    return PairedTest(change, float(error), float(change / error), float(2 * ndtr(-abs(change) / error)))
