"""Sweeps over the folds of a cross-validation: what they leave, and what is left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import Lab, read_times
from made_up import LABELS, draw_table, write_evaluation
from test_sweep import find_sweep, sweep
from tiny import launch_line, run_command

from cxrlit.sweeps.folds import group_folds, report_folds
from cxrlit.sweeps.ranking import rank_records
from cxrlit.sweeps.record import Record, write_job_record

SETTINGS = ({"lr": "0.1"}, {"lr": "0.01"})


def write_jobs(folder: Path, settings: tuple[dict[str, str], ...] = ({},)) -> list[Record]:
    """Three folds of each setting: the second failed, the third was rejected."""
    records = []
    for number, values in enumerate(settings):
        for fold in range(3):
            job, values = 3 * number + fold + 1, {**values, "data.fold": str(fold)}
            record = Record(job=job, values=values, status="failed", reason="no disk")
            if fold != 1:
                table = draw_table(10 * number + fold, n_patients=40)
                names = {column: f"{fold}-" + table[column] for column in ("image", "patient")}
                evaluation = write_evaluation(folder / f"eval-{job}", table.assign(**names))
                record = Record(
                    job=job, values=values, status="done", reason="rejected for frozen-1a" if fold == 2 else "",
                    auroc_macro=0.6 + number / 10 + fold / 100, aurocs=dict.fromkeys(LABELS, 0.7), best_epoch=1,
                    folder="runs/x", evaluation=str(evaluation),
                )  # fmt: skip
            write_job_record(folder, record)
            records.append(record)
    return records


def test_folds_have_no_ranks(tmp_path: Path) -> None:
    ranking = rank_records(write_jobs(tmp_path))
    assert ranking["rank"].isna().all()
    assert ranking["job"].tolist() == [1, 3, 2]


def test_the_table_of_one_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jobs(tmp_path)
    report_folds(tmp_path)
    shown = capsys.readouterr().out
    assert "warning: job 2 (data.fold=1) failed and is left out: no disk" in shown
    assert "job 3 (data.fold=2) was rejected for frozen-1a: it counts with the model of that phase" in shown
    assert "best" not in shown
    table = pd.read_csv(tmp_path / "folds.csv")
    on_validation = table[(table["part"] == "val") & (table["label"] == "macro")].iloc[0]
    assert (on_validation["mean"], on_validation["n_folds"]) == (pytest.approx(0.61), 2)
    assert on_validation["sd"] == pytest.approx(0.02 / 2**0.5)
    pooled = pd.read_csv(tmp_path / "out_of_fold.csv")
    assert sorted(pooled["fold"].unique()) == [0, 2]
    assert len(pooled) == sum(len(pd.read_csv(path)) for path in tmp_path.glob("eval-*/*.csv"))


def write_summary(evaluation: Path, caveat: str) -> None:
    """The summary of an evaluation whose numbers must not stand alone."""
    where = {"split_name": "fold", "split_hash": "0123456789ab", "checkpoint": "frozen-1a/best.ckpt"}
    rows = [{"split": part, **where, "caveat": caveat} for part in ("val", "test")]
    pd.DataFrame(rows).to_csv(evaluation / "eval_summary.csv", index=False)


def test_what_must_stand_beside_the_numbers_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jobs(tmp_path)
    write_summary(tmp_path / "eval-3", "its starting weights saw nih")
    report_folds(tmp_path)
    assert "warning: its starting weights saw nih" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "folds.csv")["caveat"]) == {"its starting weights saw nih"}


def test_other_keys_are_settings_with_a_table_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = write_jobs(tmp_path, SETTINGS)
    assert list(group_folds(records)) == [("0.1",), ("0.01",)]
    report_folds(tmp_path)
    shown = capsys.readouterr().out
    assert shown.index(" 0.01 ") < shown.index(" 0.1 ")  # the higher on validation
    table = pd.read_csv(tmp_path / "folds.csv", dtype={"lr": str})
    assert table.columns[0] == "lr"
    assert table.groupby("lr")["predictions"].unique().map(list).to_dict() == {
        "0.1": ["out_of_fold-1.csv"], "0.01": ["out_of_fold-2.csv"],
    }  # fmt: skip


@pytest.mark.slow
def test_a_sweep_over_folds_evaluates_each_unless_told_otherwise() -> None:
    plans, _ = launch_line(["-m", "data.fold=0,1", "lr=0.1,0.2"])
    assert all("evaluate=true" in point.overrides for point in next(iter(plans[0].batches)))
    plans, _ = launch_line(["-m", "data.fold=0,1", "evaluate=false"])
    assert not any("evaluate=true" in point.overrides for point in next(iter(plans[0].batches)))
    plans, _ = launch_line(["-m", "seed=0,1", "data.fold=1"])
    assert not any("evaluate=true" in point.overrides for point in next(iter(plans[0].batches)))


def test_without_an_evaluation_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in write_jobs(tmp_path):
        write_job_record(tmp_path, record.model_copy(update={"evaluation": None}))
    report_folds(tmp_path)
    assert (
        "No fold was evaluated, so there is no table over the folds: evaluate=true asks for it"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "folds.csv").exists()


@pytest.mark.slow
def test_folds_end_in_one_table_that_other_commands_read(lab: Lab, tmp_path: Path) -> None:
    settings = ("data.fold=0,1", "data.n_folds=2")
    outcome = sweep(lab, *settings)
    assert (outcome.code, outcome.err) == (0, "")
    folder = find_sweep(lab)
    pooled = pd.read_csv(folder / "out_of_fold.csv")
    assert sorted(pooled["image"]) == sorted(path.name for path in lab.tree.rglob("*.png"))
    assert pooled["image"].is_unique
    for fold, part in pooled.groupby("fold"):
        [evaluation] = [
            path.parent for path in lab.runs.glob("*/frozen-*/eval/eval_summary.csv")
            if f"fold {fold} of 2" in path.read_text()
        ]  # fmt: skip
        alone = pd.read_csv(evaluation / "predictions_test.csv")
        for label in ("Mass", "Nodule"):
            np.testing.assert_array_equal(part[f"prob_{label}"], alone[f"calibrated_{label}"])
            np.testing.assert_array_equal(part[f"pred_{label}"], alone[f"pred_{label}"])
    assert "Train the best" not in outcome.out
    assert f"predictions={folder / 'out_of_fold.csv'}" in outcome.out

    before = {path: times for path, times in read_times(lab.runs).items() if "sweeps" not in path.parts}
    again = sweep(lab, *settings, f"hydra.sweep.dir={tmp_path / 'again'}")
    assert again.out.count("Evaluated already: ") == 2
    assert before == {path: times for path, times in read_times(lab.runs).items() if "sweeps" not in path.parts}
    for name in ("folds.csv", "out_of_fold.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    report = run_command("evaluate.py", f"predictions={folder / 'out_of_fold.csv'}", "n_replicates=100", "report=false")
    assert (report.code, report.err) == (0, "")
