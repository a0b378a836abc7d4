"""A loss that is no number ends the training at its step; a phase leaves the network no worse than it found it."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cutting import Cut, before_call, cut
from lab import QUICK, Lab
from pytorch_lightning import Callback, LightningModule, Trainer
from tiny import fit, make_module, run_command, same_weights, snapshot

from cxrlit.core.errors import DivergenceError
from cxrlit.model.archive import read_archive, write_archive
from cxrlit.model.checkpoint import find_checkpoint, read_checkpoint
from cxrlit.model.module import CXRModule
from cxrlit.training import improvement
from cxrlit.training.callbacks import FiniteLoss, FreezeBatchNorm, PhasedUnfreezing
from cxrlit.training.improvement import describe_change, find_baseline
from cxrlit.training.phase_folder import REJECTED
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
    content["cxrlit"]["scores"]["auroc_macro"] = content["cxrlit"]["score"] = 0.2
    write_archive(folder / "turned.ckpt", content)
    return folder / "turned.ckpt"


@pytest.mark.slow
def test_a_phase_that_is_no_better_than_the_one_before_hands_that_on(lab: Lab, start: Path) -> None:
    arguments = [f"init_from={start}", "phase=highres", "img_size=64", "lr=10", "n_unfreeze=0", "max_epochs=2"]
    with pytest.raises(Cut), before_call(improvement, "say_how_to_compare", 1, cut):  # after it was rejected
        lab.train(*arguments)
    [folder] = lab.runs.glob("*/highres-*/")
    assert (folder / REJECTED).is_file()
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    assert "resume at epoch 2" in outcome.out
    before, facts = (json.loads((path / "phase.json").read_text()) for path in (start, folder))
    said = f"{start.name} (validation macro AUROC {before['best_score']:.4f} at 32 px)"
    assert facts["baseline"]["scores"]["auroc_macro"] == before["best_score"]
    assert facts["rejected_for"] == said
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2]
    assert metrics["val_auroc_macro"].max() == facts["best_score"] < before["best_score"]
    screen = " ".join(outcome.out.split())
    assert f"warning: highres is rejected: validation macro AUROC {facts['best_score']:.4f} at 64 px" in screen
    assert f"is not better than {said}, whose checkpoint is its best.ckpt now" in screen
    assert f"highres against {start.name} at 32 px: macro AUROC" in screen
    assert f"evaluate.py ckpt={folder.name}" in screen.replace(str(folder.parent) + "/", "")
    assert (folder / "best.ckpt").read_bytes() == (start / "best.ckpt").read_bytes()
    rejected = read_checkpoint(folder / REJECTED).metadata
    assert (rejected.phase, rejected.epoch, rejected.history) == ("highres", facts["best_epoch"], [start.name])
    # and what comes next works with it
    done = lab.train(*arguments)
    assert done.code == 0
    assert "done, rejected" in done.out
    outcome = run_command("evaluate.py", f"ckpt={folder}", f"out={folder / 'eval'}", *QUICK)
    assert outcome.code == 0, outcome.err
    screen = " ".join(outcome.out.split())
    assert f"{folder.name} was rejected, and its best.ckpt is the one before it: {start.name} of nih at 32 px" in screen
    summary = pd.read_csv(folder / "eval" / "eval_summary.csv").set_index("split")
    assert summary.loc["val", "auroc_macro"] == pytest.approx(before["best_score"], abs=1e-12)
    assert summary.loc["val", "checkpoint"] == f"{start.name}/best.ckpt"


@pytest.mark.slow
def test_a_phase_that_is_better_hands_on_what_it_trained(lab: Lab, start: Path, tmp_path: Path) -> None:
    turned = turn(start, tmp_path)
    arguments = [f"init_from={turned}", "phase=highres", "lr=1e-2", "n_unfreeze=0"]
    with pytest.raises(Cut), before_call(CXRModule, "training_step", 2, cut):
        lab.train(*arguments, "trainer.checkpoint_every_n_steps=1")
    [folder] = lab.runs.glob("*/highres-*/")
    assert json.loads((folder / "phase.json").read_text())["baseline"]["scores"]["auroc_macro"] == 0.2
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    facts = json.loads((folder / "phase.json").read_text())
    assert facts["best_score"] > 0.2
    assert (facts["rejected_for"], facts["best_epoch"]) == ("", 1)
    assert "rejected" not in outcome.out
    assert not (folder / REJECTED).exists()
    assert not same_weights(read_checkpoint(turned).weights, read_checkpoint(folder).weights)


@pytest.mark.slow
def test_elsewhere_it_is_off_and_worse_is_said(lab: Lab, start: Path) -> None:
    arguments = [f"init_from={start}", "phase=finetune", "lr=10", "n_unfreeze=50"]
    plain = lab.train(*arguments)
    assert plain.code == 0
    screen = " ".join(plain.out.split())
    assert f", worse than {start.name} (validation macro AUROC" in screen
    assert "phases.finetune.require_improvement=true would hand that on" in screen
    [folder] = lab.runs.glob("*/finetune-*/")
    assert json.loads((folder / "phase.json").read_text())["rejected_for"] == ""
    folder = lab.train_well(*arguments, "phases.finetune.require_improvement=true")
    assert same_weights(read_checkpoint(start).weights, read_checkpoint(folder).weights)


@pytest.mark.slow
def test_weights_that_were_chosen_by_another_metric_are_validated_at_the_size_of_the_phase(
    lab: Lab, start: Path
) -> None:
    folder = lab.train_well(f"init_from={start}", "phase=highres", "monitor=val/loss", "lr=10")
    facts = json.loads((folder / "phase.json").read_text())
    assert (facts["baseline"]["name"], facts["baseline"]["img_size"]) == ("the starting weights", 32)
    assert (
        facts["rejected_for"] == f"the starting weights (val/loss {facts['baseline']['scores']['loss']:.4f} at 32 px)"
    )
    assert (folder / "best.ckpt").read_bytes() == (start / "best.ckpt").read_bytes()


@pytest.mark.slow
def test_validations_are_compared_where_images_targets_and_metric_are_the_same(start: Path) -> None:
    checkpoint = read_checkpoint(start)
    metadata, config = checkpoint.metadata.model_dump(), checkpoint.config
    found = find_baseline(checkpoint, metadata, config)
    assert found is not None
    assert (found.name, found.img_size, found.scores) == (start.name, 32, checkpoint.metadata.scores)
    for other in (
        {"labels": metadata["labels"][::-1]},
        {"split": metadata["split"].replace("train", "val", 1)},
        {"rows": [*metadata["rows"][:-1], "0"]},
        {"monitor": "val/loss"},
    ):
        assert find_baseline(checkpoint, metadata | other, config) is None
    metrics = config.metrics.model_copy(update={"collection": {}})
    assert find_baseline(checkpoint, metadata, config.model_copy(update={"metrics": metrics})) is None


def test_the_question_of_a_comparison_is_answered_on_validation() -> None:
    labels = ["Mass", "Nodule", "Pneumonia"]
    before = {"auroc_macro": 0.7, "auroc_Mass": 0.7, "auroc_Nodule": 0.6, "auroc_Pneumonia": 0.6}
    better = before | {"auroc_macro": 0.71, "auroc_Mass": 0.695, "auroc_Nodule": 0.62, "auroc_Pneumonia": 0.61}
    assert describe_change(before, better, labels) == (
        "macro AUROC 0.7100 (+0.0100), Pneumonia 0.610 (+0.010), Nodule 0.620 (+0.020); Pneumonia, Nodule improved: "
        "yes; no other fell by more than 0.01: yes; the macro rose: yes (validation, without intervals)"
    )
    worse = before | {"auroc_macro": 0.69, "auroc_Mass": 0.6, "auroc_Nodule": 0.62}
    said = describe_change(before, worse, labels)
    assert "Mass 0.600 (-0.100)" in said
    assert "improved: no; no other fell by more than 0.01: no; the macro rose: no" in said
    assert describe_change({}, better, labels) == ""
    assert "improved" not in describe_change({"auroc_macro": 0.7}, {"auroc_macro": 0.8}, labels)
