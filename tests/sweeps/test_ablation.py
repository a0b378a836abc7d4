"""Ablations: their points, what cannot be, their table and picture, and a whole one on noise."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose
from lab import Lab
from made_up import LABELS, draw_table, write_evaluation
from sklearn.metrics import roc_auc_score
from test_sweep import find_sweep, sweep
from tiny import launch_line

from cxrlit.commands import cli
from cxrlit.config.folders import initialize_conf
from cxrlit.core.errors import DataError
from cxrlit.sweeps.ablation import list_ablation
from cxrlit.sweeps.ablation_report import report_ablation
from cxrlit.sweeps.record import Record, write_job_record

LEVERS = {"baseline": [], "focal": ["loss=focal"], "fast": ["lr=1", "max_epochs=2"]}
ABLATION = ("-m", "hydra/sweeper=ablation")


def test_points_are_the_baseline_and_each_lever_alone_for_each_seed() -> None:
    points = list_ablation(["loss=bce", "seed=0,1", "lr=2"], LEVERS)
    assert [point.values for point in points] == [
        {"lever": lever, "seed": seed} for seed in "01" for lever in ("baseline", "focal", "fast")
    ]
    assert [point.overrides for point in points[:3]] == [
        ["loss=bce", "seed=0", "lr=2"],
        ["seed=0", "lr=2", "loss=focal"],
        ["loss=bce", "seed=0", "lr=1", "max_epochs=2"],
    ]
    assert [point.job for point in points] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "hydra.sweeper.change names the levers to try: change=[no_ema]; there are no_ema, no_crop, "),
        (["hydra.sweeper.change=[no_em]"], "change=no_em: there is no such lever; did you mean no_ema?"),
        (["hydra.sweeper.change=[x]"], "change=x: there is no such lever; there are no_ema, no_crop, "),
        (["hydra.sweeper.change=[focal,focal]"], "change names each lever once; baseline is always there"),
        (["hydra.sweeper.change=[focal]", "lr=1e-3,1e-4"], "lr: an ablation repeats over seed and data.fold alone: "),
        (["hydra.sweeper.change=[no_crop]"], "lever no_crop: augment.transforms.crop: there is no such key; "),
        (["hydra.sweeper.change=[no_ema]"], "lever no_ema: callbacks.ema: there is no such key; callbacks=ema is"),
        (["hydra.sweeper.change=[pos_weight]"], "lever pos_weight changes nothing of the baseline: drop it"),
        (["hydra.sweeper.change=[focal]", "evaluate=false"], "evaluate=false: an ablation compares evaluations"),
        (["hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["seed=3"]', "seed=0,1"],
         "lever a sets seed, over which the ablation repeats: drop one of the two"),
        (["hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["lr=1","lr=2"]'], "lever a sets lr twice"),
        (["hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["lr=1,2"]'], "lever a: lr=1,2: it takes one value"),
        (["hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["lr=x"]'], "lever a: lr=x: input should be a"),
        (["hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["trainer.num_workers=1"]', "experiment=smoke"],
         "lever a trains the same phases as the baseline: drop it"),
        (["hydra.sweeper.change=[a,focal]", '+hydra.sweeper.levers.a=["loss=focal"]'],
         "lever focal changes the same as a: drop it"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    plans, outcome = launch_line([*ABLATION, *arguments, f"cache_dir={tmp_path}"])
    assert not plans
    assert outcome.err.startswith(f"error: {said}"), outcome.err
    assert outcome.err.count("\n") == 1


def test_an_average_whose_decay_is_set_can_be_left_out(tmp_path: Path) -> None:
    folders = (f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}")
    scratch = ("experiment=full", "chain=[scratch,full]", "phase=full", "model.weights=none", "callbacks.ema.decay=0.9")
    [plan], outcome = launch_line([*ABLATION, *scratch, "hydra.sweeper.change=[no_ema]", *folders])
    assert outcome.err == ""
    [[_, no_ema]] = plan.batches
    assert "callbacks.ema=null" in no_ema.overrides


def test_lightning_is_quiet_before_the_points_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check builds a trainer, which would introduce itself."""
    lightning, levels = logging.getLogger("pytorch_lightning"), []
    lightning.setLevel(logging.INFO)  # as Lightning leaves it
    monkeypatch.setattr("cxrlit.training.check_recipe.check_recipe", lambda config: levels.append(lightning.level))
    launch_line([*ABLATION, "experiment=smoke", "hydra.sweeper.change=[focal]"])
    assert levels == [logging.WARNING] * 2


def test_the_plan_is_shown_with_what_the_trainings_share(tmp_path: Path) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)  # as Lightning leaves it
    lever = '+hydra.sweeper.levers.slow=["phases.finetune.lr=1e-5"]'
    folders = (f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}")
    arguments = ("experiment=smoke", "seed=0,1", "hydra.sweeper.change=[slow,focal]", lever, *folders)
    [plan], outcome = launch_line([*ABLATION, *arguments])
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    [slow], [focal] = ([line for line in lines if f"│ {name} " in line] for name in ("slow", "focal"))
    assert [cell.strip() for cell in slow.split("│")[1:5]] == [
        "slow", "phases.finetune.lr=1e-5", "finetune", "scratch, frozen",
    ]  # fmt: skip
    assert [cell.strip() for cell in focal.split("│")[1:5]] == ["focal", "loss=focal", "scratch, frozen, finetune", ""]
    assert lines[-1] == "6 trainings: 2 levers and the baseline, each 2 times; 14 phases in all, 14 to train"
    assert (plan.n_jobs, plan.folder.name) == (6, f"ablation-{plan.id}")
    [batch] = plan.batches
    assert all("evaluate=true" in point.overrides for point in batch)
    assert not (tmp_path / "runs").exists()
    assert logging.getLogger("pytorch_lightning").level == logging.WARNING  # no banner for each planned phase


@pytest.mark.slow
def test_the_levers_that_are_there_change_the_recipe_that_they_are_of(tmp_path: Path) -> None:
    with initialize_conf():
        levers = compose("train", ["hydra/sweeper=ablation"], return_hydra_config=True).hydra.sweeper.levers
    tiny = ("data.n_patients=40", "data.image_px=64", "model.weights=imagenet")
    folders = (f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}")
    change = f"hydra.sweeper.change=[{','.join(levers)}]"
    [plan], outcome = launch_line([*ABLATION, "experiment=full", change, *tiny, *folders])
    assert outcome.err == ""
    assert plan.n_jobs == 1 + len(levers)


def test_the_command_is_the_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("cxrlit.commands.train.main", lambda: seen.append(cli.sys.argv))
    monkeypatch.setattr(cli.sys, "argv", ["cxrlit"])
    cli.main(["ablate", "experiment=full", "change=[a]", '+levers.a=["lr=1"]', "data.change=1"])
    assert seen == [[
        "cxrlit train", *ABLATION, "experiment=full", "hydra.sweeper.change=[a]", '+hydra.sweeper.levers.a=["lr=1"]',
        "data.change=1",
    ]]  # fmt: skip


def write_jobs(folder: Path, shifts: Mapping[str, float], seeds: str = "01", missing: str = "") -> None:
    """Evaluated trainings, each lever better by a shift of its scores; the last seed of one lever failed."""
    job = 0
    for seed in seeds:
        for lever, shift in shifts.items():
            job += 1
            values = {"lever": lever, "seed": seed}
            record = Record(job=job, values=values, status="failed", reason="no disk")
            if (lever, seed) != (missing, seeds[-1]):
                for number, part in enumerate(("val", "test")):
                    table = draw_table(number, shift=shift + int(seed) / 10)
                    write_evaluation(folder / f"eval-{job}", table, part=part)
                record = Record(
                    job=job, values=values, status="done", evaluation=str(folder / f"eval-{job}"),
                    seconds=100.0 if lever == "baseline" else 150.0,
                )  # fmt: skip
            write_job_record(folder, record)


def test_the_table_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jobs(tmp_path, {"baseline": 1.0, "worse": 0.5, "better": 2.0}, missing="better")
    report_ablation(tmp_path)
    shown = capsys.readouterr().out
    assert "warning: job 6 (lever=better seed=1) failed and is left out: no disk" in shown
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "ablation.csv", keep_default_na=False, na_values=[""]).set_index(
        ["lever", "part", "metric", "label"]
    )
    assert len(table) == 2 * (2 * 2 * (len(LABELS) + 1) + 1)
    changes = []
    for seed in (0, 1):
        areas = []
        for shift in (1.0, 0.5):
            drawn = draw_table(1, shift=shift + seed / 10)
            areas.append(roc_auc_score(drawn["target_Mass"], drawn["prob_Mass"]))
        changes.append(areas[1] - areas[0])
    row = table.loc[("worse", "test", "auroc", "Mass")]
    assert row["change"] == pytest.approx(sum(changes) / 2, abs=1e-9)
    assert row["n_runs"] == 2
    assert table.loc[("better", "test", "auroc", "Mass"), "n_runs"] == 1
    assert table.loc[("worse", "test", "auroc", "macro"), "high"] < 0
    assert table.loc[("better", "val", "auroc", "macro"), "low"] > 0
    seconds = table.loc[("worse", "train", "seconds", "all")]
    assert (seconds["baseline"], seconds["value"], seconds["change"]) == (100, 150, 50)
    assert "150 s, +50 %" in shown


def test_a_lever_that_was_tested_on_other_images_is_refused(tmp_path: Path) -> None:
    write_jobs(tmp_path, {"baseline": 1.0, "better": 2.0}, seeds="0")
    write_evaluation(tmp_path / "eval-2", draw_table(5))
    with pytest.raises(
        DataError, match=r"predictions_test.csv: other images or labels than those of the first training"
    ):
        report_ablation(tmp_path)


def test_without_a_baseline_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jobs(tmp_path, {"baseline": 1.0, "better": 2.0}, seeds="0", missing="baseline")
    report_ablation(tmp_path)
    assert "No lever has a training that is evaluated beside its baseline" in capsys.readouterr().out
    assert not (tmp_path / "ablation.csv").exists()


@pytest.mark.slow
def test_a_whole_ablation_goes_on_and_ends_the_same(lab: Lab) -> None:
    lever = '+hydra.sweeper.levers.fast=["lr=1e-2"]'
    settings = ("hydra/sweeper=ablation", "hydra.sweeper.change=[fast]", lever, "seed=0,1")
    outcome = sweep(lab, *settings)
    assert (outcome.code, outcome.err) == (0, "")
    folder = find_sweep(lab)
    assert folder.name.startswith("ablation-")
    table = pd.read_csv(folder / "ablation.csv")
    assert set(table["n_runs"]) == {2}
    assert (table.loc[table["metric"] == "seconds", "value"] > 0).all()
    first = {name: (folder / name).read_bytes() for name in ("ablation.csv", "ablation.png")}
    assert len(lab.list_phases()) == 4
    again = sweep(lab, *settings)
    assert again.out.count("Evaluated already: ") == 4
    assert "4 phases in all, 0 to train" in again.out
    assert {name: (folder / name).read_bytes() for name in first} == first
