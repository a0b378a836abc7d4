"""Find out what the callbacks of a phase freeze, before any work."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from pytorch_lightning import Callback, Trainer

from cxrlit.config import N_LAYERS, Instantiable, PhaseConfig
from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.model.densenet import CXRNet, count_frozen_units
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm, list_batch_norms
from cxrlit.training.callbacks.phased_unfreezing import PhasedUnfreezing

FREEZING = {
    "phased_unfreezing": {"n_unfreeze": "n_unfreeze", "schedule": "n_unfreeze_schedule"},
    "freeze_batch_norm": {"mode": "batch_norm"},
}
"""Callbacks that decide what trains, and for each argument the phase's key that is its default."""


_TRIED: dict[str, "Freezing"] = {}
"""Results by the text of the callbacks, since a chain is planned several times."""


class Freezing(NamedTuple):
    """The layers and BatchNorms that a phase freezes.

    Attributes:
        n_frozen_units: Number of first units of the network that are frozen in every epoch, 0 to 66.
        n_trainable: Number of weights of the features that train in some epoch.
        n_weights: Number of weights of the features.
        batch_norm_trains: Whether a BatchNorm trains, its statistics included.
        batch_norm_frozen: Whether the statistics of a BatchNorm are frozen.
        affine_trains: Whether weight and bias of a BatchNorm train.
        adapts: Whether the statistics of every BatchNorm are re-estimated before the first step.
        may_change: Whether a schedule or a user's class may train other weights in a later epoch.
        layers: Which layers train, in a few words.
    """

    n_frozen_units: int
    n_trainable: int
    n_weights: int
    batch_norm_trains: bool
    batch_norm_frozen: bool
    affine_trains: bool = False
    adapts: bool = False
    may_change: bool = False
    layers: str = ""

    def describe_batch_norm(self) -> str:
        """Describe the BatchNorms in a few words."""
        changes = {"trains": self.batch_norm_trains, "weight and bias train": self.affine_trains}
        what = next((text for text, does in changes.items() if does), "frozen")
        return f"adapted, then {what}" if self.adapts else what


def fit_arguments(name: str, spec: Instantiable, phase: PhaseConfig) -> Instantiable:
    """Drop arguments of a callback that only repeat settings of its phase and that its class does not take.

    So a user can replace a callback of cxrlit by setting only its ``_target_``.

    Args:
        name: Name of the callback.
        spec: The dict with ``_target_``.
        phase: The settings of its phase.

    Raises:
        ConfigError: The class cannot be found.
    """
    keys = FREEZING.get(name)
    if keys is None:
        return spec
    check_target(f"callbacks.{name}", {key: value for key, value in spec.items() if key == "_target_"})
    repeated = {
        argument
        for argument, key in keys.items()
        if argument in spec and spec[argument] == getattr(phase, key) and not takes_argument(spec, argument)
    }
    return {argument: value for argument, value in spec.items() if argument not in repeated}


def try_freezing(name: str, phase: PhaseConfig) -> Freezing:
    """Run the freezing callbacks of a phase on a network without memory, and return what they freeze.

    Args:
        name: Name of the phase.
        phase: Its settings.

    Raises:
        ConfigError: A callback cannot be built, fails, or is missing although the phase needs it.
    """
    specs = {key: fit_arguments(key, phase.callbacks[key], phase) for key in FREEZING if key in phase.callbacks}
    key = f"phases.{name}.callbacks"
    if "phased_unfreezing" not in specs and phase.n_unfreeze < N_LAYERS:
        raise ConfigError(
            f"{key}.phased_unfreezing: without it all layers train, and the phase trains its last {phase.n_unfreeze}: "
            f"keep it, or set n_unfreeze={N_LAYERS}"
        )
    if "freeze_batch_norm" not in specs and (phase.batch_norm != "train" or phase.n_unfreeze < N_LAYERS):
        raise ConfigError(
            f"{key}.freeze_batch_norm: without it every BatchNorm trains, and the phase freezes some: keep it, or set "
            f"batch_norm=train and n_unfreeze={N_LAYERS}"
        )
    text = repr((specs, phase.max_epochs))
    if text not in _TRIED:
        _TRIED[text] = _try(key, specs, phase.max_epochs)
    found = _TRIED[text]
    if phase.batch_norm == "adapt" and not found.adapts:
        raise ConfigError(f"phases.{name}.batch_norm=adapt: {key}.freeze_batch_norm does not do that")
    return found


def _try(key: str, specs: Mapping[str, Instantiable], max_epochs: int) -> Freezing:
    callbacks: list[Callback] = [build_target(f"{key}.{name}", spec) for name, spec in specs.items()]
    with torch.device("meta"):
        network = CXRNet("unit", n_labels=1)
    module = CXRModule(labels=["any"], network=network)
    trainer = Trainer(
        accelerator="cpu", max_epochs=max_epochs, callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    for name, callback in zip(specs, callbacks, strict=True):
        _call(f"{key}.{name}", callback.setup, trainer, module, "fit")
    n_trainable = sum(one.numel() for one in module.network.features.parameters() if one.requires_grad)
    n_weights = sum(one.numel() for one in module.network.features.parameters())
    ever_trains = [one.requires_grad for one in module.network.parameters()]
    module.train()
    for hook in ("on_train_start", "on_train_epoch_start"):
        for name, callback in zip(specs, callbacks, strict=True):
            _call(f"{key}.{name}", getattr(callback, hook), trainer, module)
    norms = list_batch_norms(module)
    modes = {norm.training for norm in norms}
    for parameter, trains in zip(module.network.parameters(), ever_trains, strict=True):
        parameter.requires_grad_(trains)
    affine_trains = any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    adapts = any(isinstance(one, FreezeBatchNorm) and one.mode == "adapt" for one in callbacks)
    scheduled = any(isinstance(one, PhasedUnfreezing) and len(one.schedule.steps) > 1 for one in callbacks)
    may_change = scheduled or any(type(one) not in (PhasedUnfreezing, FreezeBatchNorm) for one in callbacks)
    n_frozen_units = count_frozen_units(module.network.units)
    return Freezing(
        n_frozen_units, n_trainable, n_weights, batch_norm_trains=True in modes, batch_norm_frozen=False in modes,
        affine_trains=affine_trains, adapts=adapts, may_change=may_change, layers=_name_layers(callbacks),
    )  # fmt: skip


def _name_layers(callbacks: Sequence[Callback]) -> str:
    for callback in callbacks:
        if isinstance(callback, PhasedUnfreezing):
            n_unfreeze, steps = callback.schedule.n_unfreeze, callback.schedule.steps
            if len(steps) > 1:
                return f"last {steps} layers"
            return {0: "the head", N_LAYERS: "all layers"}.get(
                n_unfreeze, "last layer" if n_unfreeze == 1 else f"last {n_unfreeze} layers"
            )
        if not isinstance(callback, FreezeBatchNorm):
            return f"what {type(callback).__name__} unfreezes"
    return "all layers"


def _call(key: str, hook: object, *arguments: object) -> None:
    try:
        hook(*arguments)  # type: ignore[operator]
    except Exception as error:  # a user's class can raise anything
        raise ConfigError(f"{key}: it fails: {type(error).__name__}: {first_line(error)}") from None
