"""Callbacks of the config beside the engine's own: averages, Lightning's, and a user's."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cutting import STEPS_AN_EPOCH, Cut, assert_same, before_call, cut
from lab import Lab, evaluate
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging
from tiny import fit, list_changes, make_module, snapshot

from cxrlit.config import TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import ConfigError
from cxrlit.metrics.auroc import LabelAUROC
from cxrlit.metrics.epoch_metrics import EpochMetrics
from cxrlit.model.archive import read_archive
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks import FreezeBatchNorm, FrozenGuard, PhasedUnfreezing
from cxrlit.training.composed_callbacks import build_composed_callbacks
from cxrlit.training.freezing import Freezing

HEAD = {"head.weight", "head.bias"}
LIGHTNING = "pytorch_lightning.callbacks"
FREEZING = Freezing(66, 0, 100, batch_norm_trains=False, batch_norm_frozen=True)
TRAINING = Freezing(0, 100, 100, batch_norm_trains=True, batch_norm_frozen=False)


class Counter(Callback):
    """A user's callback, whose state is a number of steps."""

    def __init__(self, start: int = 0) -> None:
        self.n_steps = start

    def on_train_batch_end(self, *_: Any) -> None:
        self.n_steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n_steps = state_dict["n_steps"]


class Forgetful(Callback):
    """A callback whose state cannot be saved."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {1, 2}}


class KeepsPredictions(Callback):
    """Reads the predictions of each epoch by the public attribute."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        self.seen.append(pl_module.predictions["val"].probs)


@pytest.mark.parametrize(("make_average", "order"), [(EMAWeightAveraging, [0, 1, 2]), (WeightAveraging, [2, 1, 0])])
def test_an_average_leaves_what_is_frozen_as_it_is(make_average: Callable[[], Callback], order: list[int]) -> None:
    module = make_module(lr=1e-2)
    before = snapshot(module.network)
    composed = [PhasedUnfreezing(0), FreezeBatchNorm(), make_average()]
    fit(module, [FrozenGuard(), *(composed[number] for number in order)], max_epochs=2)
    assert list_changes(before, snapshot(module.network)) == HEAD


def test_freezing_does_not_depend_on_the_order_of_its_callbacks() -> None:
    states = []
    for order in ([0, 1], [1, 0]):
        module, composed = make_module(lr=1e-2), [PhasedUnfreezing(n_unfreeze=50), FreezeBatchNorm()]
        fit(module, [composed[number] for number in order], val_check_interval=0.5)
        states.append(snapshot(module.network))
    assert not list_changes(*states)


@pytest.mark.slow
def test_ema_is_what_is_validated_kept_and_handed_on_and_resumes_exactly(lab: Lab, tmp_path: Path) -> None:
    settings = ["callbacks=ema", "callbacks.ema.decay=0.5", "max_epochs=2", "lr=1e-2", "logger=csv"]
    settings += ["trainer.checkpoint_every_n_steps=2", f"+callbacks.timer._target_={LIGHTNING}.Timer"]
    whole = lab.train_well(*settings)
    metrics = pd.read_csv(whole / "metrics.csv")
    best = json.loads((whole / "phase.json").read_text())["best_epoch"]
    evaluate(whole, whole / "eval")
    measured = pd.read_csv(whole / "eval" / "eval_per_label_auroc.csv").query("split == 'val'").set_index("label")
    for label, value in measured["auroc"].items():
        assert metrics.set_index("epoch").loc[best, f"val_auroc_{label}"] == pytest.approx(value, abs=1e-12)
    raw = lab.train_well(*settings[2:], "callbacks.early_stopping=null")
    assert read_weight(raw) != read_weight(whole)

    lab.runs = tmp_path / "other"
    with pytest.raises(Cut), before_call(CXRModule, "training_step", STEPS_AN_EPOCH + 4, cut):
        lab.train(*settings)
    with pytest.raises(Cut), before_call(CXRModule, "on_validation_epoch_end", 1, cut):
        lab.train(*settings)  # what is saved before a validation has no batch left that would show what is frozen
    outcome = lab.train(*settings)
    assert "resume at epoch 2" in outcome.out
    (resumed,) = lab.runs.glob("*/frozen-*")
    shutil.rmtree(whole / "eval")
    assert_same(resumed, whole)


def read_weight(folder: Path) -> float:
    return float(read_archive(folder / "best.ckpt")["state_dict"]["network.head.weight"].sum())


@pytest.mark.slow
def test_a_callback_of_the_users_resumes_its_state(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(Counter, "on_train_end", lambda self, *_: counts.append(self.n_steps), raising=False)
    settings = ["+callbacks.mine._target_=test_composed_callbacks.Counter", "+callbacks.mine.start=100"]
    settings += ["trainer.checkpoint_every_n_steps=2", "max_epochs=2"]
    with pytest.raises(Cut), before_call(CXRModule, "training_step", STEPS_AN_EPOCH + 4, cut):
        lab.train(*settings)
    assert lab.train(*settings).code == 0
    assert counts == [100 + 2 * STEPS_AN_EPOCH]


def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(lab: Lab) -> None:
    with before_call(CXRModule, "training_step", 1, cut):
        outcome = lab.train("+callbacks.mine._target_=test_composed_callbacks.Forgetful")
    assert outcome.code == 2
    assert "a set, which cannot be saved: a callback must return numbers" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_lightnings_callbacks_work_beside_ours(lab: Lab) -> None:
    pytest.importorskip("psutil", reason="DeviceStatsMonitor needs psutil on a CPU")
    added = [f"+callbacks.{name.lower()}._target_={LIGHTNING}.{name}" for name in ("DeviceStatsMonitor", "Timer")]
    folder = lab.train_well(
        "logger=csv", *added, "+callbacks.checkpoint._target_=pytorch_lightning.callbacks.ModelCheckpoint"
    )
    assert (folder / "best.ckpt").is_file()


def test_a_callback_reads_the_predictions_of_the_epoch() -> None:
    keeper, module = KeepsPredictions(), make_module(lr=1e-2)
    fit(module, [PhasedUnfreezing(0), FreezeBatchNorm(), keeper], max_epochs=2)
    assert [tuple(probs.shape) for probs in keeper.seen] == [(16, 8), (16, 8)]
    assert not torch.equal(*keeper.seen)


def build(freezing: Freezing = FREEZING, **spec: Any) -> list[Callback]:
    return build_all({"x": spec}, freezing)


def build_all(specs: dict[str, Any], freezing: Freezing = FREEZING) -> list[Callback]:
    config = compose_defaults("train", TrainConfig, {})
    settings = config.phases["frozen"].model_copy(update={"callbacks": specs})
    metrics = EpochMetrics({"auroc": LabelAUROC()}, ["Mass", "Nodule"])
    return build_composed_callbacks("frozen", settings, metrics, freezing, has_logger=True)


def test_the_mode_of_a_callback_is_that_of_the_metric_it_monitors() -> None:
    early_stopping = f"{LIGHTNING}.EarlyStopping"
    modes = {}
    for monitor in ("val/auroc_Mass", "val/loss"):
        [callback] = build(_target_=early_stopping, monitor=monitor)
        modes[monitor] = callback.mode  # type: ignore[attr-defined]
    assert modes == {"val/auroc_Mass": "max", "val/loss": "min"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"_target_": f"{LIGHTNING}.EarlyStopping", "monitor": "val/x"}, "monitor=val/x: it is not measured"),
    (
        {"_target_": f"{LIGHTNING}.EarlyStopping", "monitor": "val/loss", "mode": "max"},
        "val/loss is better lower: min",
    ),
    ({"_target_": f"{LIGHTNING}.EarlyStopping"}, "EarlyStopping cannot be built"),
    ({"_target_": f"{LIGHTNING}.Timer", "hours": 3}, "x.hours: .* has no such argument"),
    ({"_target_": "fractions.Fraction"}, "is no callback of Lightning"),
    ({"_target_": "no.such.Callback"}, "No module named 'no'"),
    ({"_target_": f"{LIGHTNING}.StochasticWeightAveraging", "swa_lrs": 1e-2}, "resets every BatchNorm"),
    ({"_target_": f"{LIGHTNING}.BatchSizeFinder"}, "BatchSizeFinder would train with another batch_size"),
    ({"_target_": f"{LIGHTNING}.LearningRateFinder"}, "LearningRateFinder would train with another lr"),
    ({"_target_": f"{LIGHTNING}.BackboneFinetuning"}, "BackboneFinetuning knows no CXRModule"),
    ({"_target_": f"{LIGHTNING}.EMAWeightAveraging", "nope": 2}, "unexpected keyword argument 'nope'"),
]


@pytest.mark.parametrize(("spec", "line"), WRONG)
def test_a_callback_that_cannot_be_used_is_one_line(spec: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as fault:
        build(**spec)
    assert str(fault.value).startswith("phases.frozen.callbacks")
    assert "\n" not in str(fault.value)


def test_two_callbacks_with_the_same_state_are_refused_before_the_training() -> None:
    spec = {"_target_": "test_composed_callbacks.Counter"}
    with pytest.raises(ConfigError, match="Found more than one stateful callback of type `Counter`"):
        build_all({"x": spec, "y": spec})


def test_stochastic_weight_averaging_is_for_phases_that_freeze_no_batch_norm() -> None:
    assert len(build(TRAINING, _target_=f"{LIGHTNING}.StochasticWeightAveraging", swa_lrs=1e-2)) == 1


assert __name__ in sys.modules  # the targets above name this module
