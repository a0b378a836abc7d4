"""Tune the threshold of each label on validation."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cxrlit.metrics.bootstrap import N_REPLICATES, bootstrap, draw_weights
from cxrlit.metrics.calibration import Method, apply_calibration, fit_calibration, name_missing
from cxrlit.metrics.confusion import ConfusionCounts, count_decisions, f1_score
from cxrlit.metrics.intervals import LEVEL, NO_VARIATION, interval
from cxrlit.metrics.operating_point import OperatingPoint, Rule, Thresholds
from cxrlit.metrics.types import Floats

GRID = np.round(np.arange(5, 96) / 100, 2)
"""0.05 to 0.95 in steps of 0.01."""

SHARES = np.arange(100) / 100
"""Shares of the positives below the candidate thresholds of ``f1_quantiles``."""


def tune_thresholds(
    probs: Floats, targets: Floats, labels: Sequence[str], rule: Rule = "f1_grid", wanted: float | None = None
) -> Thresholds:
    """Choose the best threshold of each label.

    Args:
        probs: (N, L) probs of the validation images.
        targets: (N, L), NaN unknown: ignored.
        labels: The L labels.
        rule: Criterion of the choice.
        wanted: The sensitivity or specificity to reach, in (0, 1]; only for these rules.

    Raises:
        ValueError: ``wanted`` is missing, or is set for a rule that takes none; a prob of a known target is NaN.
    """
    _check_wanted(rule, wanted)
    values, best = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    reasons = {}
    for column, label in enumerate(labels):
        known = ~np.isnan(targets[:, column])
        of_label, present = probs[known, column], targets[known, column] == 1
        if np.isnan(of_label).any():
            raise ValueError(f"a prob of {label} is NaN")
        if missing := name_missing(present):
            reasons[label] = f"validation has no {missing}"
            continue
        candidates = _list_candidates(of_label, present, rule)
        counts = count_decisions(of_label[:, None], present[:, None].astype(np.float32), candidates[None])
        tables = ConfusionCounts(*(count.T.astype(np.float64) for count in counts))  # (T, 1)
        chosen = int(_choose(tables, rule, wanted)[0])
        if chosen < 0:
            reasons[label] = f"no threshold that finds a positive of validation has a specificity of {wanted}"
        else:
            values[column], best[column] = candidates[chosen], f1_score(tables)[chosen, 0]
    return Thresholds(tuple(labels), values, best, reasons, rule, wanted)


class Stability(NamedTuple):
    """How much thresholds depend on the validation patients, (L,) each; NaN without a threshold.

    Attributes:
        low, high: Range of 95 % of the thresholds that resamples of the patients choose.
        f1_low, f1_high: Interval of F1 on validation at the fixed threshold; optimistic, since it was chosen there.
        f1_elsewhere: F1 on validation that 97.5 % of the resamples' thresholds reach. If it is near the F1 of the fixed
            threshold, another choice would cost little, even if the thresholds are far apart.
        n_defined: Number of resamples that can choose a threshold.
        reasons: Why a label has no interval, else empty.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    f1_low: NDArray[np.float64]
    f1_high: NDArray[np.float64]
    f1_elsewhere: NDArray[np.float64]
    n_defined: NDArray[np.int64]
    reasons: tuple[str, ...]


def measure_stability(
    thresholds: Thresholds,
    probs: Floats,
    targets: Floats,
    patients: NDArray[Any],
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> Stability:
    """Tune again on resamples of the patients, by the same rule and among the same candidates.

    Args:
        thresholds: From ``tune_thresholds``, with the same probs and targets.
        probs: (N, L) probs of the validation images.
        targets: (N, L), NaN unknown: ignored.
        patients: (N,) see ``bootstrap``.
        n_replicates: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: The thresholds were given rather than tuned.
    """
    if thresholds.rule is None:
        raise ValueError("thresholds that were given have no rule to tune them by again")
    f1 = bootstrap(["f1"], probs, targets, patients, thresholds.values, n_replicates, seed)["f1"]
    of_f1 = interval(f1)
    # If F1 is 1 in every resample, it has no interval, but its threshold does.
    reasons = tuple("" if reason == NO_VARIATION else reason for reason in of_f1.reasons)
    names, codes = np.unique(patients, return_inverse=True)
    low, high, elsewhere = np.full((3, len(thresholds.labels)), np.nan)
    n_defined = np.zeros(len(thresholds.labels), np.int64)
    tail = (1 - LEVEL) / 2
    for column in np.flatnonzero([not reason for reason in reasons]):
        known = ~np.isnan(targets[:, column])
        of_label, present = probs[known, column], targets[known, column] == 1
        candidates = _list_candidates(of_label, present, thresholds.rule)
        groups = _group_by_candidate(of_label, present, codes[known], candidates, len(names))
        f1_here = f1_score(_count_from(groups, np.ones((len(names), 1))))[:, 0]
        chosen = np.concatenate(
            [
                _choose(_count_from(groups, weights), thresholds.rule, thresholds.wanted)
                for weights in draw_weights(len(names), n_replicates, seed)
            ]
        )
        chosen = chosen[chosen >= 0]
        n_defined[column] = len(chosen)
        low[column], high[column] = np.quantile(candidates[chosen], [tail, 1 - tail])
        elsewhere[column] = np.quantile(f1_here[chosen], tail)
    return Stability(low, high, of_f1.low, of_f1.high, elsewhere, n_defined, reasons)


def _check_wanted(rule: Rule, wanted: float | None) -> None:
    if (wanted is not None) != (rule in ("sensitivity", "specificity")):
        raise ValueError(f"{rule} takes {'a wanted value' if wanted is None else 'no wanted value'}")
    if wanted is not None and not 0 < wanted <= 1:
        raise ValueError(f"a {rule} of {wanted} is not in (0, 1]")


def _list_candidates(probs: Floats, present: NDArray[np.bool_], rule: Rule) -> NDArray[np.float64]:
    """List (T,) candidate thresholds, ascending."""
    if rule == "f1_grid":
        return GRID
    levels = np.unique(probs).astype(np.float64)
    positives = np.unique(probs[present]).astype(np.float64)
    if rule == "f1_quantiles":
        order = np.sort(probs[present]).astype(np.float64)
        positives = np.unique(order[(SHARES * len(order)).astype(int)])
    below = levels[np.maximum(np.searchsorted(levels, positives) - 1, 0)]  # the lowest prob has none below it
    return (positives + below) / 2


def _choose(counts: ConfusionCounts, rule: Rule, wanted: float | None) -> NDArray[np.intp]:
    """Choose (B,) indices of the best of T ascending thresholds from (T, B) counts; -1 without one or a class."""
    tp, fp, tn, fn = counts
    positives, negatives = tp + fn, tn + fp
    if rule == "youden":
        chosen = (tp * negatives - fp * positives).argmax(axis=0)  # J times both, in whole numbers: ties are exact
    elif rule == "sensitivity":
        reached = tp >= wanted * positives - 1e-9
        chosen = len(reached) - 1 - reached[::-1].argmax(axis=0)  # the lowest candidate finds all positives
    elif rule == "specificity":
        reached = tn >= wanted * negatives - 1e-9
        chosen = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
    else:
        chosen = np.nan_to_num(f1_score(counts)).argmax(axis=0)
    return np.where((positives[0] > 0) & (negatives[0] > 0), chosen, -1)


def _group_by_candidate(
    probs: Floats, present: NDArray[np.bool_], codes: NDArray[np.intp], candidates: NDArray[np.float64], n_patients: int
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Count each patient's positives and negatives, (T + 1, P) each, by the number of candidates that they reach."""
    reached = np.searchsorted(candidates, probs.astype(np.float64), side="right")
    positives, negatives = (
        sparse.csr_array((np.ones(rows.sum()), (reached[rows], codes[rows])), shape=(len(candidates) + 1, n_patients))
        for rows in (present, ~present)
    )
    return positives, negatives


def _count_from(groups: tuple[sparse.csr_array, sparse.csr_array], weights: NDArray[np.float64]) -> ConfusionCounts:
    """Compute (T, B) counts of resampled patients."""
    (fn, positives), (tn, negatives) = (_sum_up(group @ weights) for group in groups)
    return ConfusionCounts(TP=positives - fn, FP=negatives - tn, TN=tn, FN=fn)


def _sum_up(groups: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulate (T + 1, B) sums: (T, B) below each candidate, and (B,) in total."""
    up_to = np.cumsum(groups, axis=0)
    return up_to[:-1], up_to[-1]


def fit_operating_point(
    probs: Floats,
    targets: Floats,
    labels: Sequence[str],
    *,
    method: Method | None,
    rule: Rule,
    wanted: float | None,
    origin: Mapping[str, str | None],
) -> OperatingPoint:
    """Fit the calibration on validation, and tune the thresholds on its calibrated probs.

    Args:
        probs: (N, L) probs of the validation images.
        targets: (N, L), NaN unknown: ignored.
        labels: The L labels.
        method: Calibration method; None: no calibration.
        rule: Criterion of the thresholds.
        wanted: The sensitivity or specificity to reach, for these rules.
        origin: See ``OperatingPoint``.
    """
    calibration = None if method is None else fit_calibration(probs, targets, labels, method)
    calibrated = probs.astype(np.float64) if calibration is None else apply_calibration(calibration, probs)
    return OperatingPoint(calibration, tune_thresholds(calibrated, targets, labels, rule, wanted), origin)
