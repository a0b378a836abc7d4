"""Training in fp16 goes on with the state of its gradient scaler. On a GPU, every precision is exact to resume."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from cutting import STEPS_AN_EPOCH, Cut, assert_same, before_call, cut
from hostile import write_whole
from lab import Lab, pretend_fp16

from cxrlit.model.archive import read_archive
from cxrlit.model.module import CXRModule
from cxrlit.training.resume import list_states

SETTINGS = ("n_unfreeze=10", "phase=finetune", "max_epochs=2")
FP16 = (*SETTINGS, "trainer.precision=fp16", "trainer.accelerator=cpu")


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The scale before each step of a training in fp16. It grows until a step overflows, and is not taken."""
    seen: list[float] = []

    class Scaler(torch.amp.GradScaler):
        def update(self, new_scale: Any = None) -> None:
            seen.append(self.get_scale())
            super().update(new_scale)

    pretend_fp16(monkeypatch, lambda: Scaler("cpu", init_scale=2.0**22, growth_interval=2))
    return seen


def cut_off(lab: Lab, *settings: str) -> Path:
    """The phase folder of a training that was cut off in its second epoch."""
    with pytest.raises(Cut), before_call(CXRModule, "training_step", 2 * STEPS_AN_EPOCH + 4, cut):
        lab.train(*settings, "trainer.checkpoint_every_n_steps=2")
    [folder] = lab.runs.glob("*/finetune-*/")
    return folder


@pytest.mark.slow
def test_the_gradient_scaler_of_fp16_goes_on(
    lab: Lab, tmp_path: Path, cache: Path, tree: Path, weights: Path, scales: list[float]
) -> None:
    """One that began anew would take other steps."""
    whole = Lab(tmp_path / "whole", cache, tree, weights).train_well(*FP16)
    assert any(after < before for before, after in pairwise(scales)), "no step has overflowed"
    begun = cut_off(lab, *FP16)
    assert lab.train_well(*FP16) == begun
    assert_same(begun, whole)
    assert json.loads((begun / "phase.json").read_text())["precision"] == "fp16"


@pytest.mark.slow
def test_without_its_gradient_scaler_a_phase_does_not_go_on(lab: Lab, scales: list[float]) -> None:
    for state in list_states(cut_off(lab, *FP16)):
        content = read_archive(state)
        del content["MixedPrecision"]
        write_whole(state, content)
    outcome = lab.train(*FP16)
    assert outcome.code == 2
    assert "the state of the gradient scaler is another" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_on_a_gpu_a_training_that_was_cut_off_ends_as_the_one_that_was_not(
    lab: Lab, tmp_path: Path, cache: Path, tree: Path, weights: Path, precision: str
) -> None:
    settings = (*SETTINGS, f"trainer.precision={precision}", "trainer.accelerator=cuda")
    whole = Lab(tmp_path / "whole", cache, tree, weights).train_well(*settings)
    begun = cut_off(lab, *settings)
    assert lab.train_well(*settings) == begun
    assert_same(begun, whole)
