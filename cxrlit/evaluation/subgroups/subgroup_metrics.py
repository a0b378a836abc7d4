"""Measure each subgroup, and test the gaps between subgroups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.evaluation.measure.measure import (
    AT_THRESHOLD,
    OVER_LABELS,
    count_images,
    explain_undefined,
    make_rows,
    tabulate_decisions,
)
from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.evaluation.subgroups.gaps import COLUMNS, tabulate_gaps
from cxrlit.evaluation.subgroups.groups import Attribute, find_attributes
from cxrlit.metrics.bootstrap import N_REPLICATES, Replicates, bootstrap
from cxrlit.metrics.bootstrap_engine import ERRORS, RANKING
from cxrlit.metrics.intervals import MIN_PATIENTS, UNDEFINED, interval
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.types import Floats

TESTED = {"auroc": 1, "recall": 1, "specificity": 0}
"""Metrics whose gaps are tested, with the target of the images that they average over."""

METRICS = ("attribute", "group", "metric", "label", "value", "low", "high", "n_labels", "reason")
COUNTS = ("attribute", "group", "label", "images", "patients", "positives", "TP", "FP", "TN", "FN")
GAPS = ("attribute", "metric", *COLUMNS)


@dataclass(frozen=True)
class Subgroups:
    """The metrics of subgroups.

    Attributes:
        metrics: A row for each ``attribute``, ``group``, ``metric`` and ``label``, and for ``macro``, the mean over the
            labels that have a value: ``value``, ``low`` and ``high`` of the 95 % interval, ``n_labels``, number of
            labels in a macro, and ``reason``, why a cell is blank. F1 also has rows ``micro`` and ``weighted``.
        counts: A row for each ``attribute``, ``group`` and ``label``: ``images`` with a known target and their
            ``patients``, ``positives``, ``TP``, ``FP``, ``TN``, ``FN`` at the threshold.
        gaps: A row for each ``attribute``, ``metric`` of ``TESTED``, ``group``, group ``against`` which it is compared,
            and ``label``, and for ``macro``: ``value`` of the group, ``value_against``, their ``gap``, ``low`` and
            ``high`` of its 95 % interval, ``p``; ``p_holm``, ``low_holm`` and ``high_holm``, corrected over all
            ``n_tested`` gaps of the metric and attribute; ``flagged`` if significant after correction; ``n_labels``;
            ``reason``, why cells are blank.
        excluded: Why an attribute is not measured, by name.
    """

    metrics: pd.DataFrame
    counts: pd.DataFrame
    gaps: pd.DataFrame
    excluded: dict[str, str]


def measure_subgroups(
    predictions: pd.DataFrame,
    point: OperatingPoint,
    names: Sequence[str],
    age_bands: Sequence[int],
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> Subgroups:
    """Measure each group by sex, age band and view, if the predictions have these columns.

    AUROC and average precision use the raw probs, all other metrics the calibrated probs. A value from fewer than
    ``MIN_PATIENTS`` patients is blank.

    A gap is the difference between a group's metric and the mean of the other groups' metrics, weighted by their
    positives (for specificity, negatives). For recall and specificity, this mean is the metric of their pooled images.
    For AUROC it is not: pooled ages of different prevalence are separated by age alone, so that every single band would
    seem worse than the rest. Two groups have one gap. ``unknown`` is not a group of people: it is measured, but not
    tested or compared with.

    All groups share the same resamples of patients, so that a patient in several groups counts in all of them.

    Args:
        predictions: A predictions table that may have ``sex``, ``age`` and ``view``.
        point: Calibration and thresholds.
        names: The attributes to measure, of ``sex``, ``age`` and ``view``.
        age_bands: Starts of the age bands after the first, which starts at 0; years, ascending.
        n_replicates: Resamples of the patient bootstrap.
        seed: Seed of the resamples.

    Source: Janes and Pepe, "Adjusting for covariate effects on classification accuracy using the covariate-adjusted
        ROC curve", Biometrika 2009 (the mean of AUROCs over the positives); Seyyed-Kalantari et al., "Underdiagnosis
        bias of artificial intelligence algorithms applied to chest radiographs in under-served patient populations",
        Nature Medicine 2021 (recall by group at a fixed threshold).
    """
    point = point.only(list_labels(predictions))
    attributes, excluded = find_attributes(predictions, names, age_bands)
    tables: list[tuple[pd.DataFrame, ...]] = []
    for attribute in attributes:
        counts = _count(attribute, predictions, point)
        replicates = _resample(attribute, predictions, point, n_replicates, seed)
        measured = _tabulate(attribute, point.labels, replicates)
        gaps = _compare(attribute, point.labels, replicates, counts)
        tables.append((_explain(measured, point, counts), counts, _explain(gaps, point, counts)))
    metrics, counts, gaps = (
        pd.concat([part[place] for part in tables], ignore_index=True)
        if tables
        else pd.DataFrame(columns=list(columns))
        for place, columns in enumerate((METRICS, COUNTS, GAPS))
    )
    return Subgroups(metrics, counts, gaps, excluded)


def _resample(
    attribute: Attribute, predictions: pd.DataFrame, point: OperatingPoint, n_replicates: int, seed: int
) -> dict[str, list[Replicates]]:
    """Compute the replicates of each metric for each group."""
    probs, targets = split_arrays(predictions)
    calibrated, patients = point.calibrate(probs), _number(predictions["patient"])
    n_groups, n_labels = len(attribute.groups), probs.shape[1]
    in_group = [np.where((attribute.codes == code)[:, None], targets, np.nan) for code in range(n_groups)]
    columns = np.arange(n_groups * n_labels).reshape(n_groups, n_labels)
    thresholds = point.thresholds.values

    def resample(names: Sequence[str], scores: Floats) -> dict[str, list[Replicates]]:
        # Groups as extra columns, as if they were labels, so that resamples are drawn once.
        side_by_side = np.tile(scores, n_groups), np.concatenate(in_group, axis=1)
        found = bootstrap(names, *side_by_side, patients, np.tile(thresholds, n_groups), n_replicates, seed)
        return {name: [values.only(chosen) for chosen in columns] for name, values in found.items()}

    over_labels = [
        bootstrap(tuple(OVER_LABELS), calibrated, targets, patients, thresholds, n_replicates, seed)
        for targets in in_group
    ]
    return {
        **resample(RANKING, probs),
        **resample((*ERRORS, *AT_THRESHOLD), calibrated),
        **{name: [found[name] for found in over_labels] for name in OVER_LABELS},
    }


def _number(patients: pd.Series) -> NDArray[np.intp]:
    """Return (N,) a number for each name, in the order of the names: numbers sort faster than names."""
    return np.unique(patients.to_numpy(), return_inverse=True)[1]


def _tabulate(attribute: Attribute, labels: Sequence[str], replicates: dict[str, list[Replicates]]) -> pd.DataFrame:
    rows = []
    for code, group in enumerate(attribute.groups):
        for metric, of_groups in replicates.items():
            found = of_groups[code]
            if metric in OVER_LABELS:
                rows.append(_make_rows(group, "f1", [OVER_LABELS[metric]], found))
                continue
            rows.append(_make_rows(group, metric, labels, found))
            shown = np.flatnonzero(rows[-1]["value"].notna())
            rows.append(_make_rows(group, metric, ["macro"], found.only(shown).macro()).assign(n_labels=len(shown)))
    table = pd.concat(rows, ignore_index=True).assign(attribute=attribute.name)
    return table.astype({"n_labels": "Int64"})[list(METRICS)]


def _make_rows(group: str, metric: str, labels: Sequence[str], replicates: Replicates) -> pd.DataFrame:
    values = np.where(replicates.support >= MIN_PATIENTS, replicates.estimate, np.nan)
    table = make_rows(metric, list(labels), values, interval(replicates), [UNDEFINED] * len(labels))
    return table.assign(group=group)


def _count(attribute: Attribute, predictions: pd.DataFrame, point: OperatingPoint) -> pd.DataFrame:
    probs, targets = split_arrays(predictions)
    calibrated, patients = point.calibrate(probs), _number(predictions["patient"])
    tables = []
    for code, group in enumerate(attribute.groups):
        chosen = attribute.codes == code
        images = count_images(point.labels, targets[chosen], patients[chosen])
        decisions = tabulate_decisions(calibrated[chosen], targets[chosen], point.thresholds.values)
        tables.append(pd.concat([images, decisions], axis=1).assign(group=group))
    return pd.concat(tables, ignore_index=True).assign(attribute=attribute.name)[list(COUNTS)]


def _compare(
    attribute: Attribute, labels: Sequence[str], replicates: dict[str, list[Replicates]], counts: pd.DataFrame
) -> pd.DataFrame:
    known = attribute.known
    images, positives = (counts[name].to_numpy().reshape(-1, len(labels)) for name in ("images", "positives"))
    tables = []
    for metric, target in TESTED.items():
        sizes = positives if target == 1 else images - positives
        groups = [replicates[metric][code] for code in known]
        table = tabulate_gaps([attribute.groups[code] for code in known], labels, groups, sizes[known])
        tables.append(table.assign(metric=metric))
    return pd.concat(tables, ignore_index=True).assign(attribute=attribute.name)[list(GAPS)]


def _explain(table: pd.DataFrame, point: OperatingPoint, counts: pd.DataFrame) -> pd.DataFrame:
    """Fill in the reasons for undefined values in rows of metrics or gaps."""
    table = table.copy()
    for (group, metric), rows in table[table["reason"] == UNDEFINED].groupby(["group", "metric"]):
        of_group = counts[counts["group"] == group]
        reasons = dict(zip(point.labels, explain_undefined(str(metric), of_group, point, point.labels), strict=True))
        table.loc[rows.index, "reason"] = rows["label"].map(reasons).fillna("no label has a value")
    return table
