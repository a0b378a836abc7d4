"""What a config names to be built: optimizer, schedulers, callbacks, logger. All of it is there before any work."""

from collections.abc import Mapping

from cxrlit.config import Instantiable, PhaseName, TrainConfig
from cxrlit.config.build import check_target
from cxrlit.core.errors import ConfigError

REQUIRED_CALLBACKS = {
    "resume_checkpoint": "cxrlit.training.callbacks.ResumeCheckpoint",
    "phased_unfreezing": "cxrlit.training.callbacks.PhasedUnfreezing",
    "freeze_batch_norm": "cxrlit.training.callbacks.FreezeBatchNorm",
    "finite_loss": "cxrlit.training.callbacks.FiniteLoss",
    "epoch_report": "cxrlit.training.callbacks.EpochReport",
    "best_checkpoint": "cxrlit.training.callbacks.BestCheckpoint",
}
"""Callbacks that make a phase what it is. Their settings are the phase's: a run cannot change them."""


def merge_callbacks(
    shared: Mapping[str, Instantiable | None], own: Mapping[str, Instantiable | None]
) -> dict[str, Instantiable]:
    """The callbacks of a phase: those of all phases, with its own keys over them, without those that are null.

    Raises:
        ConfigError: One that makes a phase what it is is null or changed.
    """
    merged: dict[str, Instantiable] = {}
    for name in [*shared, *(name for name in own if name not in shared)]:
        base, change = shared.get(name), own.get(name, {})
        if change is None or (base is None and not change):
            continue
        merged[name] = {**(base or {}), **change}
    for name, target in REQUIRED_CALLBACKS.items():
        if merged.get(name) != {"_target_": target}:
            raise ConfigError(f"callbacks.{name}: it makes a phase what it is: it stays, and takes no settings")
    return merged


def check_targets(config: TrainConfig, name: PhaseName, callbacks: Mapping[str, Instantiable]) -> None:
    """Everything that is to be built exists and takes the arguments it is given.

    Raises:
        ConfigError: A ``_target_`` cannot be found, or an argument is not one of its own.
    """
    phase = config.phases.get(name)
    check_target("optimizer", config.optimizer, positional=1)
    if phase.scheduler is not None:
        check_target(f"phases.{name}.scheduler", phase.scheduler, positional=1)
    for key, spec in callbacks.items():
        if key not in REQUIRED_CALLBACKS:
            check_target(f"callbacks.{key}", spec)
    if config.logger is not None:
        check_target("logger", config.logger)
    elif any(spec["_target_"].endswith("LearningRateMonitor") for spec in callbacks.values()):
        raise ConfigError("logger=null: callbacks.lr_monitor has nothing to write to; add callbacks.lr_monitor=null")
