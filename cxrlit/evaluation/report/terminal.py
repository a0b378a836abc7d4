"""Print an evaluation."""

import numpy as np
import pandas as pd
from rich.table import Table

from cxrlit.core.console import print_table, say
from cxrlit.core.errors import format_count
from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.report.wording import (
    describe_below_chance,
    describe_worse_calibrated,
    find_row,
    format_metric,
    format_span,
    say_precision_change,
)


def print_assessment(assessment: Assessment) -> None:
    """Print the per-label table, and a line for each part."""
    subject, final = assessment.subject, assessment.final
    split = f", {subject.split_name} split {subject.split_hash}" if subject.split_hash else ""
    say(f"Evaluation of {subject.name} on {subject.data}{split}; [95 % intervals over patients]")
    table = Table()
    table.add_column("label", no_wrap=True)
    for part in assessment.parts:
        table.add_column(f"AUROC {part}", justify="right", no_wrap=True)
    for column in (f"AP {final.part}", f"positives {final.part}", "threshold", f"F1 {final.part}"):
        table.add_column(column, justify="right", no_wrap=True)
    counts = final.counts.set_index("label")
    for label, threshold in zip(assessment.labels, assessment.point.thresholds.values.tolist(), strict=True):
        table.add_row(
            label,
            *(format_metric(measured, "auroc", label) for measured in assessment.parts.values()),
            format_metric(final, "average_precision", label),
            f"{counts['positives'][label]} / {counts['images'][label]}",
            format_span(threshold, np.nan, np.nan),
            format_metric(final, "f1", label),
        )
    table.add_section()
    table.add_row(
        "macro",
        *(format_metric(measured, "auroc", "macro") for measured in assessment.parts.values()),
        format_metric(final, "average_precision", "macro"),
        "",
        "",
        format_metric(final, "f1", "macro"),
        style="bold",
    )
    print_table(table)
    for measured in assessment.parts.values():
        rows = find_row(measured, "auroc")
        say(
            f"{measured.part}: macro AUROC {format_metric(measured, 'auroc', 'macro')} and average precision "
            f"{format_metric(measured, 'average_precision', 'macro')} over {format_count(rows['n_labels'], 'label')}, "
            f"F1 macro {format_metric(measured, 'f1', 'macro')} micro {format_metric(measured, 'f1', 'micro')} "
            f"weighted {format_metric(measured, 'f1', 'weighted')}, "
            f"{format_count(len(measured.predictions), 'image')} of "
            f"{format_count(measured.predictions['patient'].nunique(), 'patient')}"
        )
        for concern in filter(None, (describe_below_chance(measured), describe_worse_calibrated(measured))):
            say(f"warning: {concern}", style="yellow")
    for caveat in subject.caveats:
        say(f"warning: {caveat}", style="yellow")
    if change := say_precision_change(assessment):
        say(change)


def print_change(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Print AUROC of each label in two measurements, from ``compare_parts``."""
    shown = Table()
    for column in ("AUROC", *names, "change"):
        shown.add_column(column, justify="left" if column == "AUROC" else "right", no_wrap=True)
    for row in table[table["metric"] == "auroc"].to_dict("records"):
        cells = [format_span(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in (*names, "change")]
        shown.add_row(str(row["label"]), *cells, style="bold" if row["label"] == "macro" else None)
    print_table(shown)
