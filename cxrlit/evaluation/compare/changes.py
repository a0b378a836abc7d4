"""Two models on the same images: what changed, and by how much more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.bootstrap import N_REPLICATES, Replicates, bootstrap
from cxrlit.metrics.delong import estimate_areas, p_of_areas
from cxrlit.metrics.intervals import LEVEL, NO_VARIATION, find_reasons, interval_of_change, p_of_change
from cxrlit.metrics.types import Floats

Metric = Literal["auroc", "f1"]
NAMES: dict[Metric, str] = {"auroc": "AUROC", "f1": "F1"}


@dataclass(frozen=True)
class Change:
    """A metric of one label, or its macro, before and after.

    Attributes:
        label: The label, or ``macro``.
        baseline, candidate: The metric of each; NaN undefined. Of ``macro``: over the labels defined in both.
        change: ``candidate - baseline``.
        low, high: 95 % paired patient-bootstrap interval of the change; NaN with a reason.
        p: Two-sided, of no change, from the same resamples: at most 0.05 where that interval excludes 0.
        p_holm: ``p`` for a look at all labels at once; that of ``macro``, a single one, is ``p``.
        low_holm, high_holm: The interval that goes with ``p_holm``: wider, excludes 0 where ``p_holm`` <= 0.05.
        p_delong: DeLong's paired test, as publications print it: as if images were independent. NaN but for AUROC.
        p_delong_holm: The same for a look at all labels at once.
        n_defined: Resamples behind the interval.
        reason: Why there is no interval, else empty.
    """

    label: str
    baseline: float
    candidate: float
    change: float
    low: float
    high: float
    p: float
    p_holm: float
    low_holm: float
    high_holm: float
    p_delong: float
    p_delong_holm: float
    n_defined: int
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What changed in one metric.

    Attributes:
        metric: Which.
        labels: A row a label.
        macro: The mean over the labels that are defined in both.
        n_labels: How many those are.
        replicates: The changes of the labels, for further questions.
    """

    metric: Metric
    labels: tuple[Change, ...]
    macro: Change
    n_labels: int
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
    """The change of AUROC, or of F1 with each model at its own fixed thresholds.

    Args:
        metric: Which of the two.
        baseline: (N, L) scores; for F1 probs.
        candidate: (N, L) those of the same images.
        targets: (N, L), NaN unknown: left out.
        patients: (N,) see ``bootstrap``.
        labels: The L labels.
        thresholds: Of F1: (L,) of the baseline and (L,) of the candidate, NaN where a label has none.
        n_replicates: Resamples, the same for both.
        seed: Of them.
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
    """The change between replicates from the same resamples; ``p_delong`` (L,) are those of DeLong's test."""
    both = np.flatnonzero(~np.isnan(before.estimate + after.estimate))
    changes = after.minus(before)
    of_macro = before.only(both).macro(), after.only(both).macro()
    return Comparison(
        metric,
        _make_changes(labels, before, after, changes, p_delong),
        _make_changes(["macro"], *of_macro, of_macro[1].minus(of_macro[0]), np.full(1, np.nan))[0],
        len(both),
        changes,
    )


def _make_changes(
    labels: Sequence[str], before: Replicates, after: Replicates, changes: Replicates, p_delong: NDArray[np.float64]
) -> tuple[Change, ...]:
    p = p_of_change(changes)
    alone, together = interval_of_change(changes), interval_of_change(changes, find_holm_levels(p))
    reasons = [_say_reason(*sides) for sides in zip(find_reasons(before), find_reasons(after), strict=True)]
    p_holm, delong_holm = adjust_holm(p), adjust_holm(p_delong)
    return tuple(
        Change(
            label=label,
            baseline=float(before.estimate[column]),
            candidate=float(after.estimate[column]),
            change=float(changes.estimate[column]),
            low=float(alone.low[column]),
            high=float(alone.high[column]),
            p=float(p[column]),
            p_holm=float(p_holm[column]),
            low_holm=float(together.low[column]),
            high_holm=float(together.high[column]),
            p_delong=float(p_delong[column]),
            p_delong_holm=float(delong_holm[column]),
            n_defined=int(alone.n_defined[column]),
            reason=reasons[column],
        )
        for column, label in enumerate(labels)
    )


def _say_reason(before: str, after: str) -> str:
    """Why a change has no interval, of the reasons of its sides; of one side that never varies, which one it is.

    The change varies then, but how far off the still side may be is unknown, and so how far off the change.
    """
    if {before, after} == {NO_VARIATION, ""}:
        side = "baseline" if before else "candidate"
        return f"the {side} has the same value in every resample, so that how far off it may be cannot be told"
    return before or after


def adjust_holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values for a look at all of them at once; NaN stays NaN and does not count.

    Args:
        p: (K,).

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    >>> adjust_holm(np.array([0.04, 0.01, np.nan, 0.03])).tolist()
    [0.06, 0.03, nan, 0.06]
    """
    adjusted, order = np.full(len(p), np.nan), np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1)
    return adjusted


def find_holm_levels(p: NDArray[np.float64], level: float = LEVEL) -> NDArray[np.float64]:
    """(K,) the levels of intervals that exclude the null exactly where Holm rejects it.

    The smallest p of m is held against (1 - level) / m, the next against (1 - level) / (m - 1), and so on up to the
    first that fails, whose level is that of all that follow.

    >>> (1 - find_holm_levels(np.array([0.04, 0.01, 0.03]))).round(4).tolist()
    [0.025, 0.0167, 0.025]
    """
    levels, allowed = np.full(len(p), level), 1 - level
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    for place, column in enumerate(order):
        allowed = (1 - level) / (len(order) - place)
        if p[column] > allowed:
            levels[order[place:]] = 1 - allowed
            break
        levels[column] = 1 - allowed
    return levels
