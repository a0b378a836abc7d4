"""Report section: the changes from a baseline, and the answer to the question."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from cxrlit.core.errors import format_count
from cxrlit.evaluation.compare.changes import NAMES, Comparison, Metric
from cxrlit.evaluation.compare.changes_plot import draw_changes
from cxrlit.evaluation.compare.models import ComparisonResult
from cxrlit.evaluation.compare.noninferiority import describe_answer, describe_question
from cxrlit.evaluation.report.wording import format_span
from cxrlit.html.figures import drawing
from cxrlit.html.section import Picture, Section
from cxrlit.html.tables import Column, Table


def build_comparison_section(result: ComparisonResult, concerns: Sequence[str] = ()) -> Section:
    """Show the change of every label, with its tests, and the answer.

    Args:
        result: The comparison; the first of its names is the baseline.
        concerns: Caveats of the comparison.
    """
    return Section(
        f"Change from {result.names[0]}",
        "comparison",
        paragraphs=[
            *([describe_question(result.answer.question, NAMES[result.metric])] if result.answer else []),
            *([f"The answer is {describe_answer(result.answer)}."] if result.answer else []),
            f"Both models on the same {format_count(result.n_images, 'image')} of "
            f"{format_count(result.n_patients, 'patient')}, resampled together. "
            "Where the interval of a change does not hold 0, the change is more than chance; for a look at all labels "
            "at once, where p (Holm) is at most 0.05. DeLong's test takes images for independent, as publications "
            "print it.",
        ],
        concerns=concerns,
        tables=[
            *([_tabulate_criteria(result)] if result.answer else []),
            *(_tabulate(comparison) for comparison in result.comparisons.values()),
        ],
        pictures=[_draw(result, metric) for metric in result.comparisons],
        notes=[f"{NAMES[metric]} is excluded: {reason}." for metric, reason in result.excluded.items()],
    )


def _draw(result: ComparisonResult, metric: Metric) -> Picture:
    comparison, name = result.comparisons[metric], NAMES[metric]
    with drawing():
        figure = draw_changes(comparison, result.question_about(metric))
    labels, macro = comparison.table[:-1], comparison.table.iloc[-1]
    clear = labels.loc[labels["p_holm"] <= 0.05, "label"].tolist()
    found = f"more than chance for {', '.join(clear)}" if clear else "more than chance for no label"
    return Picture(
        figure,
        f"comparison-{metric}",
        f"Change of {name} of each label: macro {format_span(macro['change'], macro['low'], macro['high'])}, {found}",
        f"Change of {name}, with 95 % intervals"
        + ("; dotted: the fall that is tolerated." if result.question_about(metric) else "."),
    )


def _tabulate(comparison: Comparison) -> Table:
    columns = [
        Column("label"), Column("baseline"), Column("candidate"), Column("change", low="low", high="high", signed=True),
        Column("p_holm", "p (Holm)", is_p=True),
    ]  # fmt: skip
    if comparison.metric == "auroc":
        columns.append(Column("p_delong_holm", "p, DeLong (Holm)", is_p=True))
    return Table(f"Change of {NAMES[comparison.metric]}", comparison.table, columns, n_totals=1)


def _tabulate_criteria(result: ComparisonResult) -> Table:
    assert result.answer
    rows = pd.DataFrame([asdict(criterion) for criterion in result.answer.criteria])
    return Table(
        "What was asked",
        rows,
        [Column("label"), Column("asks", "asked"), Column("verdict", "answer"), Column("why")],
        folded=True,
    )
