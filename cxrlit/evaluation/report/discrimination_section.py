"""Report section: how well the probabilities separate present from absent, without thresholds."""

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import Measured
from cxrlit.evaluation.measure.roc_pr_curves import Curves
from cxrlit.evaluation.report.wording import MACRO, find_row, format_metric, group_by_reason, name_part, tabulate
from cxrlit.html.figures import BLUE, FAINT, GREEN, INK, ORANGE, PAPER, make_tile
from cxrlit.html.forest_plot import Series, draw_forest
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span
from cxrlit.html.text import format_number, format_share, name_files

Draw = Callable[[str, str, Measured, Curves], Picture]


def build_discrimination_section(assessment: Assessment, curves: Sequence[Curves], n_replicates: int) -> Section:
    """Show AUROC and average precision of every part, and the curves of the final part.

    Args:
        assessment: The assessment.
        curves: Curves of each label on the final part.
        n_replicates: Resamples for their bands.
    """
    final = assessment.final
    reasons = [(label, curve.reason, len(curve.fpr) > 0) for label, curve in zip(final.labels, curves, strict=True)]
    missing = [(label, reason) for label, reason, is_there in reasons if not is_there]
    bare = [(label, reason) for label, reason, is_there in reasons if is_there]
    notes = [
        *(f"No curve of {text}." for text in group_by_reason(missing)),
        *(f"No band of {text}." for text in group_by_reason(bare)),
    ]
    bands = f"95 % of the curves of {format_number(n_replicates)} resamples of the patients"
    return Section(
        "AUROC and average precision",
        "discrimination",
        paragraphs=[
            "AUROC is the share of pairs of an image with the finding and one without in which the first has the "
            "higher probability: 0.5 is chance. Average precision depends on how frequent the finding is: its share "
            "of the images is chance."
        ],
        pictures=[_draw_forest(assessment)] if len(final.labels) > len(missing) else [],
        tables=[_tabulate(measured) for measured in reversed(list(assessment.parts.values()))],
        notes=[
            "DeLong's interval takes images for independent, as publications print it; where patients have several "
            "images it is too narrow, and the bootstrap's over patients is the one to go by."
        ],
        sections=[
            Section(
                f"ROC curves, {name_part(final.part)}",
                "roc",
                paragraphs=[
                    f"The area below a line is the AUROC. The band holds {bands} at each false positive rate by "
                    "itself, with straight lines between the corners and the higher rate where a curve is vertical. "
                    "The dot is the fixed threshold; the dotted line is chance."
                ],
                pictures=_draw_all(_draw_roc, "roc", final, curves),
                notes=notes,
            ),
            Section(
                f"Precision-recall curves, {name_part(final.part)}",
                "precision-recall",
                paragraphs=[
                    "The area below the steps is the average precision; nothing is interpolated: the precision at a "
                    "recall is that of the next positive that a lower threshold finds. The band holds "
                    f"{bands} at each recall by itself, and begins where 95 % of them have found a positive. The dot "
                    "is the fixed threshold; the dotted line is the share of positives, which is chance."
                ],
                pictures=_draw_all(_draw_precision, "precision-recall", final, curves),
                notes=notes,
            ),
        ],
    )


def _tabulate(measured: Measured) -> Table:
    frame = tabulate(measured.metrics, ["auroc", "auroc_delong", "average_precision"], measured.labels)
    macro = tabulate(measured.metrics, ["auroc", "average_precision"], [MACRO])
    counts = measured.counts.convert_dtypes()
    frame = pd.concat([frame.merge(counts, on="label"), macro], ignore_index=True)
    frame["auroc_delong_low_reason"] = frame["auroc_delong_high_reason"] = frame["auroc_delong_reason"]
    return Table(
        f"AUROC and average precision, {name_part(measured.part)}",
        frame,
        [
            Column("label"),
            span("auroc", "AUROC"),
            Column("auroc_delong_low", "DeLong lower"),
            Column("auroc_delong_high", "upper"),
            span("average_precision", "average precision"),
            Column("positives"),
            Column("images"),
            Column("patients"),
        ],
        n_totals=1,
    )


def _draw_forest(assessment: Assessment) -> Picture:
    """Draw AUROC with its interval for each label and the macro; parts differ in colour and marker."""
    names, series = [*assessment.labels, MACRO], list[Series]()
    # The final part always has the same colour.
    for measured, color in zip(
        reversed(list(assessment.parts.values())), cycle((BLUE, ORANGE, GREEN, FAINT)), strict=False
    ):
        rows = pd.DataFrame([find_row(measured, "auroc", name) for name in names])
        series.insert(0, Series(name_part(measured.part), rows, color))
    figure = draw_forest(names, series, "AUROC", chance=0.5)
    final = assessment.final
    areas = sorted((area, label) for label in final.labels if not np.isnan(area := final.value("auroc", label)))
    spread = f": lowest {areas[0][1]} {areas[0][0]:.3f}, highest {areas[-1][1]} {areas[-1][0]:.3f}" if areas else ""
    return Picture(
        figure,
        "auroc",
        f"AUROC of each label on {name_part(final.part)}{spread}; macro {format_metric(final, 'auroc')}",
        "AUROC and its 95 % interval over patients.",
    )


def _draw_all(draw: Draw, kind: str, measured: Measured, curves: Sequence[Curves]) -> list[Picture]:
    """Draw a picture of each label that has a curve."""
    return [
        draw(f"{kind}-{name}", label, measured, curve)
        for label, name, curve in zip(measured.labels, name_files(measured.labels), curves, strict=True)
        if len(curve.fpr)
    ]


def _draw_roc(name: str, label: str, measured: Measured, curves: Curves) -> Picture:
    area = format_metric(measured, "auroc", label)
    figure, axes = make_tile(label, f"AUROC {area}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":")
    if band := curves.roc_band:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.22, linewidth=0)
    axes.plot(curves.fpr, curves.tpr, color=BLUE)
    recall, specificity = (measured.value(metric, label) for metric in ("recall", "specificity"))
    alt = f"ROC curve of {label} on {name_part(measured.part)}: AUROC {area}"
    if not np.isnan(recall + specificity):
        _mark(axes, 1 - specificity, recall)
        alt += f"; at the threshold it finds {format_share(recall)} at a false positive rate of {1 - specificity:.3f}"
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
    return Picture(figure, name, alt)


def _draw_precision(name: str, label: str, measured: Measured, curves: Curves) -> Picture:
    mean = format_metric(measured, "average_precision", label)
    figure, axes = make_tile(label, f"average precision {mean}")
    [column] = np.flatnonzero(measured.counts["label"] == label)
    share = measured.counts["positives"].iloc[column] / measured.counts["images"].iloc[column]
    axes.axhline(share, color=FAINT, linewidth=1, linestyle=":")
    if band := curves.precision_band:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.22, linewidth=0)
    axes.step(np.append(0, curves.recall), np.append(curves.precision[:1], curves.precision), color=BLUE, where="pre")
    recall, precision = (measured.value(metric, label) for metric in ("recall", "precision"))
    alt = f"Precision-recall curve of {label} on {name_part(measured.part)}: average precision {mean}, "
    alt += f"where chance is {share:.3f}"
    if not np.isnan(recall + precision):
        _mark(axes, recall, precision)
        alt += f"; at the threshold it finds {format_share(recall)} with a precision of {precision:.3f}"
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="recall", ylabel="precision")
    return Picture(figure, name, alt)


def _mark(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=INK, markersize=6, markeredgecolor=PAPER, clip_on=False, zorder=5)
