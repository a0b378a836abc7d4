"""Format numbers of an assessment for sentences and pictures, and tables that sections share."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import RAW, Measured
from cxrlit.evaluation.measure.metric_tables import widen
from cxrlit.html.tables import count_decimals, format_value
from cxrlit.html.text import list_names

MACRO = "macro"


def name_part(part: str) -> str:
    """Name a part for a sentence.

    >>> name_part("val"), name_part("external")
    ('validation', 'external')
    """
    return "validation" if part == "val" else part


def format_span(value: float, low: float, high: float) -> str:
    """Format a number and its interval.

    >>> format_span(0.81234, 0.79, 0.834), format_span(0.5, np.nan, np.nan), format_span(np.nan, np.nan, np.nan)
    ('0.812 [0.790, 0.834]', '0.500', 'undefined')
    """
    if np.isnan(value):
        return "undefined"
    digits = count_decimals(value)
    number, *bounds = (format_value(part, digits) for part in (value, low, high))
    return number if np.isnan(low) else f"{number} [{', '.join(bounds)}]"


def format_metric(measured: Measured, metric: str, label: str = MACRO) -> str:
    """Format a metric and its interval."""
    row = find_row(measured, metric, label)
    return format_span(float(row["value"]), float(row["low"]), float(row["high"]))


def describe_below_chance(measured: Measured) -> str:
    """Name labels, or the macro, whose whole AUROC interval lies below 0.5; empty if there are none."""
    rows = measured.metrics
    found = rows.loc[(rows["metric"] == "auroc") & (rows["high"] < 0.5), "label"]
    said = [f"{label} {format_metric(measured, 'auroc', label)}" for label in found]
    return (
        f"AUROC is below chance on {name_part(measured.part)}, with its whole interval: {list_names(said)}; are scores "
        "or targets turned around?"
        if said
        else ""
    )


def describe_worse_calibrated(measured: Measured) -> str:
    """Name labels whose calibration error is worse after calibration, with intervals that do not overlap; empty if none
    is.
    """
    after, before = (
        measured.metrics[measured.metrics["metric"] == name].set_index("label") for name in ("ece", f"ece{RAW}")
    )
    said = [
        f"{label} {format_metric(measured, 'ece', label)} from {format_metric(measured, f'ece{RAW}', label)}"
        for label in measured.labels
        if after["low"][label] > before["high"][label]
    ]
    return (
        f"Calibration makes the calibration error on {name_part(measured.part)} worse, by more than chance: "
        f"{list_names(said)}; the images that it was fitted on are too few, or others: calibration=none goes without"
        if said
        else ""
    )


def say_precision_change(assessment: Assessment) -> str:
    """Say how far the validation macro AUROC is from the training's in another precision; empty if precision or value
    are the same.
    """
    subject, validation = assessment.subject, assessment.parts.get("val")
    if subject.in_training is None or validation is None:
        return ""
    measured, trained = subject.in_training
    value = validation.value("auroc", MACRO)
    change = value - measured
    if trained == subject.precision or not abs(change) > 0:  # also if it is NaN
        return ""
    return (
        f"Validation macro AUROC is {value:.4f} in {subject.precision}; the training measured "
        f"{measured:.4f} in {trained}, a difference of "
        f"{format_value(change, count_decimals(change, 4), signed=True)}."
    )


def find_row(measured: Measured, metric: str, label: str = MACRO) -> pd.Series:
    """Find the row of a metric and label in ``Measured.metrics``."""
    rows = measured.metrics
    return rows[(rows["metric"] == metric) & (rows["label"] == label)].iloc[0]


def tabulate(metrics: pd.DataFrame, names: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Tabulate some metrics of some labels, a row per label.

    Args:
        metrics: Rows of ``Measured.metrics``, or of one group of patients.
        names: Names of the metrics.
        labels: Labels of the rows.

    Returns:
        ``label``; each metric, its ``_low``, ``_high`` and ``_reason``, why it is blank.
    """
    rows = metrics[metrics["metric"].isin(names) & metrics["label"].isin(labels)]
    reasons = {f"{name}_reason": of.set_index("label")["reason"] for name, of in rows.groupby("metric")}
    wide = pd.concat([widen(rows, names), pd.DataFrame(reasons)], axis=1).reindex(list(labels))
    return wide.rename_axis("label").reset_index()


def group_by_reason(reasons: Sequence[tuple[str, str]]) -> list[str]:
    """Join names with the same reason into one text each.

    >>> group_by_reason([("Mass", "no positive"), ("Nodule", ""), ("Hernia", "no positive")])
    ['Mass and Hernia (no positive)']
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        if reason:
            groups.setdefault(reason, []).append(name)
    return [f"{list_names(names)} ({reason})" for reason, names in groups.items()]
