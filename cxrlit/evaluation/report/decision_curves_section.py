"""Report section: net benefit of acting on the probabilities, against acting on all or no images."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import Measured
from cxrlit.evaluation.report.wording import group_by_reason, name_part
from cxrlit.html.figures import BLUE, FAINT, ORANGE, make_tile
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table
from cxrlit.html.text import list_names, name_files

MOST = 0.999
"""Share of the images whose probabilities a picture covers."""


def build_decision_curves_section(assessment: Assessment, tables: Mapping[str, pd.DataFrame]) -> Section:
    """Show the decision curves of the final part.

    Args:
        assessment: The assessment.
        tables: Its tables.
    """
    final, calibration = assessment.final, assessment.point.calibration
    part, curves = name_part(final.part), tables["eval_decision_curves.csv"]
    by_label = {label: curves[curves["label"] == label] for label in final.labels}
    raw = [label for label in final.labels if calibration is None or label in calibration.reasons]
    missing = [(label, rows["reason"].iloc[0]) for label, rows in by_label.items()]
    return Section(
        "Decision curves",
        "decision-curves",
        paragraphs=[
            "Net benefit is the share of true positives less a weighted share of false positives. The threshold sets "
            "the weight, threshold / (1 - threshold): at 10 %, nine false positives cancel one true positive. The "
            "model helps at the thresholds where its net benefit is above that of treating all images as positive and "
            "above 0, that of treating none. Which thresholds make sense is a clinical question."
        ],
        concerns=[f"Not calibrated, so these thresholds are not probabilities: {list_names(raw)}."] if raw else [],
        tables=[
            Table(
                f"Thresholds at which the model is above treat all and treat none, {part}",
                pd.DataFrame([{"label": label, **_find_useful(rows)} for label, rows in by_label.items()]),
                [
                    Column("label"),
                    Column("lowest", "lowest threshold"),
                    Column("highest", "highest threshold"),
                    Column("number", f"of {len(curves) // len(by_label)} thresholds"),
                ],
            )
        ],
        pictures=[
            _draw(f"decision-curve-{name}", label, by_label[label], final, column)
            for column, (label, name) in enumerate(zip(final.labels, name_files(final.labels), strict=True))
            if not by_label[label]["reason"].iloc[0]
        ],
        notes=[
            "Vickers and Elkin (2006), on the calibrated probabilities, at every half percent; "
            "eval_decision_curves.csv has all values. Images with an unknown target are excluded, label by label. The "
            "curves have no interval: a small distance between two of them may be chance.",
            *(f"No curve of {text}." for text in group_by_reason(missing)),
        ],
    )


def _find_useful(rows: pd.DataFrame) -> dict[str, object]:
    """Find the thresholds of one label at which the model is above treat all and treat none."""
    reason = rows["reason"].iloc[0]
    above = rows["threshold"][rows["net_benefit"] > rows["net_benefit_all"].clip(lower=0)]
    return {
        "lowest": above.min(),
        "highest": above.max(),
        "number": None if reason else len(above),
        "reason": reason or ("" if len(above) else "at no threshold"),
    }


def _draw(name: str, label: str, rows: pd.DataFrame, final: Measured, column: int) -> Picture:
    useful = _find_useful(rows)
    where = f"at {useful['number']} of {len(rows)} thresholds"
    figure, axes = make_tile(label, f"above both {where}", bottom=0.68)
    for curve, text, color, style in (
        ("net_benefit_all", "treat all", ORANGE, "--"),
        ("net_benefit_none", "treat none", FAINT, ":"),
        ("net_benefit", "model", BLUE, "-"),
    ):
        axes.plot(rows["threshold"], rows[curve], style, color=color, label=text)
    share = final.counts["positives"].iloc[column] / final.counts["images"].iloc[column]  # the highest net benefit
    right = min(1.0, max(2 * share, float(np.nanquantile(final.calibrated[:, column], MOST))))
    axes.set(xlim=(0, right), ylim=(-0.3 * share, 1.08 * share), xlabel="threshold probability", ylabel="net benefit")
    figure.legend(loc="lower center", ncols=3, frameon=False)
    alt = f"Decision curve of {label} on {name_part(final.part)}: the model's net benefit is above both others {where}"
    if useful["number"]:
        alt += f", from {useful['lowest']:.3f} to {useful['highest']:.3f}"
    return Picture(figure, name, alt)
