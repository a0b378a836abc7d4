"""First section of the report: the evaluated model, and the main metrics."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrlit.core.errors import format_count
from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.report.wording import (
    MACRO,
    describe_below_chance,
    describe_worse_calibrated,
    find_row,
    format_metric,
    group_by_reason,
    name_part,
    say_precision_change,
    tabulate,
)
from cxrlit.html.section import Section
from cxrlit.html.tables import Column, Table, make_pairs, span
from cxrlit.html.text import format_number, list_names
from cxrlit.metrics.operating_point import OperatingPoint

MACROS = tuple((metric, MACRO) for metric in ("auroc", "average_precision", "f1"))


def summarise(assessment: Assessment, tables: Mapping[str, pd.DataFrame], headline: str = "") -> Section:
    """Show the evaluated model, the macros of each part, and a row for each label.

    Args:
        assessment: The assessment.
        tables: Its tables.
        headline: First sentence, if any.
    """
    final = assessment.final
    n_replicates = final.replicates["auroc"].n_replicates
    n_labels = int(find_row(final, "auroc")["n_labels"])
    decisions = (
        f"at the fixed thresholds F1 is {format_metric(final, 'f1')} macro, {format_metric(final, 'f1', 'micro')} "
        f"micro and {format_metric(final, 'f1', 'weighted')} weighted"
        if not np.isnan(final.value("f1", "micro"))
        else "without thresholds there are no decisions"
    )
    numbers = (
        f"On {name_part(final.part)}, macro AUROC is {format_metric(final, 'auroc')} and mean average precision "
        f"{format_metric(final, 'average_precision')} over {n_labels} of "
        f"{format_count(len(assessment.labels), 'label')}; {decisions}. "
        f"{format_count(len(final.predictions), 'image')} of "
        f"{format_count(final.predictions['patient'].nunique(), 'patient')}."
    )
    others = "" if assessment.is_external else "patients of another kind, of another hospital, or of "
    interval = (
        "In brackets are 95 % intervals: had other patients of the same kind been evaluated, and an interval been made "
        "from them, 95 of 100 such intervals would hold the true value. They come from "
        f"{format_number(n_replicates)} resamples of the patients, not of the images, since images of one patient are "
        f"alike. They say nothing of {others}errors in the labels."
    )
    return Section(
        "Summary",
        "summary",
        paragraphs=[*filter(None, [headline, numbers, say_precision_change(assessment)]), interval],
        concerns=_list_concerns(assessment),
        tables=[
            make_pairs("What was evaluated", _describe(assessment).items()),
            Table("Over all labels", _tabulate_macros(assessment, tables["eval_summary.csv"]), _list_macros()),
            Table(
                "Each label",
                _tabulate_labels(assessment),
                [
                    Column("label"),
                    *(span(f"auroc_{part}", f"AUROC {name_part(part)}") for part in assessment.parts),
                    span("average_precision", f"average precision {name_part(final.part)}"),
                    Column("threshold"),
                    span("f1", f"F1 {name_part(final.part)}"),
                    Column("positives", f"positives {name_part(final.part)}"),
                    Column("images", "of images"),
                ],
                n_totals=1,
            ),
        ],
        notes=[
            "Images of a label are those of which it is known. Macro is the mean over the labels that have a value. "
            "F1 micro pools the decisions of all labels, F1 weighted weighs each label by its positives."
        ],
    )


def describe_point(point: OperatingPoint) -> str:
    """Say where thresholds and calibration come from."""
    thresholds, calibration = point.thresholds, point.calibration
    if not point.origin:
        return list_names(sorted(set(thresholds.reasons.values())))
    rule = {
        "f1_grid": "best F1 over the grid from 0.05 to 0.95",
        "f1_quantiles": "best F1 over the percentiles of the positives' probabilities",
        "youden": "best sensitivity + specificity (Youden's J)",
        "sensitivity": f"the highest with a sensitivity of at least {thresholds.wanted}",
        "specificity": f"the lowest with a specificity of at least {thresholds.wanted}",
        None: "given",
    }[thresholds.rule]
    probs = {
        "temperature": "probabilities after temperature scaling",
        "platt": "probabilities after Platt scaling",
        None: "model's probabilities",
    }
    origin = {key: text for key, text in point.origin.items() if text}
    where = [f"on {name_part(origin['tuned_on'])}"] if "tuned_on" in origin else []
    if "split_hash" in origin:
        where.append(f"{origin.get('split_name', '')} split {origin['split_hash']}".strip())
    if "checkpoint" in origin:
        where.append(origin["checkpoint"])
    text = f"{rule}, of the {probs[calibration.method if calibration else None]}"
    return f"{text} ({', '.join(where)})" if where else text


def _describe(assessment: Assessment) -> dict[str, str]:
    subject = assessment.subject
    return {
        "model": subject.name,
        "data": subject.data,
        "split": f"{subject.split_name} {subject.split_hash}".strip() or "none",
        "thresholds": describe_point(assessment.point),
        **subject.facts,
    }


def _list_concerns(assessment: Assessment) -> list[str]:
    final, point = assessment.final, assessment.point
    concerns = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in assessment.subject.caveats]
    rows = {label: find_row(final, "auroc", label) for label in assessment.labels}
    undefined = [(label, row["reason"]) for label, row in rows.items() if pd.isna(row["value"])]
    bare = [(label, row["reason"]) for label, row in rows.items() if pd.notna(row["value"]) and pd.isna(row["low"])]
    if undefined:
        concerns.append(f"Without AUROC on {name_part(final.part)}: {'; '.join(group_by_reason(undefined))}.")
    if bare:
        concerns.append(f"Without an interval of AUROC: {'; '.join(group_by_reason(bare))}.")
    missing = [(label, point.thresholds.reasons.get(label, "")) for label in assessment.labels]
    if any(reason for _, reason in missing):
        concerns.append(f"Without a threshold, and so without decisions: {'; '.join(group_by_reason(missing))}.")
    concerns += filter(None, map(describe_below_chance, assessment.parts.values()))
    concerns += [f"{worse}." for worse in map(describe_worse_calibrated, assessment.parts.values()) if worse]
    if len(assessment.dropped):
        concerns.append(f"{format_count(len(assessment.dropped), 'image')} could not be evaluated: see Data.")
    return concerns


def _list_macros() -> list[Column]:
    return [
        Column("split", "part"),
        span("auroc_macro", "AUROC"),
        Column("n_labels", "over labels"),
        span("average_precision_macro", "average precision"),
        span("f1_macro", "F1 macro"),
        Column("n_labels_f1", "over labels"),
        span("f1_micro", "F1 micro"),
        span("f1_weighted", "F1 weighted"),
        Column("n_images", "images"),
        Column("n_patients", "patients"),
    ]


def _tabulate_macros(assessment: Assessment, summary: pd.DataFrame) -> pd.DataFrame:
    """Return ``eval_summary.csv`` with a separate reason for each macro."""
    return summary.drop(columns="reason").assign(
        **{
            f"{metric}_{label}_reason": [
                find_row(measured, metric, label)["reason"] for measured in assessment.parts.values()
            ]
            for metric, label in (*MACROS, ("f1", "micro"), ("f1", "weighted"))
        }
    )


def _tabulate_labels(assessment: Assessment) -> pd.DataFrame:
    """Make a row per label and for the macro: AUROC of every part, other metrics of the final part."""
    final, point, labels = assessment.final, assessment.point, [*assessment.labels, MACRO]
    table = tabulate(final.metrics, ["average_precision", "f1"], labels).set_index("label")
    for part, measured in assessment.parts.items():
        names = {f"auroc{end}": f"auroc_{part}{end}" for end in ("", "_low", "_high", "_reason")}
        table = table.join(tabulate(measured.metrics, ["auroc"], labels).set_index("label").rename(columns=names))
    counts = final.counts.set_index("label")
    return table.assign(
        threshold=pd.Series(point.thresholds.values, index=list(point.labels)),
        threshold_reason=[point.thresholds.reasons.get(label, "") for label in labels],
        positives=counts["positives"].astype("Int64"),
        images=counts["images"].astype("Int64"),
    ).reset_index()
