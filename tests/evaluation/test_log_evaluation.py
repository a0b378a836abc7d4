"""What of an evaluation is sent to a logger."""

from pathlib import Path

import pytest
from tiny import launch_line

from cxrlit.core.files import write_json
from cxrlit.evaluation.log_evaluation import find_loggers, gather, read_numbers

WRITTEN = (
    "eval_summary.csv", "eval_localisation.csv", "confusion_template.csv", "thresholds.json", "dropped.csv",
    "predictions_test.csv", "report.html", "claim.md", "figures/roc.png", "heatmaps/Mass-true-positive-1.png",
)  # fmt: skip


def write_out(out: Path) -> Path:
    for name in WRITTEN:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    return out


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_that_is_of_single_patients_is_sent_unless_it_is_asked_for(tmp_path: Path) -> None:
    out, shared = write_out(tmp_path / "eval"), tmp_path / "shared.html"
    shared.write_text("without images")
    files = gather(out, shared, tmp_path / "sent" / "eval", with_patients=False)
    kept = {name for name in WRITTEN if not name.startswith(("predictions", "dropped", "heatmaps"))}
    assert list_files(files) == kept
    assert (files / "report.html").read_text() == "without images"
    files = gather(out, shared, tmp_path / "asked" / "eval", with_patients=True)
    assert list_files(files) == kept | {"heatmaps/Mass-true-positive-1.png"}
    assert (files / "report.html").read_text() == "report.html"


def test_without_a_report_there_is_none_to_send(tmp_path: Path) -> None:
    out = write_out(tmp_path / "eval")
    (out / "report.html").unlink()
    files = gather(out, tmp_path / "shared.html", tmp_path / "sent", with_patients=False)
    assert "report.html" not in list_files(files)


def test_runs_that_no_logger_of_the_command_has_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine", "wandb"):
        write_json(tmp_path / "loggers" / f"{name}.json", {"name": "a", "version": "b"})
    [[config], _] = launch_line(["ckpt=a"], "evaluate")
    assert find_loggers(tmp_path, config) == ["wandb"]
    assert capsys.readouterr().out == ("The phase was logged to mine, the evaluation is not: there is no logger.mine\n")
    [[config], _] = launch_line(["ckpt=a", "logger=none"], "evaluate")
    assert find_loggers(tmp_path, config) == []
    assert capsys.readouterr().out == ""


def test_numbers_that_are_undefined_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "eval_summary.csv").write_text(
        "split,auroc_macro,n_labels,f1_macro,checkpoint,auroc_macro_low\nval,0.5,8,,a/best.ckpt,0.4\ntest,0.25,7,0.5,b,0\n"
    )
    name = tmp_path.name
    assert read_numbers(tmp_path) == {
        f"{name}/val/auroc_macro": 0.5, f"{name}/val/n_labels": 8.0,
        f"{name}/test/auroc_macro": 0.25, f"{name}/test/n_labels": 7.0, f"{name}/test/f1_macro": 0.5,
    }  # fmt: skip
