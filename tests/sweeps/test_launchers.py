"""Jobs in other processes: what launches them, phases that they share, and processes that die."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from lab import Lab
from test_sweep import find_sweep, read_ranking, sweep
from tiny import REPO

from cxrlit.config.compose import _say_hydra_fault

SHARED = ("phase=finetune", "n_unfreeze=10,25", "phases.frozen.max_epochs=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Several processes share the cores: a thread each."""


class DyingLauncher(BasicLauncher):
    """The process of its last job dies, after the others have ended."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        super().launch(job_overrides[:-1], initial_job_idx)
        raise RuntimeError("job 7 died")


@pytest.mark.slow
def test_a_process_that_dies_is_a_job_that_failed(lab: Lab) -> None:
    outcome = sweep(lab, "lr=1e-3,1e-2", f"hydra.launcher._target_={__name__}.DyingLauncher")
    assert outcome.code == 2
    assert outcome.err == "error: 1 of 2 jobs failed, job 2 with: job 7 died\n"
    ranking = read_ranking(find_sweep(lab))
    assert ranking["status"].tolist() == ["done", "failed"]
    assert ranking["reason"][1] == "job 7 died"


def test_a_launcher_that_is_not_installed_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = sweep(lab, "lr=1e-3,1e-2", "hydra/launcher=ray")
    assert outcome.err == "error: hydra/launcher: hydra/launcher=ray needs ray: pip install 'cxrlit[ray]'\n"
    assert not lab.runs.exists()
    fault = Exception(
        "Could not find 'hydra/launcher/submitit_slurm'\n\nAvailable options in 'hydra/launcher':\n\tbasic"
    )
    assert _say_hydra_fault(fault, "train", []).endswith("submitit_slurm needs submitit: pip install 'cxrlit[slurm]'")


def launch(lab: Lab, folder: Path, *arguments: str) -> str:
    """A sweep in a process of its own, from an empty folder, which stays empty."""
    folder.mkdir()
    settings = [*lab.list_settings(), f"model.weights={lab.weights}"]
    done = subprocess.run(
        [sys.executable, str(REPO / "train.py"), "-m", *settings, *arguments],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False,
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


@pytest.mark.slow
def test_who_waits_goes_on_where_the_holder_of_a_lock_was_killed(lab: Lab, tmp_path: Path) -> None:
    settings = [
        *lab.list_settings(), f"model.weights={lab.weights}", "phase=finetune",
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
    assert pd.read_csv(frozen / "metrics.csv")["epoch"].tolist() == list(range(4))
    assert lab.list_phases() == ["finetune", "frozen"]
