"""A loss that is no number ends the training at its step; a phase leaves the network no worse than it found it."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cutting import Cut, before_call, cut
from lab import Lab, evaluate
from pytorch_lightning import Callback, LightningModule, Trainer
from tiny import fit, make_module, same_weights, snapshot

from cxrlit.core.errors import DivergenceError
from cxrlit.model.archive import read_archive, write_archive
from cxrlit.model.checkpoint import find_checkpoint, read_checkpoint
from cxrlit.model.module import CXRModule
from cxrlit.training import phase as phase_module
from cxrlit.training.callbacks import FiniteLoss, FreezeBatchNorm, PhasedUnfreezing
from cxrlit.training.resume import list_states


class Poison(Callback):
    """Puts a number into the head before a batch."""

    def __init__(self, value: float, batch: int) -> None:
        self.value, self.batch = value, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            assert isinstance(pl_module, CXRModule)
            torch.nn.init.constant_(pl_module.network.head.bias, self.value)


@pytest.mark.parametrize(("value", "loss"), [(float("nan"), "nan"), (float("inf"), "(inf|nan)")])
def test_a_loss_that_is_no_number_stops_at_its_step_and_names_the_images(value: float, loss: str) -> None:
    module, before = make_module(lr=1e-3), {}
    poison = Poison(value, batch=2)

    class Remember(Callback):
        def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
            before.update(snapshot(module.network))

    frozen = [PhasedUnfreezing(0), FreezeBatchNorm()]
    fault = rf"the loss is {loss} at epoch 1, batch 3; .* these images: row 8, row 9, row 10, row 11$"
    with pytest.raises(DivergenceError, match=fault) as raised:
        fit(module, [*frozen, poison, Remember(), FiniteLoss()])
    assert "\n" not in str(raised.value)
    assert same_weights(before, snapshot(module.network))  # the step was not taken


@pytest.mark.slow
def test_a_training_that_diverges_keeps_what_it_had(lab: Lab) -> None:
    arguments = [
        "phase=scratch", "model.weights=none", "optimizer._target_=torch.optim.SGD", "lr=10", "max_epochs=20",
        "trainer.checkpoint_every_n_steps=1", "phases.scratch.scheduler=null",
        "+optimizer.momentum=1.5", "augment=none",
    ]  # fmt: skip
    outcome = lab.train(*arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert re.match(
        r"error: (the loss is (nan|inf) at epoch \d+, batch \d; .*: (\d{4}\.png, )+\d{4}\.png|"
        r"network\.\S+ holds NaN or infinity after step \d+: .*|lr=10: the training diverged .*)\n",
        outcome.err,
    )
    [folder] = lab.runs.glob("*/scratch-*/")
    newest = list_states(folder)[0]
    for tensor in read_archive(newest)["state_dict"].values():
        assert torch.isfinite(tensor).all()
    assert f"step {int(newest.stem[7:])}" in lab.train(*arguments).out  # and the same command is there again


# ----------------------------------------------------------------------------- require_improvement


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """A frozen phase, at its best epoch well above chance on the few images that validate."""
    folder = Lab(tmp_path_factory.mktemp("start"), cache, tree, weights).train_well(
        "max_epochs=4", "lr=1e-2", "callbacks.early_stopping=null"
    )
    assert json.loads((folder / "phase.json").read_text())["best_score"] > 0.52
    return folder


def turn(start: Path, folder: Path) -> Path:
    """The same checkpoint with a head that says the opposite."""
    content = read_archive(find_checkpoint(start))
    for name in ("network.head.weight", "network.head.bias"):
        content["state_dict"][name].neg_()
    write_archive(folder / "turned.ckpt", content)
    return folder / "turned.ckpt"


@pytest.mark.slow
def test_a_phase_that_ends_below_its_start_hands_on_its_start(lab: Lab, start: Path) -> None:
    arguments = [f"init_from={start}", "phase=highres", "lr=10", "n_unfreeze=50", "max_epochs=2"]
    with pytest.raises(Cut), before_call(phase_module, "write_checkpoint", 2, cut):  # after those weights are there
        lab.train(*arguments)
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    assert "resume at epoch 2" in outcome.out
    [folder] = lab.runs.glob("*/highres-*/")
    facts = json.loads((folder / "phase.json").read_text())
    begun = json.loads((start / "phase.json").read_text())["best_score"]
    assert facts["start_scores"]["auroc_macro"] == facts["best_score"] == begun  # the same size of images
    assert (facts["improved"], facts["best_epoch"]) == (False, 0)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2]
    assert metrics["val_auroc_macro"].max() < begun
    assert f"worse than {begun:.4f} at its start: it hands on the weights that it started from" in outcome.out
    before, best, last = (read_checkpoint(path) for path in (start, folder, folder / "last.ckpt"))
    assert same_weights(before.weights, best.weights)
    assert not same_weights(before.weights, last.weights)
    assert (best.metadata.epoch, best.metadata.phase, best.metadata.history) == (0, "highres", [start.name])
    # and what comes next works with it
    done = lab.train(*arguments)
    assert done.code == 0
    assert "Trained: " in done.out
    evaluate(folder, folder / "eval")
    summary = pd.read_csv(folder / "eval" / "eval_summary.csv").set_index("split")
    assert summary.loc["val", "auroc_macro"] == pytest.approx(begun, abs=1e-12)


@pytest.mark.slow
def test_a_phase_that_ends_no_lower_hands_on_what_it_trained(lab: Lab, start: Path, tmp_path: Path) -> None:
    turned = turn(start, tmp_path)
    arguments = [f"init_from={turned}", "phase=highres", "lr=1e-9", "n_unfreeze=0"]
    with pytest.raises(Cut), before_call(CXRModule, "training_step", 2, cut):
        lab.train(*arguments, "trainer.checkpoint_every_n_steps=1")
    [folder] = lab.runs.glob("*/highres-*/")
    begun = json.loads((folder / "phase.json").read_text())["start_scores"]["auroc_macro"]
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    facts = json.loads((folder / "phase.json").read_text())
    assert begun < 0.48
    assert facts["start_scores"]["auroc_macro"] == begun
    assert facts["best_score"] == begun  # so small a step puts no two images in another order
    assert (facts["improved"], facts["best_epoch"]) == (True, 1)
    assert "it hands on" not in outcome.out
    assert not same_weights(read_checkpoint(turned).weights, read_checkpoint(folder).weights)


@pytest.mark.slow
def test_elsewhere_it_is_off_and_can_be_had(lab: Lab, start: Path) -> None:
    arguments = [f"init_from={start}", "phase=finetune", "lr=10", "n_unfreeze=50"]
    plain = json.loads((lab.train_well(*arguments) / "phase.json").read_text())
    assert plain["best_epoch"] == 1
    assert "improved" not in plain
    folder = lab.train_well(*arguments, "phases.finetune.require_improvement=true")
    assert json.loads((folder / "phase.json").read_text())["best_epoch"] == 0
    assert same_weights(read_checkpoint(start).weights, read_checkpoint(folder).weights)
