"""The gate of int8: how much it may change predictions on validation images to be included in a bundle."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from cxrlit.core.errors import format_count
from cxrlit.handoff.int8_record import Int8Label, Int8Record
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.operating_point import OperatingPoint

MIN_CASES = 50
"""Fewest positives, and fewest negatives, of a label whose AUROC is judged."""
MAX_MEAN_CHANGE = 0.005
"""Largest mean absolute change of the probability of a label with fewer."""
MIN_AGREEMENT = 0.99
"""Smallest share of equal decisions at the fixed thresholds."""


def compare_labels(
    exact: NDArray[np.float32], quantised: NDArray[np.float32], targets: NDArray[np.float32], point: OperatingPoint
) -> list[Int8Label]:
    """Compare int8 with fp32, label by label.

    Args:
        exact: (N, L) probs in fp32.
        quantised: (N, L) probs in int8.
        targets: (N, L) 1 present, 0 absent, NaN unknown.
        point: Calibration and thresholds of the L labels.
    """
    agrees = (point.calibrate(exact) >= point.thresholds.values) == (
        point.calibrate(quantised) >= point.thresholds.values
    )
    labels = []
    for column, label in enumerate(point.labels):
        known = targets[:, column]
        areas = [auroc(probs[:, column], known) for probs in (exact, quantised)]
        auroc_fp32, auroc_int8 = (None if np.isnan(area) else area for area in areas)
        has_threshold = not np.isnan(point.thresholds.values[column])
        labels.append(
            Int8Label(
                label=label,
                positives=int((known == 1).sum()),
                negatives=int((known == 0).sum()),
                auroc_fp32=auroc_fp32,
                auroc_int8=auroc_int8,
                mean_change=float(np.abs(exact[:, column].astype(np.float64) - quantised[:, column]).mean()),
                agreement=float(agrees[:, column].mean()) if has_threshold else None,
            )
        )
    return labels


def average_agreement(labels: Sequence[Int8Label]) -> float | None:
    """Compute the share of equal decisions over all labels with a threshold; None without one."""
    shares = [label.agreement for label in labels if label.agreement is not None]
    return float(np.mean(shares)) if shares else None


def is_judged(label: Int8Label) -> bool:
    """Whether a label has enough positives and negatives for its AUROC to be judged."""
    return min(label.positives, label.negatives) >= MIN_CASES


def find_failure(record: Int8Record) -> str:
    """Find the first figure that excludes int8 from a bundle, in words; empty if it passes."""
    for label in record.labels:
        loss = label.auroc_loss
        if is_judged(label):
            if loss is not None and loss > record.max_auroc_loss:
                return f"{label.label} loses {loss:.4f} of AUROC (limit {record.max_auroc_loss:g})"
        elif label.mean_change > MAX_MEAN_CHANGE:
            return (
                f"{label.label} has too few cases to judge its AUROC, and its probability changes by "
                f"{label.mean_change:.4f} on average (limit {MAX_MEAN_CHANGE:g})"
            )
    if record.agreement is not None and record.agreement < MIN_AGREEMENT:
        lowest, label_name = min((one.agreement, one.label) for one in record.labels if one.agreement is not None)
        return (
            f"{record.agreement:.1%} of the decisions agree (limit {MIN_AGREEMENT:.0%}), fewest those of {label_name}: "
            f"{lowest:.1%}"
        )
    if not record.is_forced and not any(map(is_judged, record.labels)):
        return (
            f"no label has {MIN_CASES} positives and {MIN_CASES} negatives among the "
            f"{format_count(record.n_val, 'validation image')} to judge its AUROC by; --force takes it all the same"
        )
    return ""


def describe_int8(record: Int8Record) -> str:
    """Write the figures of int8 as a sentence."""
    losses = [label.auroc_loss for label in record.labels if is_judged(label) and label.auroc_loss is not None]
    judged = (
        f"the largest loss of AUROC is {max(losses):.4f} over {format_count(len(losses), 'label')} "
        f"(limit {record.max_auroc_loss:g})"
        if losses
        else f"no label has {MIN_CASES} positives and {MIN_CASES} negatives: its AUROC was not judged (--force)"
    )
    agree = "" if record.agreement is None else f"; {record.agreement:.2%} of the decisions agree"
    return f"int8 on {format_count(record.n_val, 'validation image')}: {judged}{agree}"


def show_labels(record: Int8Record) -> list[list[str]]:
    """Make a row for each label: label, positives, AUROC in fp32 and int8, loss, mean change, agreement, verdict."""
    rows = []
    for label in record.labels:
        numbers = (label.auroc_fp32, label.auroc_int8, label.auroc_loss, label.mean_change)
        rows.append(
            [
                label.label,
                f"{label.positives:,}",
                *("" if number is None else f"{number:.4f}" for number in numbers),
                "" if label.agreement is None else f"{label.agreement:.1%}",
                "" if is_judged(label) else "too few to judge",
            ]
        )
    return rows


def make_table(record: Int8Record) -> Table:
    """Make the table of the figures for the screen."""
    table = Table("label", "positives", "fp32", "int8", "loss", "change", "agree", "")
    for row in show_labels(record):
        table.add_row(*row)
    return table
