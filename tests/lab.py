"""Trains on a tree of noise, in seconds, with the command that a user has."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.trainer.connectors.accelerator_connector import _AcceleratorConnector as AcceleratorConnector
from tiny import Outcome, run_command

import cxrlit.evaluation.evaluate  # noqa: F401 - imported while choose_device is patched, it would keep the patch
from cxrlit.core import instruction_sets
from cxrlit.training import hardware

QUICK = ("trainer.num_workers=0", "n_replicates=100", "report=false", "localise=none")
"""An evaluation of the numbers alone."""


def evaluate(folder: Path, out: Path, *arguments: str) -> Outcome:
    """Evaluate a phase well, in seconds."""
    outcome = run_command("evaluate.py", f"ckpt={folder}", f"out={out}", *QUICK, *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome


def pretend_bf16(patch: pytest.MonkeyPatch, is_supported: bool) -> None:
    """Let this CPU be one with bf16 or without; without, torch computes the same more slowly."""
    patch.setattr(instruction_sets, "find_instruction_sets", lambda: ("AVX512-BF16",) if is_supported else ())


def pretend_fp16(patch: pytest.MonkeyPatch, scaler: Callable[[], torch.amp.GradScaler]) -> None:
    """Let this CPU train in fp16, as GPUs do: torch can, and Lightning would take bf16."""
    patch.setattr(hardware, "choose_device", lambda accelerator: "cuda")
    patch.setattr(
        AcceleratorConnector,
        "_check_and_init_precision",
        lambda self: MixedPrecision("16-mixed", "cpu", scaler()),
    )


class Lab:
    """Trains on a tree of noise into a folder of its own; in fp32, since ``auto`` is another precision elsewhere."""

    def __init__(self, folder: Path, cache: Path, tree: Path, weights: Path) -> None:
        self.runs, self.cache, self.tree, self.weights = folder / "runs", cache, tree, weights

    def train(self, *arguments: str) -> Outcome:
        chosen = " ".join(arguments)
        start = () if "init_from" in chosen or "model.weights" in chosen else self.list_start()
        return run_command("train.py", *self.list_settings(), *start, *arguments)

    def list_start(self) -> tuple[str, str]:
        return f"model.weights={self.weights}", "model.weights_saw=[]"

    def list_settings(self) -> list[str]:
        phases = [f"phases.{name}.{setting}" for name in ("scratch", "frozen", "finetune", "highres")
                  for setting in ("img_size=32", "batch_size=8", "max_epochs=1")]  # fmt: skip
        folders = [f"runs_dir={self.runs}", f"cache_dir={self.cache}", f"data.root={self.tree}"]
        machine = ["trainer.num_workers=0", "trainer.precision=fp32"]
        return ["data=nih", "phase=frozen", *machine, "logger=none", *folders, *phases]

    def train_well(self, *arguments: str) -> Path:
        """Returns the folder of the goal."""
        outcome = self.train(*arguments)
        assert outcome.code == 0, outcome.err
        assert outcome.err == ""
        trained = re.search(r"^Trained: (\S+)", outcome.out, re.MULTILINE)
        assert trained
        return Path(trained[1])

    def list_phases(self) -> list[str]:
        """Names of all phase folders, without their ids."""
        return sorted(path.name.rpartition("-")[0] for path in self.runs.glob("*/*") if (path / "phase.json").is_file())


def read_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}
