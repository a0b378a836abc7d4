"""Draw the change of each label from one model to another as a forest plot."""

from matplotlib.figure import Figure

from cxrlit.evaluation.compare.changes import NAMES, Comparison
from cxrlit.evaluation.compare.noninferiority import Question
from cxrlit.html.figures import BLUE, FAINT
from cxrlit.html.forest_plot import Series, draw_forest


def draw_changes(comparison: Comparison, question: Question | None) -> Figure:
    """Draw the change of each label with its own interval and the interval corrected for all labels.

    Args:
        comparison: Comparison of one metric.
        question: The question about this metric, if any.
    """
    rows = comparison.table
    alone, together = (
        rows[["change", f"low{ending}", f"high{ending}"]].set_axis(["value", "low", "high"], axis=1)
        for ending in ("", "_holm")
    )
    must = question.must_improve if question else ()
    return draw_forest(
        [f"{label} *" if label in must else label for label in rows["label"]],
        [Series("95 %", alone, BLUE), Series("all labels at once (Holm)", together, FAINT)],
        f"Change of {NAMES[comparison.metric]}{'; * must improve' if must else ''}",
        zero=True,
        tolerated=-question.margin if question else None,
    )
