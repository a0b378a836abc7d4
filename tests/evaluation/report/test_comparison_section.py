"""The section on what changed from a baseline: its tables are those of the comparison, its words the answer's."""

from pathlib import Path

import pandas as pd
import pytest
from made_up import LABELS, draw_table, make_point, write_evaluation
from matplotlib.text import Text

from cxrlit.core.errors import DataError
from cxrlit.evaluation.compare.command import compare_with_baseline
from cxrlit.evaluation.compare.models import ComparisonResult, compare_predictions
from cxrlit.evaluation.compare.noninferiority import Question
from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel
from cxrlit.evaluation.measure.measure import measure
from cxrlit.evaluation.report.comparison_section import build_comparison_section, draw_changes
from cxrlit.html.figures import drawing, encode_png
from cxrlit.html.section import Section

BASE, GOOD = draw_table(0, 40), draw_table(0, 40, shift=2.5)
ASK = Question(("Nodule",))


def compare(question: Question | None = ASK, **changes: object) -> ComparisonResult:
    tables = (table.assign(**changes) for table in (BASE, GOOD))
    return compare_predictions(*tables, (make_point(), make_point()), question, names=("old", "new"), n_replicates=60)


def test_the_section_shows_every_number_and_the_answer() -> None:
    result = compare()
    section = build_comparison_section(result, ["beware"])
    assert (section.title, section.anchor, section.concerns) == ("Change from old", "comparison", ["beware"])
    assert section.paragraphs[:2] == [
        "By AUROC: did Nodule improve, was no other label harmed (a fall by more than 0.01) and did the macro rise?",
        "The answer is yes: Nodule improved, no other label was harmed and the macro rose.",
    ]
    criteria, areas, scores = section.tables
    assert criteria.frame["verdict"].tolist() == ["yes"] * 4
    changes = result.tabulate()
    for table, metric in ((areas, "auroc"), (scores, "f1")):
        pd.testing.assert_frame_equal(table.frame, changes[changes["metric"] == metric].reset_index(drop=True))
        names = {name for column in table.columns or () for name in (column.name, column.low, column.high) if name}
        assert names <= set(table.frame.columns)
    assert "< 0.001" in {row[4].number.shown for row in areas.grid.rows if row[4].number}
    assert [picture.name for picture in section.pictures] == ["comparison-auroc", "comparison-f1"]
    assert "more than chance for Mass, Nodule, Pneumonia" in section.pictures[0].alt


def test_without_a_question_and_without_thresholds() -> None:
    section = build_comparison_section(compare(None))
    assert len(section.paragraphs) == 1
    assert [table.caption for table in section.tables] == ["Change of AUROC", "Change of F1"]
    alone = build_comparison_section(compare_predictions(BASE, GOOD, ("none", make_point()), n_replicates=60))
    assert alone.notes == ["F1 is excluded: baseline has no thresholds: none."]
    assert len(alone.pictures) == 1


@pytest.mark.parametrize("question", [None, ASK])
def test_the_picture_has_a_row_for_each_label_also_where_there_is_nothing(question: Question | None) -> None:
    with drawing():
        figure = draw_changes(compare(question, target_Mass=0.0).comparisons["auroc"], question)
        assert encode_png(figure).startswith(b"\x89PNG")
    texts = {text.get_text() for text in figure.findobj(Text)}
    star = " *" if question else ""
    assert {"Mass", f"Nodule{star}", "Pneumonia", "macro", "all labels at once (Holm)"} <= texts


def make_assessment(**changes: str) -> Assessment:
    subject = EvaluatedModel(**{"name": "new-2/best.ckpt", "data": "nih", "split_name": "official", **changes})
    return Assessment(subject, make_point(), None, {"test": measure("test", GOOD, make_point(), 60)}, BASE.iloc[:0])


def test_an_assessment_beside_a_baseline(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "old-1", BASE, checkpoint="old-1/best.ckpt")
    hashed = {"split_hash": "0123456789ab"}
    result, concerns = compare_with_baseline(make_assessment(**hashed), tmp_path / "out", tmp_path / "old-1", 60, 0)
    assert result.names == ("old-1/best.ckpt", "new-2/best.ckpt")
    pd.testing.assert_frame_equal(result.tabulate(), compare().tabulate(), check_exact=True)
    assert len(concerns) == 1  # the thresholds were tuned elsewhere
    with pytest.raises(DataError, match="models are compared on one split"):
        compare_with_baseline(make_assessment(split_hash="ff"), tmp_path / "out", tmp_path / "old-1", 60, 0)
    assert isinstance(build_comparison_section(result, concerns), Section)
    assert result.comparisons["f1"].table["label"].tolist() == [*LABELS, "macro"]
