"""Frozen is frozen: to the bit, through real epochs with a validation in the middle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tiny import fit, list_changes, make_module, snapshot
from torch import Tensor, nn

from cxrlit.config import TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import ConfigError
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.model.densenet import CXRNet, list_layers, unfreeze_last
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks import FreezeBatchNorm, FrozenGuard, PhasedUnfreezing
from cxrlit.training.callbacks.phased_unfreezing import UnfreezeSchedule
from cxrlit.training.freezing import Freezing, try_freezing
from cxrlit.training.trainer import quiet_lightning

DECAY = {"_target_": "torch.optim.AdamW", "weight_decay": 0.5}
HEAD = {"head.weight", "head.bias"}


def freezing(n_unfreeze: int, freeze_bn: bool, schedule: dict[int, int] | None = None) -> list[Callback]:
    return [FrozenGuard(), PhasedUnfreezing(n_unfreeze, schedule), FreezeBatchNorm("frozen" if freeze_bn else "train")]


def names_of_last(network: CXRNet, n_unfreeze: int, kind: type[nn.Module]) -> set[str]:
    """State dict names of the modules of a kind among the last layers."""
    inside = [module for _, module in list_layers(network)[427 - n_unfreeze :] if isinstance(module, kind)]
    return {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if module in inside
        for part, _ in module.state_dict().items()
    }


class Snapshots(Callback):
    """The state after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        self.states.append(snapshot(pl_module.network))


@pytest.mark.parametrize("n_unfreeze", [0, 10, 50])
def test_with_batch_norm_frozen_only_the_head_and_the_last_convs_change(n_unfreeze: int) -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    fit(module, freezing(n_unfreeze, freeze_bn=True), val_check_interval=0.5)
    convs = names_of_last(module.network, n_unfreeze, nn.Conv2d)
    assert list_changes(before, snapshot(module.network)) == HEAD | convs


@pytest.mark.parametrize("n_unfreeze", [10, 50])
def test_with_batch_norm_free_those_outside_the_range_do_not_change(n_unfreeze: int) -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    fit(module, freezing(n_unfreeze, freeze_bn=False), val_check_interval=0.5)
    inside = names_of_last(module.network, n_unfreeze, nn.Conv2d | nn.BatchNorm2d)
    assert list_changes(before, snapshot(module.network)) == HEAD | inside


@pytest.mark.parametrize("n_unfreeze", [10, 50])
def test_with_batch_norm_affine_weights_and_biases_in_the_range_train_and_no_statistics_move(n_unfreeze: int) -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    callbacks = [FrozenGuard(), PhasedUnfreezing(n_unfreeze), FreezeBatchNorm("affine")]
    fit(module, callbacks, val_check_interval=0.5)
    inside = names_of_last(module.network, n_unfreeze, nn.Conv2d | nn.BatchNorm2d)
    assert list_changes(before, snapshot(module.network)) == HEAD | {
        name for name in inside if name.endswith((".weight", ".bias"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("n_unfreeze", [0, 10])
def test_with_batch_norm_adapt_statistics_move_once_before_the_first_step(n_unfreeze: int, tmp_path: Path) -> None:
    quiet_lightning()
    module = make_module(lr=1e-3, optimizer=DECAY)
    datamodule = CXRDataModule.from_synthetic({"n_patients": 20}, img_size=32, batch_size=16, cache_dir=tmp_path)
    before, states = snapshot(module.network), Snapshots()
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[FrozenGuard(), FreezeBatchNorm("adapt"), PhasedUnfreezing(n_unfreeze), states],
    )  # fmt: skip
    trainer.fit(module, datamodule)
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    trained = HEAD | names_of_last(module.network, n_unfreeze, nn.Conv2d)
    assert list_changes(before, states.states[0]) == statistics | trained
    assert list_changes(states.states[0], states.states[1]) == trained
    assert not {name for name in statistics if "num_batches" in name and before[name] == states.states[0][name]}


def test_adapting_needs_a_datamodule_that_gives_training_images_as_they_are() -> None:
    with pytest.raises(ConfigError, match=r"FreezeBatchNorm\('adapt'\) needs a CXRModule and a CXRDataModule"):
        fit(make_module(), [FreezeBatchNorm("adapt")])


@pytest.mark.parametrize(
    ("batch_norm", "n_trainable", "described"),
    [
        ("frozen", 1_921_024, "frozen"),
        ("affine", 1_948_608, "weight and bias train"),
        ("adapt", 1_921_024, "adapted, then frozen"),
        ("train", 1_948_608, "trains"),
    ],
)
def test_the_plan_counts_what_each_batch_norm_mode_trains(batch_norm: str, n_trainable: int, described: str) -> None:
    found = plan_freezing("n_unfreeze=100", f"batch_norm={batch_norm}")
    assert (found.n_trainable, found.describe_batch_norm()) == (n_trainable, described)
    assert found.n_frozen_units == plan_freezing("n_unfreeze=100").n_frozen_units


def test_a_class_in_the_place_of_ours_that_adapts_nothing_is_refused_where_the_phase_adapts() -> None:
    with pytest.raises(ConfigError, match=r"batch_norm=adapt: .*freeze_batch_norm does not do that"):
        plan_freezing("batch_norm=adapt", "callbacks.freeze_batch_norm.mode=frozen")


def test_where_everything_trains_everything_changes() -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    fit(module, freezing(427, freeze_bn=False), val_check_interval=0.5)
    assert list_changes(before, snapshot(module.network)) == set(before)


@pytest.mark.parametrize("schedule", [{1: 10, 2: 50}, {1: 50, 2: 10}, {1: 0, 2: 50, 3: 10}])
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_a_schedule_changes_what_trains_and_leaves_the_rest_alone(schedule: dict[int, int], freeze_bn: bool) -> None:
    module, states = make_module(lr=1e-3, optimizer=DECAY), Snapshots()
    before = snapshot(module.network)
    fit(module, [*freezing(50, freeze_bn, schedule), states], max_epochs=len(schedule))
    for epoch, n_unfreeze in schedule.items():
        kinds = nn.Conv2d if freeze_bn else nn.Conv2d | nn.BatchNorm2d
        expected = HEAD | names_of_last(module.network, n_unfreeze, kinds)
        assert list_changes(before, states.states[epoch - 1]) == expected, epoch
        before = states.states[epoch - 1]


def test_a_schedule_starts_at_epoch_1_and_reaches_n_unfreeze() -> None:
    for schedule in ({2: 50}, {1: 10, 2: 40}, {0: 10, 1: 50}):
        with pytest.raises(ValueError, match="epoch 1"):
            UnfreezeSchedule(50, schedule)


def test_frozen_batch_norm_survives_a_call_of_train() -> None:
    class Train(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.train()

        on_validation_end = on_train_epoch_start

    module = make_module(lr=1e-3)
    before = snapshot(module.network)
    fit(module, [*freezing(10, freeze_bn=True), Train()], val_check_interval=0.5)
    assert list_changes(before, snapshot(module.network)) == HEAD | names_of_last(module.network, 10, nn.Conv2d)


def unfreeze_all(module: LightningModule) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(True)


class UnfreezeInSetup(Callback):
    """After ours, before the optimizer is built."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        unfreeze_all(pl_module)


class FreezeInSetup(Callback):
    """The optimizer misses what the phase says it trains."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for parameter in pl_module.parameters():
            parameter.requires_grad_(False)
        assert isinstance(pl_module, CXRModule)
        pl_module.network.head.weight.requires_grad_(True)


class UnfreezeEachEpoch(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        unfreeze_all(pl_module)


class UnfreezeInMidEpoch(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            unfreeze_all(pl_module)


class AddToOptimizer(Callback):
    """Another callback that grows the optimizer, as Lightning's own BaseFinetuning does."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        weight = pl_module.network.features.conv0.weight.requires_grad_(True)
        trainer.optimizers[0].add_param_group({"params": [weight]})


@pytest.mark.parametrize(
    "other", [UnfreezeInSetup, FreezeInSetup, UnfreezeEachEpoch, UnfreezeInMidEpoch, AddToOptimizer]
)
@pytest.mark.parametrize("n_unfreeze", [0, 10])
def test_something_else_that_says_what_trains_is_refused(other: Callable[[], Callback], n_unfreeze: int) -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    with pytest.raises(ConfigError, match=r"unfroze|requires_grad") as fault:
        fit(module, [FrozenGuard({0: 0, 10: 163_840}[n_unfreeze]), *freezing(n_unfreeze, freeze_bn=True)[1:], other()])
    assert "\n" not in str(fault.value)
    allowed = HEAD | names_of_last(module.network, n_unfreeze, nn.Conv2d)
    assert list_changes(before, snapshot(module.network)) <= allowed


def nudge(module: LightningModule) -> None:
    assert isinstance(module, CXRModule)
    module.network.features.norm0.running_mean.add_(1)


class NudgeBetweenEpochs(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch:
            nudge(pl_module)


class NudgeAtTheEnd(Callback):
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        nudge(pl_module)


class NudgeInForward(Callback):
    """The BatchNorm moves by a hook that the modes of modules do not show."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.network.features.norm0.register_forward_hook(lambda *_: nudge(pl_module))  # type: ignore[union-attr]


@pytest.mark.parametrize("other", [NudgeBetweenEpochs, NudgeAtTheEnd, NudgeInForward])
def test_what_moves_something_frozen_after_the_first_step_is_refused(other: Callable[[], Callback]) -> None:
    with pytest.raises(ConfigError, match=r"norm0\.running_mean is frozen in this phase and has changed: a callback"):
        fit(make_module(), [FrozenGuard(0), *freezing(0, freeze_bn=True)[1:], other()], max_epochs=2)


class TrainInForward(Callback):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.network.features.norm0.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda norm, _: setattr(norm, "training", True)
        )


def test_a_batch_norm_that_a_hook_trains_is_refused() -> None:
    guard = FrozenGuard(0, batch_norm_may_train=False)
    with pytest.raises(ConfigError, match="a BatchNorm is in train mode, and the phase freezes all"):
        fit(make_module(), [guard, *freezing(0, freeze_bn=True)[1:], TrainInForward()])


class LastTenLayers(Callback):
    """A user's own in the place of ``phased_unfreezing``; it takes no argument of it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, CXRModule)
        unfreeze_last(pl_module.network, 10)


def plan_freezing(*overrides: str) -> Freezing:
    config = compose_defaults("train", TrainConfig, {}, ["phase=finetune", *overrides])
    return try_freezing("finetune", config.phases["finetune"])


def test_a_class_of_the_users_own_takes_the_place_of_ours_by_its_name_alone() -> None:
    key = "callbacks.phased_unfreezing"
    found = plan_freezing(f"{key}._target_=test_freezing.LastTenLayers", "batch_norm=train")
    assert found.layers == "what LastTenLayers unfreezes"
    assert found.n_trainable == plan_freezing("n_unfreeze=10", "batch_norm=train").n_trainable
    with pytest.raises(ConfigError, match="LastTenLayers has no such argument; it takes none"):
        plan_freezing(f"{key}._target_=test_freezing.LastTenLayers", f"{key}.n_unfreeze=11")


def test_the_plan_names_the_layers_that_the_callback_trains_whatever_the_phase_says() -> None:
    assert plan_freezing("n_unfreeze=20", "callbacks.phased_unfreezing.n_unfreeze=30").layers == "last 30 layers"


def test_what_was_unfrozen_before_does_not_train() -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    unfreeze_all(module)
    before = snapshot(module.network)
    fit(module, freezing(0, freeze_bn=True))
    assert list_changes(before, snapshot(module.network)) == HEAD


def test_clipped_gradients_leave_the_frozen_alone() -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    fit(module, freezing(10, freeze_bn=True), gradient_clip_val=1e-3)
    assert list_changes(before, snapshot(module.network)) == HEAD | names_of_last(module.network, 10, nn.Conv2d)


def test_bf16_keeps_the_weights_in_float32_and_the_frozen_alone() -> None:
    module = make_module(lr=1e-3, optimizer=DECAY)
    before = snapshot(module.network)
    fit(module, freezing(10, freeze_bn=True), precision="bf16-mixed", val_check_interval=0.5)
    assert list_changes(before, snapshot(module.network)) == HEAD | names_of_last(module.network, 10, nn.Conv2d)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_only_a_module_of_ours_is_taken() -> None:
    with pytest.raises(TypeError, match="CXRModule"):
        PhasedUnfreezing(0).setup(Trainer(logger=False), LightningModule(), "fit")
