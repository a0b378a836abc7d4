"""Report section: metrics of groups of patients, and gaps between groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlit.core.errors import format_count
from cxrlit.evaluation.report.wording import MACRO, format_span, tabulate
from cxrlit.evaluation.subgroups.gaps import describe_gaps
from cxrlit.evaluation.subgroups.groups import UNKNOWN
from cxrlit.evaluation.subgroups.subgroup_metrics import Subgroups
from cxrlit.html.figures import BLUE, FAINT, GREEN, ORANGE, RED, drawing
from cxrlit.html.forest_plot import Series, draw_forest
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table, span
from cxrlit.html.text import list_names

COLORS = (BLUE, ORANGE, GREEN, RED)


def build_subgroups_section(subgroups: Subgroups, labels: list[str]) -> Section:
    """Show AUROC, recall and specificity of each group, and which gaps are significant.

    Args:
        subgroups: The measurements.
        labels: The labels.
    """
    flagged = subgroups.gaps[subgroups.gaps["flagged"].astype(bool)]
    sections = []
    for attribute in dict.fromkeys(subgroups.metrics["attribute"]):
        rows = subgroups.metrics[subgroups.metrics["attribute"] == attribute]
        sections.append(
            Section(
                f"By {attribute}",
                f"by-{attribute}",
                pictures=[_draw(rows, labels, attribute)] if _has_area(rows) else [],
                tables=[
                    _tabulate(rows, subgroups.counts, labels, attribute),
                    _tabulate_gaps(subgroups.gaps[subgroups.gaps["attribute"] == attribute], attribute),
                ],
            )
        )
    return Section(
        "Subgroups",
        "subgroups",
        paragraphs=[
            "The same model at the same thresholds, for groups of the patients. A gap is what a group has above or "
            "below the other groups together; it is called more than chance where its p, corrected for all gaps of the "
            "attribute and metric (Holm), is at most 0.05; its interval is corrected likewise. A group that is small "
            "or unlike in its diseases can have a gap that is no fault of the model, and a real one that these data "
            "cannot show.",
            *describe_gaps(subgroups.gaps),
        ],
        concerns=[f"{format_count(len(flagged), 'gap between groups is', 'gaps between groups are')} more than chance."]
        if len(flagged)
        else [],
        notes=[f"Not measured by {name}: {reason}." for name, reason in subgroups.excluded.items()],
        sections=sections,
    )


def _tabulate(rows: pd.DataFrame, counts: pd.DataFrame, labels: list[str], attribute: str) -> Table:
    frames, metrics = [], ("auroc", "recall", "specificity")
    for group, of_group in rows.groupby("group", sort=False):
        n_labels = of_group[of_group["label"] == MACRO].set_index("metric")["n_labels"]
        of_counts = counts[(counts["attribute"] == attribute) & (counts["group"] == group)]
        table = tabulate(of_group, metrics, [*labels, MACRO]).assign(group=group)
        table = table.merge(of_counts[["label", "positives", "images"]], on="label", how="left")
        table["label"] = table["label"].replace(MACRO, _name_macro([n_labels[metric] for metric in metrics]))
        frames.append(table)
    frame = pd.concat(frames, ignore_index=True).astype({"positives": "Int64", "images": "Int64"})
    columns = [Column("group"), Column("label"), span("auroc", "AUROC"), span("recall"), span("specificity")]
    return Table(
        f"Metrics by {attribute}",
        frame,
        [*columns, Column("positives"), Column("images")],
        n_heads=2,
        folded=True,
    )


def _tabulate_gaps(gaps: pd.DataFrame, attribute: str) -> Table:
    columns = [
        Column("metric"), Column("group"), Column("against"), Column("label"), Column("value"),
        Column("value_against", "of the others"),
        Column("gap", "gap (Holm's interval)", low="low_holm", high="high_holm", signed=True),
        Column("p_holm", "p (Holm)", is_p=True), Column("flagged", "more than chance"),
    ]  # fmt: skip
    return Table(f"Gaps by {attribute}", gaps.reset_index(drop=True), columns, n_heads=4, folded=True)


def _has_area(rows: pd.DataFrame) -> bool:
    return bool(rows.loc[rows["metric"] == "auroc", "value"].notna().any())


def _draw(rows: pd.DataFrame, labels: list[str], attribute: str) -> Picture:
    areas = rows[rows["metric"] == "auroc"]
    names, series, said, n_labels = [*labels, MACRO], [], [], []
    for number, (group, of_group) in enumerate(areas.groupby("group", sort=False)):
        values = of_group.set_index("label").reindex(names).reset_index()
        color = FAINT if group == UNKNOWN else COLORS[number % len(COLORS)]
        series.append(Series(str(group), values, color))
        n_labels.append(values["n_labels"].iloc[-1])
        value = format_span(values["value"].iloc[-1], np.nan, np.nan)
        said.append(f"{group} {value} over {format_count(n_labels[-1], 'label')}")
    with drawing():
        figure = draw_forest([*labels, _name_macro(n_labels)], series, "AUROC", chance=0.5)
    return Picture(
        figure,
        f"subgroups-{attribute}",
        f"AUROC of each label by {attribute}; macro: {', '.join(said)}",
        f"AUROC by {attribute}, with 95 % intervals over patients; macro: {', '.join(said)}.",
    )


def _name_macro(n_labels: Sequence[int]) -> str:
    """Name the row of several macros by their numbers of labels, stated once if equal.

    >>> _name_macro([1, 1]), _name_macro([8, 7, 8])
    ('macro over 1 label', 'macro over 8, 7 and 8 labels')
    """
    if len(set(n_labels)) == 1:
        return f"{MACRO} over {format_count(n_labels[0], 'label')}"
    return f"{MACRO} over {list_names([str(number) for number in n_labels])} labels"
