"""Sweeps from end to end: what they leave, what a failure, a signal and a kill do to them."""

import shlex
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cutting import Cut, ask, before_call, cut
from lab import QUICK, Lab
from omegaconf import OmegaConf
from tiny import Outcome, run_command

from cxrlit.commands.cli import main
from cxrlit.core.labels import LABELS
from cxrlit.sweeps import job
from cxrlit.sweeps.ranking import list_members, rank_records
from cxrlit.sweeps.record import Record
from cxrlit.sweeps.sweep import say_ensemble
from cxrlit.training.callbacks import EpochReport

GRID = ("lr=1e-3,1e-2", "max_epochs=2")


def sweep(lab: Lab, *arguments: str) -> Outcome:
    settings = [*lab.list_settings(), *lab.list_start()]
    return run_command("train.py", "-m", *settings, *arguments)


def read_ranking(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "ranking.csv", dtype={"lr": str})


def find_sweep(lab: Lab) -> Path:
    [folder] = lab.runs.glob("*/sweeps/*/")
    return folder


def read_best(lab: Lab, row: Any) -> pd.Series:
    metrics = pd.read_csv(lab.runs.parent / row["folder"] / "metrics.csv").set_index("epoch")
    return metrics.loc[row["best_epoch"]]


@pytest.mark.slow
def test_a_sweep_is_ranked_by_validation(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    outcome = sweep(lab, *GRID)
    assert (outcome.code, outcome.err) == (0, "")
    folder = find_sweep(lab)
    ranking = read_ranking(folder)
    labels = [f"auroc_{label}" for label in LABELS]
    assert ranking.columns.tolist() == [
        "rank", "job", "lr", "status", "reason", "auroc_macro", *labels, "best_epoch", "folder",
    ]  # fmt: skip
    assert sorted(ranking["lr"]) == ["0.001", "0.01"]
    assert ranking["rank"].tolist() == [1, 2]
    assert ranking["auroc_macro"].is_monotonic_decreasing
    assert set(ranking["status"]) == {"done"}
    for _, row in ranking.iterrows():
        best = read_best(lab, row)
        assert row["auroc_macro"] == best["val_auroc_macro"]
        assert row[labels].tolist() == best[[f"val_{label}" for label in labels]].tolist()
    assert (folder / "ranking.png").read_bytes().startswith(b"\x89PNG")
    assert f"Ranking: {folder / 'ranking.csv'}" in outcome.out
    assert f"lr={ranking['lr'][0]}" in outcome.out.splitlines()[-1]
    assert not list(Path.cwd().iterdir())


def test_a_job_that_fails_is_a_row_and_the_others_go_on(lab: Lab) -> None:
    outcome = sweep(lab, f"data.root={lab.runs / 'nope'},{lab.tree}")
    assert outcome.code == 2
    assert outcome.err.startswith("error: 1 of 2 jobs failed, job 1 with: ")
    assert outcome.err.count("\n") == 1
    ranking = pd.read_csv(find_sweep(lab) / "ranking.csv")
    assert ranking["status"].tolist() == ["done", "failed"]
    assert ranking["job"].tolist() == [2, 1]
    assert "nope: there is no such folder" in ranking["reason"][1]
    assert ranking["rank"].tolist()[0] == 1
    assert ranking.loc[1, ["rank", "auroc_macro", "best_epoch", "folder"]].isna().all()


@pytest.mark.slow
def test_a_signal_stops_the_sweep_and_not_just_the_job(lab: Lab) -> None:
    with before_call(EpochReport, "_write_metrics", 2, ask(signal.SIGTERM)):
        outcome = sweep(lab, *GRID)
    assert outcome.code == 75
    assert "interrupted by SIGTERM: saved at epoch 2" in outcome.err
    ranking = read_ranking(find_sweep(lab))
    assert ranking["job"].tolist() == [1]
    assert ranking["status"].tolist() == ["failed"]
    assert "interrupted by SIGTERM" in ranking["reason"][0]


def test_a_kill_leaves_a_whole_ranking(lab: Lab) -> None:
    with before_call(job, "write_job_record", 2, cut), pytest.raises(Cut):
        sweep(lab, "data.root=/nowhere,/neither")
    assert read_ranking(find_sweep(lab))["job"].tolist() == [1]


@pytest.mark.slow
def test_what_hydra_says_of_a_sweep_is_heard(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    said = (f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra.job.num}", "hydra.output_subdir=said",
            "hydra.sweeper.max_batch_size=1")  # fmt: skip
    for _ in range(2):  # the same command goes on
        assert sweep(lab, "data.root=/nowhere,/neither", *said).code == 2
        assert read_ranking(folder)["job"].tolist() == [1, 2]
        roots = [OmegaConf.load(folder / number / "said" / "config.yaml").data.root for number in "01"]
        assert roots == ["/nowhere", "/neither"]
    outcome = sweep(lab, "data.root=/nowhere,/other", *said)
    assert outcome.err == f"error: hydra.sweep.dir={folder}: it holds another sweep: choose another folder\n"
    assert not lab.runs.exists()


def make_ranking(values: list[dict[str, str]], rejected: int = -1) -> pd.DataFrame:
    return rank_records([
        Record(
            job=job, values=of, status="done", auroc_macro=1 - job / 10, best_epoch=1, folder=f"runs/x/frozen-{job}",
            reason="rejected for frozen-0" if job == rejected else "",
        )
        for job, of in enumerate(values)
    ])  # fmt: skip


def test_members_differ_from_the_best_in_the_seed_alone() -> None:
    values = [{"lr": lr, "seed": seed} for seed in "01" for lr in ("1", "2")]
    assert list_members(make_ranking(values), ["lr", "seed"]) == ["runs/x/frozen-0", "runs/x/frozen-2"]
    assert list_members(make_ranking([{"seed": seed} for seed in "012"], rejected=1), ["seed"]) == [
        "runs/x/frozen-0", "runs/x/frozen-2",
    ]  # fmt: skip
    assert list_members(make_ranking([{"lr": "1"}, {"lr": "2"}]), ["lr"]) == []


def test_an_ensemble_is_said_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    say_ensemble([Path("/a/frozen-1"), Path("/b c/frozen-2")])
    assert capsys.readouterr().out.splitlines() == [
        "Evaluate the mean of the 2 seeds: cxrlit evaluate ckpt='[/a/frozen-1,/b c/frozen-2]'",
        "Then hand it over as one bundle: cxrlit export /a/frozen-1 '/b c/frozen-2' --out bundle",
    ]


@pytest.mark.slow
def test_the_commands_that_a_sweep_over_seeds_ends_with_run(lab: Lab, tmp_path: Path) -> None:
    outcome = sweep(lab, "seed=0,1")
    assert (outcome.code, outcome.err) == (0, "")
    said = [line.partition(": ")[2] for line in outcome.out.splitlines()[-2:]]
    evaluate, export = (shlex.split(line) for line in said)
    assert evaluate[:2] == ["python", "evaluate.py"]
    assert run_command("evaluate.py", evaluate[2], f"cache_dir={lab.cache}", *QUICK).code == 0
    assert export[:2] == ["cxrlit", "export"]
    main(["export", *export[2:-1], str(tmp_path / "bundle"), f"cache_dir={lab.cache}"])
    assert (tmp_path / "bundle" / "model-2.safetensors").is_file()


def test_values_of_a_config_file_are_swept(lab: Lab) -> None:
    outcome = sweep(lab, "hydra.sweeper.params={lr:'1e-3,1e-4',seed:'1,2'}", "seed=3", "data.root=/nowhere")
    assert outcome.code == 2
    ranking = read_ranking(find_sweep(lab))
    assert ranking["lr"].tolist() == ["0.001", "0.0001"]
    assert "seed" not in ranking
