"""ROC and precision-recall curves of each label, exact, with bands over resampled patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import format_count
from cxrlit.metrics.bootstrap import draw_weights
from cxrlit.metrics.bootstrap_engine import find_steps
from cxrlit.metrics.intervals import LEVEL, MIN_DEFINED, MIN_PATIENTS
from cxrlit.metrics.types import Floats

Numbers = NDArray[np.float64]

N_REPLICATES = 1000
"""Resamples per band; more would not visibly change its edges, which are quantiles at each point."""

PERCENTS = np.arange(101.0)
"""Positions of bands, percent: false positive rates from 0, recalls from 1."""


@dataclass(frozen=True)
class Band:
    """Pointwise range of 95 % of the resamples' curves.

    Attributes:
        x: (T,) ascending.
        low, high: (T,) edges of the range.
    """

    x: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True)
class Curves:
    """ROC and precision-recall curves of a label.

    Attributes:
        fpr, tpr: (G + 1,) corners of the ROC curve from (0, 0) to (1, 1), joined by lines: the area below is the AUROC.
            Empty without both classes.
        recall, precision: (K,) for each score of a positive, in descending order. A precision holds from the previous
            recall to its own: the area below these steps is the average precision. Empty without both classes.
        roc_band: Band of the true positive rate at each percent of the false positive rate; where a curve is vertical,
            its highest point. None without a band.
        precision_band: Band of the precision at each percent of the recall, from the recall at which 95 % of the
            resamples have found a positive: below it, a precision is that of one image or none. None without a band.
        reason: Why there are no bands, else empty.
    """

    fpr: Numbers
    tpr: Numbers
    recall: Numbers
    precision: Numbers
    roc_band: Band | None
    precision_band: Band | None
    reason: str


def make_curves(
    scores: Floats, targets: Floats, patients: NDArray[Any], n_replicates: int = N_REPLICATES, seed: int = 0
) -> list[Curves]:
    """Compute the curves of each label.

    Args:
        scores: (N, L).
        targets: (N, L), NaN unknown: ignored.
        patients: (N,) see ``bootstrap``, which draws the same resamples.
        n_replicates: Resamples for the bands.
        seed: Seed of the resamples.

    Raises:
        ValueError: A score of a known target is NaN.

    Memory: 8 bytes per replicate, label and point of a band, and some tens of MB.
    """
    names, codes = np.unique(patients, return_inverse=True)
    steps = [find_steps(scores[:, label], targets[:, label], codes, len(names)) for label in range(scores.shape[1])]
    found: list[list[tuple[Numbers, Numbers, Numbers]]] = [[] for _ in steps]
    reasons = [_find_reason(*(np.unique(part.indices).size for part in parts)) for parts in steps]
    for weights in draw_weights(len(names), n_replicates, seed):
        for label, (of_positives, of_negatives) in enumerate(steps):
            if not reasons[label]:
                found[label].append(_follow(of_positives @ weights, of_negatives @ weights))
    curves = []
    for label, (of_positives, of_negatives) in enumerate(steps):
        positives, negatives = (np.asarray(part.sum(axis=1)).ravel() for part in (of_positives, of_negatives))
        roc_band = precision_band = None
        if found[label]:
            rates, precisions, first = (np.concatenate(blocks, axis=-1) for blocks in zip(*found[label], strict=True))
            defined = ~np.isnan(rates[0]) & ~np.isnan(precisions[0])
            if defined.mean() < MIN_DEFINED:
                reasons[label] = f"defined in {defined.sum()} of {n_replicates} resamples"
            else:
                roc_band = _make_band(PERCENTS / 100, rates[:, defined])
                x = PERCENTS[1:] / 100
                reached = x >= np.quantile(first[defined], LEVEL, method="inverted_cdf")
                precision_band = _make_band(x[reached], precisions[reached][:, defined])
        curves.append(Curves(*_trace(positives, negatives), roc_band, precision_band, reasons[label]))
    return curves


def _find_reason(n_with_positive: int, n_with_negative: int) -> str:
    """Why a label has no bands, from the numbers of patients with a positive and with a negative."""
    for number, kind in ((n_with_positive, "positive"), (n_with_negative, "negative")):
        if number == 0:
            return f"no {kind}"
    fewest = min(n_with_positive, n_with_negative)
    return f"{format_count(fewest, 'patient')} where {MIN_PATIENTS} are needed" if fewest < MIN_PATIENTS else ""


def _trace(positives: Numbers, negatives: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Compute the corners of both curves from the (G,) numbers of each step of ``find_steps``."""
    true, false = np.cumsum(positives), np.cumsum(negatives)
    if not positives.any() or not negatives.any():
        nothing = np.zeros(0)
        return nothing, nothing, nothing, nothing
    hit = positives > 0
    recall, precision = true[hit] / true[-1], true[hit] / (true[hit] + false[hit])
    return np.append(0, false / false[-1]), np.append(0, true / true[-1]), recall, precision


def _follow(positives: Numbers, negatives: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Read true positive rates (101, B) and precisions (100, B) at ``PERCENTS`` off (G, B) steps, and (B,) the lowest
    recall above 0.

    NaN if a resample lacks a class.
    """
    true, false = _sum_up(positives), _sum_up(negatives)
    rates = np.full((len(PERCENTS), len(true)), np.nan)
    precisions = np.full((len(PERCENTS) - 1, len(true)), np.nan)
    first = np.full(len(true), np.nan)
    for column, (hits, alarms) in enumerate(zip(true, false, strict=True)):
        n_positives, n_negatives = hits[-1], alarms[-1]
        if not n_positives or not n_negatives:
            continue
        wanted = PERCENTS * n_negatives / 100  # in this order, whole numbers are exact
        after = np.searchsorted(alarms, wanted, side="right")  # first step with more false positives
        before, after = after - 1, np.minimum(after, len(alarms) - 1)
        run = alarms[after] - alarms[before]
        part = np.divide(wanted - alarms[before], run, out=np.zeros_like(run), where=run > 0)
        rates[:, column] = (hits[before] + part * (hits[after] - hits[before])) / n_positives
        reached = np.searchsorted(hits, PERCENTS[1:] * n_positives / 100, side="left")
        precisions[:, column] = hits[reached] / (hits[reached] + alarms[reached])
        first[column] = hits[np.searchsorted(hits, 0, side="right")] / n_positives
    return rates, precisions, first


def _sum_up(numbers: Numbers) -> Numbers:
    """Cumulate (G, B) numbers to (B, G + 1) sums from 0; a row per resample is contiguous for look-ups."""
    sums = np.zeros((numbers.shape[1], len(numbers) + 1))
    np.cumsum(np.ascontiguousarray(numbers.T), axis=1, out=sums[:, 1:])
    return sums


def _make_band(x: Numbers, values: Numbers) -> Band:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=1)
    return Band(x, low, high)
