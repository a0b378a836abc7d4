"""Report sections: internal against external, and before against after recalibration."""

from collections.abc import Sequence

import pandas as pd

from cxrlit.core.errors import format_count
from cxrlit.evaluation.report.wording import MACRO, format_span
from cxrlit.html.figures import drawing
from cxrlit.html.forest_plot import Series, draw_forest
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span

HEADS = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score", "ece": "calibration error"}


def describe_change(changes: pd.DataFrame, data: str) -> str:
    """Say how macro AUROC changes from the internal test to external data; ``changes`` is ``eval_external.csv``."""
    row = _find(changes, "auroc", MACRO)
    over = format_count(row["n_labels"], "label")
    return f"From home to {data}, macro AUROC over the {over} of both changes by {_say(row)}."


def build_external_section(changes: pd.DataFrame, labels: Sequence[str], data: str, shared: str = "") -> Section:
    """Show how the metrics change from the internal test to external data.

    Args:
        changes: ``eval_external.csv``.
        labels: The labels.
        data: Name of the external data.
        shared: How many of its patients are internal test patients, in words, else empty.
    """
    missing = [label for label in labels if pd.isna(_find(changes, "auroc", label)["external"])]
    without = f" Without AUROC on {data}: {', '.join(missing)}." if missing else ""
    return Section(
        f"External validation on {data}",
        "external",
        paragraphs=[
            f"Calibration and thresholds are those fixed at home. {describe_change(changes, data)}{without}",
            *(
                []
                if shared
                else [
                    "Home and external patients are different ones and are resampled apart; where the interval of a "
                    "change does not hold 0, the change is more than chance between these two groups of patients."
                ]
            ),
        ],
        concerns=[f"{shared}, and the changes have no interval."] if shared else [],
        pictures=[_draw(changes, labels, f"Change of AUROC from home to {data}", "external-change")],
        tables=_tabulate(
            changes,
            labels,
            ("home", "external"),
            data,
            ("auroc", "average_precision", "brier", "ece", "f1", "recall", "specificity"),
        ),
    )


def build_recalibration_section(changes: pd.DataFrame, labels: Sequence[str], fitted_on: str) -> Section:
    """Show what refitted calibration and thresholds would change.

    Args:
        changes: ``eval_recalibration.csv``.
        labels: The labels.
        fitted_on: The patients that they were fitted on, in words.
    """
    return Section(
        "Recalibration",
        "recalibration",
        paragraphs=[
            f"Before: calibration and thresholds of home. After: {fitted_on}. Both are measured on the same patients, "
            "none of whom the new fit has seen; AUROC does not change.",
        ],
        tables=_tabulate(
            changes, labels, ("before", "after"), "after recalibration", ("brier", "ece", "f1", "recall", "specificity")
        ),
    )


def _tabulate(
    changes: pd.DataFrame, labels: Sequence[str], names: tuple[str, str], what: str, metrics: Sequence[str]
) -> list[Table]:
    return [
        Table(
            f"{HEADS.get(metric, metric.replace('f1', 'F1'))}, {what}",
            changes[(changes["metric"] == metric) & changes["label"].isin([*labels, MACRO])].reset_index(drop=True),
            [Column("label"), *(span(name) for name in names), span("change", signed=True)],
            n_totals=1,
            folded=number > 0,
        )
        for number, metric in enumerate(metrics)
    ]


def _draw(changes: pd.DataFrame, labels: Sequence[str], title: str, name: str) -> Picture:
    names = [*labels, MACRO]
    rows = pd.DataFrame([_find(changes, "auroc", label) for label in names])
    rows = rows.rename(columns={"change": "value", "change_low": "low", "change_high": "high"})
    with drawing():
        figure = draw_forest(names, [Series("change", rows)], title, zero=True)
    worst = rows.set_index("label")["value"].drop(MACRO).dropna()
    fall = f"; largest fall: {worst.idxmin()}, {worst.min():+.3f}" if len(worst) else ""
    intervals = ", with 95 % intervals" if rows["low"].notna().any() else ""
    return Picture(figure, name, f"{title}: macro {_say(_find(changes, 'auroc', MACRO))}{fall}", f"{title}{intervals}.")


def _find(changes: pd.DataFrame, metric: str, label: str) -> pd.Series:
    return changes[(changes["metric"] == metric) & (changes["label"] == label)].iloc[0]


def _say(row: pd.Series) -> str:
    return format_span(float(row["change"]), float(row["change_low"]), float(row["change_high"]))
