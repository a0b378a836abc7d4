"""All metrics of the images of one part, each with its interval or with the reason why it has none."""

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
"""Ends the name of an error that is measured on the probs before calibration."""

AT_THRESHOLD = ("f1", "precision", "recall", "specificity", "balanced_accuracy")
OVER_LABELS = {"f1_micro": "micro", "f1_weighted": "weighted"}

METRICS = (*RANKING, "auroc_delong", *ERRORS, *(name + RAW for name in ERRORS), *AT_THRESHOLD)
"""The names in the column ``metric`` of ``Measured.metrics``."""


@dataclass(frozen=True)
class Measured:
    """One part, measured.

    Attributes:
        part: val, test, external ...
        predictions: Its predictions table.
        calibrated: (N, L) float64 probs that are held against the thresholds.
        metrics: A row for each metric and label, and for ``macro`` (the mean over the labels where it is defined), of
            F1 also ``micro`` and ``weighted``: ``part``, ``metric``, ``label``, ``value``, ``low`` and ``high`` of the
            95 % interval, ``n_labels`` that a macro is over, and ``reason``, why a cell is blank. ``auroc_delong`` has
            DeLong's interval in place of the bootstrap's.
        counts: A row a label: ``label``, ``positives``, ``images`` with a known target, ``patients`` of those.
        replicates: The resamples behind ``metrics``, for questions that ask for more than one part.
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
        """One value; NaN undefined."""
        rows = self.metrics
        [found] = rows.loc[(rows["metric"] == metric) & (rows["label"] == label), "value"]
        return float(found)


def measure(
    part: str, predictions: pd.DataFrame, point: OperatingPoint, n_replicates: int = N_REPLICATES, seed: int = 0
) -> Measured:
    """Measure a part.

    AUROC and average precision rank by the probs as they are; calibration leaves the order alone, but may tie what
    float64 cannot tell apart. All else is measured on the calibrated probs.

    Args:
        part: Its name.
        predictions: Its predictions table.
        point: Fixed on other images, or on these where they are validation.
        n_replicates: Of the patient bootstrap.
        seed: Of it.
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
    """The counts of ``Measured``, of (N, L) targets and (N,) patients."""
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
    """``TP``, ``FP``, ``TN``, ``FN`` of (N, L) probs at (L,) thresholds, a row a label; blank where it has none."""
    counts = count_decisions(probs, targets, np.nan_to_num(thresholds))
    table = pd.DataFrame(counts._asdict(), dtype="Int64")
    table.loc[np.isnan(thresholds)] = pd.NA
    return table


def tabulate_replicates(
    metric: str, labels: list[str], replicates: Replicates, undefined: Sequence[str], macro: bool = True
) -> pd.DataFrame:
    """Rows of ``Measured.metrics``, without the part, for the labels and their macro.

    Args:
        metric: Its name.
        labels: The L labels.
        replicates: Of the metric.
        undefined: Why the value of each label would be undefined.
        macro: Whether there is a row of the macro.
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
    """Rows of ``Measured.metrics``, without the part; ``undefined`` says of each label why its value would be."""
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
    """AUROC with DeLong's interval; ``areas`` are the rows of AUROC."""
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
    """Why the metric of each label would be undefined, if it is."""
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
