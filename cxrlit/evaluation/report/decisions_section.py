"""Report section: decisions at the fixed thresholds."""

from collections.abc import Mapping

import pandas as pd

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.measure import AT_THRESHOLD
from cxrlit.evaluation.report.wording import MACRO, format_metric, name_part, tabulate
from cxrlit.html.bar_chart import draw_bars
from cxrlit.html.figures import BLUE, GRAY, ORANGE
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span

KINDS = {"TP": ("found (TP)", BLUE), "FN": ("missed (FN)", GRAY), "FP": ("false alarm (FP)", ORANGE)}


def build_decisions_section(assessment: Assessment, tables: Mapping[str, pd.DataFrame]) -> Section:
    """Show the counts of decisions and their metrics.

    Args:
        assessment: The assessment.
        tables: Its tables.
    """
    final, confusion = assessment.final, tables["confusion_template.csv"]
    part, decided = name_part(final.part), bool(confusion["TP"].notna().any())
    frame = pd.concat(
        [
            tabulate(final.metrics, AT_THRESHOLD, [*final.labels, MACRO]),
            tabulate(final.metrics, ["f1"], ["micro", "weighted"]),
        ],
        ignore_index=True,
    )
    reasons = assessment.point.thresholds.reasons
    heads = [span(name, name.replace("f1", "F1").replace("_", " ")) for name in AT_THRESHOLD]
    return Section(
        "Decisions",
        "decisions",
        paragraphs=[
            "A finding is decided present where its calibrated probability is at or above its threshold, or, which is "
            f"the same, its raw probability at or above threshold_prob. On {part}, F1 is "
            f"{format_metric(final, 'f1')} macro."
            if decided
            else "There are none, since no label has a threshold."
        ],
        pictures=[_draw(confusion, part)] if decided else [],
        tables=[
            Table(
                f"Decisions of each label, {part}",
                confusion.assign(reason=[reasons.get(label, "") for label in confusion["label"]]),
                [
                    Column("label"),
                    Column("threshold"),
                    Column("threshold_prob", "threshold_prob (raw)"),
                    *(Column(kind) for kind in ("TP", "FP", "TN", "FN")),
                ],
            ),
            Table(
                f"Metrics at the thresholds, {part}",
                frame,
                [Column("label"), *heads],
                n_totals=3,
            ),
        ],
        notes=["TP: present and decided so; FP: decided present, and is not; TN: neither; FN: present, and missed."],
    )


def _draw(confusion: pd.DataFrame, part: str) -> Picture:
    """Draw true positives, false positives and false negatives; true negatives, usually the majority, are omitted."""
    rows = confusion[confusion["TP"].notna()]
    figure = draw_bars(
        rows["label"].tolist(),
        {name: rows[kind] for kind, (name, _) in KINDS.items()},
        [color for _, color in KINDS.values()],
        "images",
        stacked=True,
    )
    words = "; ".join(
        f"{row.label} found {row.TP}, missed {row.FN}, false alarms {row.FP}" for row in rows.itertuples()
    )
    return Picture(
        figure,
        "decisions",
        f"Decisions on {part}: {words}",
        "Images with the finding, found or missed, and false alarms; images rightly decided absent are not shown.",
    )
