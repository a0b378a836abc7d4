"""Numbers of an assessment inside sentences and pictures, and the tables that sections share."""

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
    """What a part is called in a sentence.

    >>> name_part("val"), name_part("external")
    ('validation', 'external')
    """
    return "validation" if part == "val" else part


def format_span(value: float, low: float, high: float) -> str:
    """A number and its interval.

    >>> format_span(0.81234, 0.79, 0.834), format_span(0.5, np.nan, np.nan), format_span(np.nan, np.nan, np.nan)
    ('0.812 [0.790, 0.834]', '0.500', 'undefined')
    """
    if np.isnan(value):
        return "undefined"
    digits = count_decimals(value)
    number, *bounds = (format_value(part, digits) for part in (value, low, high))
    return number if np.isnan(low) else f"{number} [{', '.join(bounds)}]"


def format_metric(measured: Measured, metric: str, label: str = MACRO) -> str:
    """A metric and its interval."""
    row = find_row(measured, metric, label)
    return format_span(float(row["value"]), float(row["low"]), float(row["high"]))


def describe_below_chance(measured: Measured) -> str:
    """The labels and the macro whose whole interval of AUROC lies below 0.5; empty where none does."""
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
    """The labels whose calibration error is, interval against interval, worse with calibration than without; empty
    where none is.
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
    """How far the validation macro AUROC is from the one that the training measured in another precision; empty where
    both had the same precision, or found the same.
    """
    subject, validation = assessment.subject, assessment.parts.get("val")
    if subject.in_training is None or validation is None:
        return ""
    measured, trained = subject.in_training
    value = validation.value("auroc", MACRO)
    change = value - measured
    if trained == subject.precision or not abs(change) > 0:  # NaN, too
        return ""
    return (
        f"Validation macro AUROC is {value:.4f} in {subject.precision}; the training measured "
        f"{measured:.4f} in {trained}, a difference of "
        f"{format_value(change, count_decimals(change, 4), signed=True)}."
    )


def find_row(measured: Measured, metric: str, label: str = MACRO) -> pd.Series:
    """The row of ``Measured.metrics``."""
    rows = measured.metrics
    return rows[(rows["metric"] == metric) & (rows["label"] == label)].iloc[0]


def tabulate(metrics: pd.DataFrame, names: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Some metrics of some labels, a row each.

    Args:
        metrics: Rows of ``Measured.metrics``, or of one group of patients.
        names: Of the metrics.
        labels: Of the rows.

    Returns:
        ``label``; each metric, its ``_low``, ``_high`` and ``_reason``, why it is blank.
    """
    rows = metrics[metrics["metric"].isin(names) & metrics["label"].isin(labels)]
    reasons = {f"{name}_reason": of.set_index("label")["reason"] for name, of in rows.groupby("metric")}
    wide = pd.concat([widen(rows, names), pd.DataFrame(reasons)], axis=1).reindex(list(labels))
    return wide.rename_axis("label").reset_index()


def group_by_reason(reasons: Sequence[tuple[str, str]]) -> list[str]:
    """Names of the same reason in one text each.

    >>> group_by_reason([("Mass", "no positive"), ("Nodule", ""), ("Hernia", "no positive")])
    ['Mass and Hernia (no positive)']
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        if reason:
            groups.setdefault(reason, []).append(name)
    return [f"{list_names(names)} ({reason})" for reason, names in groups.items()]
