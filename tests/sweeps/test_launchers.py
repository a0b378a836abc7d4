"""Jobs in other processes: what launches them, phases that they share, and processes that die."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from lab import Lab
from plugins import LAUNCHER, SWEEPER, add_plugin, write_plugin
from test_sweep import find_sweep, read_ranking, sweep
from tiny import REPO

from cxrlit.config.compose import _say_hydra_fault

SHARED = ("phase=finetune", "n_unfreeze=10,25", "phases.frozen.max_epochs=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Several processes share the cores: a thread each."""


@pytest.mark.slow
def test_a_process_that_dies_is_a_job_that_failed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plugin(tmp_path, "dying_launcher", LAUNCHER, monkeypatch)
    outcome = sweep(lab, "lr=1e-3,1e-2", "hydra.launcher._target_=hydra_plugins.dying_launcher.DyingLauncher")
    assert outcome.code == 2
    assert outcome.err == "error: 1 of 2 jobs failed, job 2 with: job 7 died\n"
    ranking = read_ranking(find_sweep(lab))
    assert ranking["status"].tolist() == ["done", "failed"]
    assert ranking["reason"][1] == "job 7 died"


def test_a_launcher_that_is_not_installed_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = sweep(lab, "lr=1e-3,1e-2", "hydra/launcher=ray")
    assert outcome.err == "error: hydra/launcher=ray needs ray: pip install 'cxrlit[ray]'\n"
    assert not lab.runs.exists()
    fault = Exception(
        "Could not find 'hydra/launcher/submitit_slurm'\n\nAvailable options in 'hydra/launcher':\n\tbasic"
    )
    assert _say_hydra_fault(fault, "train", []).endswith("submitit_slurm needs submitit: pip install 'cxrlit[slurm]'")


def launch(lab: Lab, folder: Path, *arguments: str, plugins: str = "") -> str:
    """A sweep in a process of its own, from an empty folder, which stays empty.

    Args:
        plugins: A folder with ``hydra_plugins/`` in it.
    """
    folder.mkdir()
    settings = [*lab.list_settings(), *lab.list_start()]
    path = os.pathsep.join(filter(None, [plugins, ENVIRONMENT.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(REPO / "train.py"), "-m", *settings, *arguments],
        cwd=folder, env={**ENVIRONMENT, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done.stdout


def check_shared(lab: Lab, said: str) -> None:
    """Both jobs are done, and one of them has trained what came before."""
    ranking = read_ranking(find_sweep(lab))
    assert ranking["status"].tolist() == ["done", "done"]
    assert lab.list_phases() == ["finetune", "finetune", "frozen"]
    assert said.count("frozen: best epoch") == 1
    assert said.count("finetune: best epoch") == 2


@pytest.mark.slow
def test_jobs_that_run_at_the_same_time_by_submitit(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    assert importlib.metadata.version("hydra-submitit-launcher")
    launch(lab, tmp_path / "cwd", *SHARED, "hydra/launcher=submitit_local", "evaluate=true")
    logs = list(find_sweep(lab).glob(".submitit/*/*_log.out"))
    assert len(logs) == 2
    check_shared(lab, "".join(path.read_text() for path in logs))
    assert len(list(lab.runs.glob("*/finetune-*/eval/eval_summary.csv"))) == 2


@pytest.mark.slow
def test_jobs_that_run_at_the_same_time_by_ray(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    said = launch(lab, tmp_path / "cwd", *SHARED, "hydra/launcher=ray", "+hydra.launcher.init.num_cpus=2")
    check_shared(lab, said)


def check_scores(lab: Lab, n_jobs: int) -> None:
    """Another sweeper was given the validation macro AUROC of each of its jobs."""
    scores = [float(score) for score in (find_sweep(lab) / "scores.txt").read_text().split()]
    best = [pd.read_csv(path)["val_auroc_macro"].max() for path in lab.runs.glob("*/frozen-*/metrics.csv")]
    assert len(scores) == n_jobs
    assert sorted(scores) == sorted(best)


@pytest.mark.slow
def test_another_sweeper_is_given_the_validation_of_the_goal(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plugin(tmp_path, "tiny_sweeper", SWEEPER, monkeypatch)
    outcome = sweep(lab, "hydra/sweeper=tiny", "hydra.sweeper.values=[1e-3]")
    assert (outcome.code, outcome.err) == (0, "")
    check_scores(lab, n_jobs=1)
    outcome = sweep(lab, "hydra/sweeper=tiny", "hydra.sweeper.values=[20]")
    assert outcome.code == 2
    hydras, ours = outcome.err.splitlines()
    assert hydras.startswith("Error executing job with overrides: ")
    assert ours == "error: lr=20: input should be less than or equal to 10"
    outcome = sweep(lab, "hydra/sweeper=tiny", "hydra.sweeper.value=[1e-3]")
    assert outcome.err == "error: hydra.sweeper.value: there is no such key; did you mean hydra.sweeper.values?\n"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_another_sweeper_is_found_on_the_path(lab: Lab, tmp_path: Path, launcher: str) -> None:
    if launcher == "submitit_local":
        pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    write_plugin(tmp_path / "mine", "tiny_sweeper", SWEEPER)
    arguments = ("hydra/sweeper=tiny", f"hydra/launcher={launcher}")
    launch(lab, tmp_path / "cwd", *arguments, plugins=str(tmp_path / "mine"))
    check_scores(lab, n_jobs=2)


@pytest.mark.slow
def test_who_waits_goes_on_where_the_holder_of_a_lock_was_killed(lab: Lab, tmp_path: Path) -> None:
    settings = [
        *lab.list_settings(), *lab.list_start(), "phase=finetune",
        "phases.frozen.max_epochs=4", "callbacks.early_stopping=null",
    ]  # fmt: skip

    def start(n_unfreeze: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-u", str(REPO / "train.py"), *settings, f"n_unfreeze={n_unfreeze}"]
        return subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)

    with start(10) as first:
        assert first.stdout
        assert next(line for line in first.stdout if line.startswith("epoch 1/4"))
        first.send_signal(signal.SIGSTOP)  # so that it holds the lock when the second comes
        with start(25) as second:
            assert second.stdout
            assert next(line for line in second.stdout if line.startswith("waiting for another process that trains"))
            first.kill()
            rest, _ = second.communicate(timeout=300)
    assert second.returncode == 0
    assert re.search(r"^Going on from epoch [12], step \d+$", rest, re.MULTILINE)
    [frozen] = lab.runs.glob("*/frozen-*/")
    assert pd.read_csv(frozen / "metrics.csv")["epoch"].tolist() == [1, 2, 3, 4]
    assert lab.list_phases() == ["finetune", "frozen"]
