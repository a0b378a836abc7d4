"""Report section: thresholds, and the curves on which they were chosen."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import Measured
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.report.summary_section import describe_point
from cxrlit.evaluation.report.wording import format_span, name_part
from cxrlit.html.figures import BLUE, FAINT, GRAY, GREEN, INK, ORANGE, PAPER, make_tile
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span
from cxrlit.html.text import name_files
from cxrlit.metrics.confusion import count_decisions, decision_metrics

N_POINTS = 300
MOST = 0.999
"""Share of the images that a picture covers, unless the threshold is beyond."""

LINES = {"f1": (BLUE, "-"), "precision": (ORANGE, "--"), "recall": (GREEN, "-."), "specificity": (GRAY, ":")}


def build_thresholds_section(assessment: Assessment, tables: Mapping[str, pd.DataFrame]) -> Section:
    """Show the table of the thresholds, and the curves on which they were chosen.

    Args:
        assessment: The assessment.
        tables: Its tables.
    """
    table = tables["eval_thresholds.csv"]
    validation = assessment.parts.get("val")
    how = describe_point(assessment.point)
    paragraphs = [f"How they were chosen: {how}." if assessment.point.origin else f"There are none: {how}."]
    if assessment.point.origin and validation is None:
        paragraphs.append("They were fixed elsewhere: the images of this evaluation had no say in them.")
    return Section(
        "Thresholds",
        "thresholds",
        paragraphs=paragraphs,
        tables=[
            Table(
                "Threshold of each label",
                table,
                [
                    Column("label"),
                    span("threshold"),
                    span("f1_val", "F1 on validation"),
                    Column("f1_val_elsewhere", "F1 at other choices"),
                    *((Column("slope"), Column("intercept", signed=True)) if assessment.point.calibration else ()),
                ],
            )
        ],
        pictures=_draw_all(assessment, validation, table) if validation is not None else [],
        notes=[
            "In brackets behind a threshold: where 95 % of the thresholds lie that resamples of the validation "
            "patients choose; in the pictures it is the shaded stretch. “F1 at other choices” is what 97.5 % of them "
            "reach on validation: near F1 itself, another choice would have cost little. F1 on validation is "
            "optimistic, since the threshold was chosen there."
        ],
    )


def _draw_all(assessment: Assessment, validation: Measured, table: pd.DataFrame) -> list[Picture]:
    _, targets = split_arrays(validation.predictions)
    pictures = []
    for column, (label, name) in enumerate(zip(validation.labels, name_files(validation.labels), strict=True)):
        row = table.iloc[column]
        known = ~np.isnan(targets[:, column])
        present = targets[known, column] == 1
        if np.isnan(row["threshold"]) or not present.any() or present.all():
            continue
        probs = validation.calibrated[known, column]
        beyond = 1.25 * float(np.nanmax([row["threshold"], row["threshold_high"]]))
        grid = np.linspace(0, min(max(float(np.quantile(probs, MOST)), beyond), 1.0), N_POINTS)
        counts = count_decisions(probs[:, None], targets[known, column][:, None], grid[None])
        curves = {metric: values[0] for metric, values in decision_metrics(counts).items()}
        pictures.append(_draw(f"threshold-{name}", label, grid, curves, row))
    return pictures


def _draw(name: str, label: str, grid: np.ndarray, curves: Mapping[str, np.ndarray], row: pd.Series) -> Picture:
    threshold, low, high = (float(row[f"threshold{end}"]) for end in ("", "_low", "_high"))
    f1, f1_low, f1_high = (float(row[f"f1_val{end}"]) for end in ("", "_low", "_high"))
    chosen = f"threshold {format_span(threshold, low, high)}"
    figure, axes = make_tile(label, chosen, bottom=0.68)
    if not np.isnan(low):
        axes.axvspan(low, high, color=FAINT, alpha=0.18, linewidth=0)
    axes.axvline(threshold, color=INK, linewidth=0.9)
    for metric, (color, style) in LINES.items():
        width = 1.8 if metric == "f1" else 1.2
        axes.plot(grid, curves[metric], style, color=color, linewidth=width, label=metric.replace("f1", "F1"))
    alt = f"F1, precision, recall and specificity of {label} by threshold on {name_part('val')}: {chosen}"
    if not np.isnan(f1):
        axes.vlines(threshold, f1_low, f1_high, color=INK, linewidth=2.5)
        axes.plot([threshold], [f1], "o", color=INK, markeredgecolor=PAPER, markersize=6, zorder=5)
        alt += f", where F1 is {format_span(f1, f1_low, f1_high)}"
    axes.set(xlim=(0, grid[-1]), ylim=(-0.01, 1.01), xlabel="threshold")
    figure.legend(loc="lower center", ncols=len(LINES), frameon=False, handlelength=1.6, columnspacing=0.9)
    return Picture(figure, name, alt)
