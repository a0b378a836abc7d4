"""What an earlier evaluation left in the folder of a new one."""

from pathlib import Path

from cxrlit.evaluation.measure.assessment import clear_evaluation


def test_an_evaluation_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    mine = (
        "figures/a.png",
        "eval_summary.csv",
        "eval_external.csv",
        "report.html",
        "claim.md",
        ".predictions_val-0123abcd.csv",
    )
    for name in (*mine, "notes.csv"):
        (tmp_path / name).write_text("old")
    clear_evaluation(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.csv"]


def test_of_an_evaluation_that_was_killed_what_was_under_way_is_cleared(tmp_path: Path) -> None:
    for name in (".eval_summary-0123abcd.csv", "predictions_val.csv", "dropped.csv", ".mine-0123abcd.csv"):
        (tmp_path / name).write_text("old")
    clear_evaluation(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".mine-0123abcd.csv",
        "dropped.csv",
        "predictions_val.csv",
    ]
    clear_evaluation(tmp_path / "not there")
