"""Report section: reliability of the probabilities before and after calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import RAW
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.report.wording import MACRO, format_metric, group_by_reason, name_part, tabulate
from cxrlit.html.figures import BLUE, FAINT, ORANGE, X_LABEL, make_tile
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span
from cxrlit.html.text import list_names, name_files
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.calibration_error import N_BINS, Reliability, make_reliability

HISTOGRAM_BINS = 40
MOST = 0.99
"""Share of the images that a histogram covers, unless a bin lies beyond."""

HEIGHT, BELOW, LEGEND = 4.1, 0.45, 0.25
"""Heights in inches: the picture without its legend, the histogram below the diagram, the legend."""
MARGIN = 0.025
"""Margin beyond the ends of the axes, as a share of the scale."""


def build_calibration_section(assessment: Assessment) -> Section:
    """Show errors and reliability diagrams of the final part, and the fitted calibration."""
    final, calibration = assessment.final, assessment.point.calibration
    labels = [*final.labels, MACRO]
    fitted = calibration is not None
    names = [f"ece{RAW}", "ece", f"brier{RAW}", "brier"] if fitted else ["ece", "brier"]
    frame = tabulate(final.metrics, names, labels)
    heads = [span("ece", "calibration error", digits=4), span("brier", "Brier score", digits=4)]
    if calibration is not None:
        reasons = [calibration.reasons.get(label, "") for label in final.labels]
        reasons.append(_say_macro(calibration, final.labels))
        frame["slope"], frame["intercept"] = pd.Series(calibration.slope), pd.Series(calibration.intercept)
        frame["slope_reason"] = frame["intercept_reason"] = reasons
        heads = [
            span(f"ece{RAW}", "calibration error before calibration", digits=4),
            span("ece", "after calibration", digits=4),
            span(f"brier{RAW}", "Brier score before calibration", digits=4),
            span("brier", "after calibration", digits=4),
            Column("slope"),
            Column("intercept", signed=True),
        ]
    return Section(
        "Calibration",
        "calibration",
        paragraphs=[_say_method(assessment)],
        tables=[
            Table(
                f"Errors of the probabilities, {name_part(final.part)}", frame, [Column("label"), *heads], n_totals=1
            ),
        ],
        pictures=_draw_all(assessment),
        notes=[
            f"A dot is a {N_BINS}th of the images, from the lowest probabilities up: their mean probability and their "
            "share of positives, with its 95 % Wilson interval, as if images were independent; on the dotted line "
            "the two are equal. Below it, how many images have which probability, on a scale of square roots. The "
            "calibration error is the mean distance from the dotted line, and noise keeps it above 0; the Brier score "
            "is the mean squared distance from the targets.",
        ],
    )


def _say_macro(calibration: Calibration, labels: Sequence[str]) -> str:
    """Say which labels enter the macros uncalibrated; empty if all are calibrated."""
    left = [label for label in labels if label in calibration.reasons]
    return f"{len(labels) - len(left)} of {len(labels)} labels are calibrated, not {list_names(left)}" if left else ""


def _say_method(assessment: Assessment) -> str:
    point = assessment.point
    calibration = point.calibration
    if calibration is None:
        return "The probabilities were not calibrated: they are those of the model."
    where = name_part(point.origin["tuned_on"] or "") if point.origin.get("tuned_on") else "images that are not named"
    method = (
        "Temperature scaling multiplies the logit of each label by one number, the slope"
        if calibration.method == "temperature"
        else "Platt scaling multiplies the logit of each label by a slope and adds an intercept"
    )
    text = (
        f"{method}, fitted on {where}. A slope below 1 moves overconfident probabilities towards the middle. The order "
        "of the images stays, and so does AUROC; thresholds are those of the calibrated probabilities."
    )
    if calibration.reasons:
        text += f" Not calibrated: {'; '.join(group_by_reason(list(calibration.reasons.items())))}."
    return text


def _draw_all(assessment: Assessment) -> list[Picture]:
    final = assessment.final
    raw, targets = split_arrays(final.predictions)
    pictures = []
    for column, (label, name) in enumerate(zip(final.labels, name_files(final.labels), strict=True)):
        known = ~np.isnan(targets[:, column])
        if not known.any():
            continue
        probs: dict[str, NDArray[np.float64]] = {"": final.calibrated[known, column]}
        calibration = assessment.point.calibration
        if calibration is not None and not np.isnan(calibration.slope[column]):
            probs = {"before": raw[known, column].astype(np.float64), "after": probs[""]}
        pictures.append(_draw(f"calibration-{name}", label, probs, targets[known, column], assessment))
    return pictures


def _draw(
    name: str,
    label: str,
    probs: Mapping[str, NDArray[np.float64]],
    targets: NDArray[np.float32],
    assessment: Assessment,
) -> Picture:
    """Draw both diagrams of a label in one picture, with histograms of its probs below."""
    final = assessment.final
    after = format_metric(final, "ece", label)
    legend = LEGEND if len(probs) > 1 else 0
    height = HEIGHT + legend
    figure, axes = make_tile(label, f"calibration error {after}", height, bottom=2 * BELOW + 0.15 + legend)
    box = axes.get_position()
    below = figure.add_axes((box.x0, (BELOW + legend) / height, box.width, BELOW / height))
    colors = dict(zip(probs, (ORANGE, BLUE) if len(probs) > 1 else (BLUE,), strict=True))
    diagrams = {kind: make_reliability(values, targets) for kind, values in probs.items()}
    ends = [np.nanmax([bins.mean_prob, bins.high]) for bins in diagrams.values()]
    top = min(1.0, 1.05 * float(max(*ends, *(np.quantile(values, MOST) for values in probs.values()))))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":")
    for (kind, bins), marker in zip(diagrams.items(), "so" if len(probs) > 1 else "o", strict=True):
        _draw_bins(axes, bins, kind, colors[kind], marker)
    for kind, values in probs.items():
        counts, bounds = np.histogram(values, bins=HISTOGRAM_BINS, range=(0, top))
        below.stairs(np.sqrt(counts), bounds, color=colors[kind], fill=True, alpha=0.25)
        below.stairs(np.sqrt(counts), bounds, color=colors[kind], linewidth=1)
    if len(probs) > 1:
        names = [f"{kind} calibration" for kind in probs]
        figure.legend(axes.get_legend_handles_labels()[0], names, loc="lower center", ncols=2, frameon=False)
    ticks = [tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, top) if 0 <= tick <= top]
    edges = (-MARGIN * top, (1 + MARGIN) * top)  # keeps dots at the ends whole
    axes.set(xlim=edges, ylim=edges, xticks=ticks, yticks=ticks, ylabel="share of positives")
    axes.tick_params(labelbottom=False)
    below.set(xlim=edges, xticks=ticks, yticks=[], xlabel="probability", ylabel="images")
    below.xaxis.set_label_coords(0.5, -X_LABEL / BELOW)
    below.yaxis.set_label_coords(-0.04, 0.5)
    below.spines["left"].set_visible(False)
    alt = f"Reliability of {label} on {name_part(final.part)}: calibration error "
    alt += (
        f"{format_metric(final, f'ece{RAW}', label)} before and {after} after calibration" if len(probs) > 1 else after
    )
    return Picture(figure, name, alt)


def _draw_bins(axes: Axes, bins: Reliability, kind: str, color: str, marker: str) -> None:
    errors = np.stack([bins.observed - bins.low, bins.high - bins.observed]).clip(0)
    axes.errorbar(
        bins.mean_prob,
        bins.observed,
        yerr=errors,
        fmt=f"-{marker}",
        markersize=3.5,
        linewidth=1.1,
        elinewidth=0.9,
        color=color,
        label=kind,
    )
