"""Compare a metric of two models on the same images: changes, intervals and p-values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.metrics.bootstrap import N_REPLICATES, Replicates, bootstrap
from cxrlit.metrics.delong import estimate_areas, p_of_areas
from cxrlit.metrics.intervals import LEVEL, NO_VARIATION, find_reasons, interval_of_change, p_of_change
from cxrlit.metrics.types import Floats

Metric = Literal["auroc", "f1"]
NAMES: dict[Metric, str] = {"auroc": "AUROC", "f1": "F1"}


COLUMNS = (
    *("metric", "label", "baseline", "candidate", "change", "low", "high", "p", "p_holm", "low_holm", "high_holm"),
    *("p_delong", "p_delong_holm", "n_defined", "reason", "n_labels"),
)


@dataclass(frozen=True)
class Comparison:
    """The change in one metric.

    Attributes:
        metric: Name of the metric.
        table: ``COLUMNS``, a row for each ``label``, and for ``macro``, the mean over the ``n_labels`` labels that are
            defined in both. ``baseline`` and ``candidate`` are the values, NaN undefined; ``change`` is candidate minus
            baseline; ``low`` and ``high`` are its 95 % paired patient-bootstrap interval; ``p`` is the two-sided
            p-value of no change from the same resamples: at most 0.05 if the interval excludes 0. ``p_holm``,
            ``low_holm`` and ``high_holm`` are corrected over all labels (for ``macro``, a single test, equal to ``p``,
            ``low``, ``high``). ``p_delong`` is DeLong's paired test as usually published, with images taken as
            independent; NaN except for AUROC. ``n_defined`` counts the resamples of the interval; ``reason`` says why
            there is none.
        replicates: The changes of the labels, for further questions.
    """

    metric: Metric
    table: pd.DataFrame
    replicates: Replicates


def compare_metric(
    metric: Metric,
    baseline: Floats,
    candidate: Floats,
    targets: Floats,
    patients: NDArray[Any],
    labels: Sequence[str],
    thresholds: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None] = (None, None),
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Compare AUROC, or F1 with each model at its own fixed thresholds.

    Args:
        metric: auroc or f1.
        baseline: (N, L) scores; for F1 probs.
        candidate: (N, L) scores of the same images.
        targets: (N, L), NaN unknown: ignored.
        patients: (N,) see ``bootstrap``.
        labels: The L labels.
        thresholds: For F1: (L,) of the baseline and (L,) of the candidate, NaN for a label without one.
        n_replicates: Resamples, the same for both.
        seed: Seed of the resamples.
    """
    before, after = (
        bootstrap([metric], scores, targets, patients, fixed, n_replicates, seed)[metric]
        for scores, fixed in zip((baseline, candidate), thresholds, strict=True)
    )
    p_delong = np.full(len(labels), np.nan)
    if metric == "auroc":
        for column in range(len(labels)):
            pair = np.stack([baseline[:, column], candidate[:, column]], axis=1)
            p_delong[column] = p_of_areas(estimate_areas(pair, targets[:, column]))
    return compare_replicates(metric, before, after, labels, p_delong)


def compare_replicates(
    metric: Metric, before: Replicates, after: Replicates, labels: Sequence[str], p_delong: NDArray[np.float64]
) -> Comparison:
    """Compare replicates from the same resamples; ``p_delong`` has the (L,) p-values of DeLong's test."""
    both = np.flatnonzero(~np.isnan(before.estimate + after.estimate))
    of_macro = _tabulate(["macro"], before.only(both).macro(), after.only(both).macro(), np.full(1, np.nan))
    table = pd.concat(
        [_tabulate(labels, before, after, p_delong), of_macro.assign(n_labels=len(both))], ignore_index=True
    )
    table = table.assign(metric=metric)[list(COLUMNS)].astype({"n_labels": "Int64"})
    return Comparison(metric, table, after.minus(before))


def _tabulate(
    labels: Sequence[str], before: Replicates, after: Replicates, p_delong: NDArray[np.float64]
) -> pd.DataFrame:
    changes = after.minus(before)
    p = p_of_change(changes)
    alone, together = interval_of_change(changes), interval_of_change(changes, find_holm_levels(p))
    return pd.DataFrame(
        {
            "label": labels,
            "baseline": before.estimate,
            "candidate": after.estimate,
            "change": changes.estimate,
            "low": alone.low,
            "high": alone.high,
            "p": p,
            "p_holm": adjust_holm(p),
            "low_holm": together.low,
            "high_holm": together.high,
            "p_delong": p_delong,
            "p_delong_holm": adjust_holm(p_delong),
            "n_defined": alone.n_defined,
            "reason": [_say_reason(*sides) for sides in zip(find_reasons(before), find_reasons(after), strict=True)],
        }
    )


def _say_reason(before: str, after: str) -> str:
    """Why a change has no interval, from the reasons of its sides; names a side that never varies.

    If one side never varies, its error is unknown, and so is that of the change, although the change varies.
    """
    if {before, after} == {NO_VARIATION, ""}:
        side = "baseline" if before else "candidate"
        return f"the {side} has the same value in every resample, so that how far off it may be cannot be told"
    return before or after


def adjust_holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values for multiple tests by Holm's method; NaN stays NaN and is not counted.

    Args:
        p: (K,) p-values.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    >>> adjust_holm(np.array([0.04, 0.01, np.nan, 0.03])).tolist()
    [0.06, 0.03, nan, 0.06]
    """
    adjusted, order = np.full(len(p), np.nan), np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1)
    return adjusted


def find_holm_levels(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (K,) levels of intervals that exclude the null exactly where Holm rejects it.

    The smallest p of m is compared with (1 - LEVEL) / m, the next with (1 - LEVEL) / (m - 1), and so on up to the first
    that fails, whose level applies to all that follow.

    >>> (1 - find_holm_levels(np.array([0.04, 0.01, 0.03]))).round(4).tolist()
    [0.025, 0.0167, 0.025]
    """
    levels, allowed = np.full(len(p), LEVEL), 1 - LEVEL
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    for place, column in enumerate(order):
        allowed = (1 - LEVEL) / (len(order) - place)
        if p[column] > allowed:
            levels[order[place:]] = 1 - allowed
            break
        levels[column] = 1 - allowed
    return levels
