"""The metrics of groups of patients, and the gaps between them."""

import pandas as pd

from cxrlit.evaluation.gaps import describe_gaps
from cxrlit.evaluation.groups import UNKNOWN
from cxrlit.evaluation.report.forest import Series, draw_forest
from cxrlit.evaluation.report.section import Column, Picture, Section, Table, span
from cxrlit.evaluation.report.words import MACRO
from cxrlit.evaluation.subgroups import Subgroups
from cxrlit.pages.pictures import BLUE, FAINT, GREEN, ORANGE, RED, drawing

COLORS = (BLUE, ORANGE, GREEN, RED)


def show_subgroups(subgroups: Subgroups, labels: list[str]) -> Section:
    """AUROC, recall and specificity of each group, and which gaps are more than chance.

    Args:
        subgroups: What was measured.
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
                pictures=[_draw(rows, labels, attribute)],
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
            "attribute and metric (Holm), is at most 0.05. A group that is small or unlike in its diseases can have a "
            "gap that is no fault of the model, and a real one that these data cannot show.",
            *describe_gaps(subgroups.gaps),
        ],
        concerns=[f"{len(flagged)} gaps between groups are more than chance."] if len(flagged) else [],
        notes=[f"Not measured by {name}: {reason}." for name, reason in subgroups.left_out.items()],
        sections=sections,
    )


def _tabulate(rows: pd.DataFrame, counts: pd.DataFrame, labels: list[str], attribute: str) -> Table:
    shown = rows[rows["label"].isin([*labels, MACRO])]
    frames = []
    for group, of_group in shown.groupby("group", sort=False):
        wide = of_group[of_group["metric"] == "auroc"][["group", "label", "value", "low", "high", "reason"]]
        wide = wide.rename(columns={"value": "auroc", "low": "auroc_low", "high": "auroc_high"})
        for metric in ("recall", "specificity"):
            part = of_group[of_group["metric"] == metric][["label", "value", "low", "high", "reason"]]
            part = part.rename(
                columns={"value": metric, "low": f"{metric}_low", "high": f"{metric}_high", "reason": f"why_{metric}"}
            )
            wide = wide.merge(part, on="label", how="left")
        reasons = wide[["reason", "why_recall", "why_specificity"]].fillna("")
        wide["reason"] = ["; ".join(dict.fromkeys(filter(None, row))) for row in reasons.to_numpy()]
        of_counts = counts[(counts["attribute"] == attribute) & (counts["group"] == group)]
        frames.append(wide.merge(of_counts[["label", "positives", "images"]], on="label", how="left"))
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
        Column("value_against", "of the others"), Column("gap", low="low", high="high", signed=True),
        Column("p_holm", "p (Holm)"), Column("flagged", "more than chance"),
    ]  # fmt: skip
    return Table(f"Gaps by {attribute}", gaps.reset_index(drop=True), columns, n_heads=4, folded=True)


def _draw(rows: pd.DataFrame, labels: list[str], attribute: str) -> Picture:
    areas = rows[rows["metric"] == "auroc"]
    names, series, said = [*labels, MACRO], [], []
    for number, (group, of_group) in enumerate(areas.groupby("group", sort=False)):
        values = of_group.set_index("label").reindex(names).reset_index()
        color = FAINT if group == UNKNOWN else COLORS[number % len(COLORS)]
        series.append(Series(str(group), values, color))
        said.append(f"{group} {values['value'].iloc[-1]:.3f}")
    with drawing():
        figure = draw_forest(names, series, "AUROC", chance=0.5)
    return Picture(
        figure,
        f"subgroups-{attribute}",
        f"AUROC of each label by {attribute}; macro: {', '.join(said)}",
        f"AUROC by {attribute}, with 95 % intervals over patients.",
    )
