"""Compute all metrics of one part, each with its interval or the reason why it has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.metrics.bootstrap import N_REPLICATES, Replicates, bootstrap
from cxrlit.metrics.bootstrap_engine import DECISIONS, ERRORS, RANKING
from cxrlit.metrics.confusion import count_decisions
from cxrlit.metrics.delong import delong_interval, estimate_areas
from cxrlit.metrics.intervals import UNDEFINED, ConfidenceIntervals, interval
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.types import Floats

RAW = "_raw"
"""Suffix of errors that are computed on the probs before calibration."""

AT_THRESHOLD = ("f1", "precision", "recall", "specificity", "balanced_accuracy")
OVER_LABELS = {"f1_micro": "micro", "f1_weighted": "weighted"}

METRICS = (*RANKING, "auroc_delong", *ERRORS, *(name + RAW for name in ERRORS), *AT_THRESHOLD)
"""Names in the column ``metric`` of ``Measured.metrics``."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one part.

    Attributes:
        part: val, test, external ...
        predictions: Its predictions table.
        calibrated: (N, L) float64 probs that are compared with the thresholds.
        metrics: A row for each metric and label, and for ``macro`` (the mean over the labels where it is defined); for
            F1 also ``micro`` and ``weighted``: ``part``, ``metric``, ``label``, ``value``, ``low`` and ``high`` of the
            95 % interval, ``n_labels``, number of labels in a macro, and ``reason``, why a cell is blank.
            ``auroc_delong`` has DeLong's interval instead of the bootstrap's.
        counts: A row per label: ``label``, ``positives``, ``images`` with a known target, and their ``patients``.
        replicates: Resampled values of ``metrics``, for comparisons between parts.
    """

    part: str
    predictions: pd.DataFrame
    calibrated: NDArray[np.float64]
    metrics: pd.DataFrame
    counts: pd.DataFrame
    replicates: dict[str, Replicates]

    @property
    def labels(self) -> list[str]:
        """The L labels, in order."""
        return list_labels(self.predictions)

    def value(self, metric: str, label: str = "macro") -> float:
        """Look up one value; NaN undefined."""
        rows = self.metrics
        [found] = rows.loc[(rows["metric"] == metric) & (rows["label"] == label), "value"]
        return float(found)


def measure(
    part: str, predictions: pd.DataFrame, point: OperatingPoint, n_replicates: int = N_REPLICATES, seed: int = 0
) -> Measured:
    """Compute all metrics of a part.

    AUROC and average precision use the raw probs: calibration keeps their order, but rounding may create ties. All
    other metrics use the calibrated probs.

    Args:
        part: Name of the part.
        predictions: Its predictions table.
        point: Operating point, fixed on other images or, for validation, on these.
        n_replicates: Resamples of the patient bootstrap.
        seed: Seed of the resamples.
    """
    labels = list_labels(predictions)
    probs, targets = split_arrays(predictions)
    patients = predictions["patient"].to_numpy()
    calibrated = point.calibrate(probs)

    def resample(names: Sequence[str], scores: Floats) -> dict[str, Replicates]:
        return bootstrap(names, scores, targets, patients, point.thresholds.values, n_replicates, seed)

    replicates = {**resample(RANKING, probs), **resample((*ERRORS, *DECISIONS), calibrated)}
    raw = replicates if point.calibration is None else resample(ERRORS, probs)
    replicates |= {name + RAW: raw[name] for name in ERRORS}
    counts = count_images(labels, targets, patients)
    rows = [
        tabulate_replicates(name, list(labels), found, explain_undefined(name, counts, point, labels))
        for name, found in replicates.items()
        if name not in OVER_LABELS
    ]
    rows += [_tabulate_delong(labels, probs, targets, rows[0])]
    rows += [
        tabulate_replicates("f1", [label], replicates[name], ["no label has a positive and a threshold"], macro=False)
        for name, label in OVER_LABELS.items()
    ]
    metrics = pd.concat(rows, ignore_index=True)
    metrics.insert(0, "part", part)
    return Measured(part, predictions, calibrated, metrics, counts, replicates)


def count_images(labels: Sequence[str], targets: Floats, patients: NDArray[Any]) -> pd.DataFrame:
    """Make the counts of ``Measured`` from (N, L) targets and (N,) patients."""
    known = ~np.isnan(targets)
    return pd.DataFrame(
        {
            "label": list(labels),
            "positives": (targets == 1).sum(axis=0),
            "images": known.sum(axis=0),
            "patients": [len(np.unique(patients[column])) for column in known.T],
        }
    )


def tabulate_decisions(probs: Floats, targets: Floats, thresholds: NDArray[np.float64]) -> pd.DataFrame:
    """Count ``TP``, ``FP``, ``TN``, ``FN`` of (N, L) probs at (L,) thresholds, a row per label; blank without one."""
    counts = count_decisions(probs, targets, np.nan_to_num(thresholds))
    table = pd.DataFrame(counts._asdict(), dtype="Int64")
    table.loc[np.isnan(thresholds)] = pd.NA
    return table


def tabulate_replicates(
    metric: str, labels: list[str], replicates: Replicates, undefined: Sequence[str], macro: bool = True
) -> pd.DataFrame:
    """Make rows of ``Measured.metrics``, without the part, for the labels and their macro.

    Args:
        metric: Name of the metric.
        labels: The L labels.
        replicates: Replicates of the metric.
        undefined: For each label the reason, used if its value is undefined.
        macro: Whether to add the macro.
    """
    table = make_rows(metric, labels, replicates.estimate, interval(replicates), undefined)
    if not macro:
        return table
    mean = replicates.macro()
    defined = int((~np.isnan(replicates.estimate)).sum())
    of_macro = make_rows(metric, ["macro"], mean.estimate, interval(mean), ["undefined for every label"])
    return pd.concat([table, of_macro.assign(n_labels=defined)], ignore_index=True)


def make_rows(
    metric: str, labels: list[str], values: NDArray[np.float64], found: ConfidenceIntervals, undefined: Sequence[str]
) -> pd.DataFrame:
    """Make rows of ``Measured.metrics``, without the part; ``undefined`` has the reasons for undefined values."""
    return pd.DataFrame(
        {
            "metric": metric,
            "label": labels,
            "value": values,
            "low": found.low,
            "high": found.high,
            "n_labels": pd.array([None] * len(labels), dtype="Int64"),
            "reason": [
                why if reason == UNDEFINED else reason for reason, why in zip(found.reasons, undefined, strict=True)
            ],
        }
    )


def _tabulate_delong(labels: list[str], probs: Floats, targets: Floats, areas: pd.DataFrame) -> pd.DataFrame:
    """Make rows of AUROC with DeLong's interval; ``areas`` are the bootstrap's rows."""
    bounds = []
    for column in range(len(labels)):
        low, high = delong_interval(estimate_areas(probs[:, [column]], targets[:, column]))
        bounds.append((float(low[0]), float(high[0])))
    table = areas[areas["label"] != "macro"].assign(metric="auroc_delong")
    table[["low", "high"]] = bounds
    blank = table["value"].notna() & table["low"].isna()
    table["reason"] = np.where(table["value"].isna(), table["reason"], np.where(blank, "DeLong's variance is 0", ""))
    return table


def explain_undefined(metric: str, counts: pd.DataFrame, point: OperatingPoint, labels: Sequence[str]) -> list[str]:
    """For each label, the reason why its metric may be undefined."""
    reasons = []
    for label, row in zip(labels, counts.itertuples(), strict=True):
        negatives = row.images - row.positives  # type: ignore[operator]
        if metric in AT_THRESHOLD and label in point.thresholds.reasons:
            reasons.append(f"no threshold: {point.thresholds.reasons[label]}")
        elif row.images == 0:
            reasons.append("no known target")
        elif metric == "precision":
            reasons.append("nothing decided present")
        elif metric == "specificity":
            reasons.append("no negative")
        else:
            reasons.append("no negative" if row.positives and not negatives else "no positive")
    return reasons
