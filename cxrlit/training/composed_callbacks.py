"""Build and check the callbacks that a config names for a phase."""

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EMAWeightAveraging,
    LearningRateFinder,
    LearningRateMonitor,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from rich import get_console

from cxrlit.config import Instantiable, PhaseConfig
from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.metrics.epoch_metrics import EpochMetrics
from cxrlit.model.optimizer import choose_mode
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm
from cxrlit.training.freezing import Freezing, fit_arguments

REFUSED: dict[type, str] = {
    BatchSizeFinder: "would train with another batch_size than the phase says: set batch_size",
    LearningRateFinder: "would train with another lr than the phase says: sweep over lr",
    BackboneFinetuning: "knows no CXRModule: n_unfreeze_schedule says how many layers train from which epoch",
}
"""Callbacks of Lightning that cannot work here, and what to use instead."""


def build_composed_callbacks(
    name: str, settings: PhaseConfig, metrics: EpochMetrics, freezing: Freezing, has_logger: bool
) -> list[Callback]:
    """Build the callbacks of a phase; one that takes a ``mode`` gets that of the metric it monitors.

    Args:
        name: Name of the phase.
        settings: Its settings, with its callbacks by name.
        metrics: Metrics computed after each epoch.
        freezing: What the phase freezes.
        has_logger: Without a logger, callbacks that only write to loggers are not built.

    Raises:
        ConfigError: One cannot be built, is not a callback, monitors an unknown metric, or resets frozen layers.
    """
    callbacks = []
    for key, spec in settings.callbacks.items():
        full_key = f"phases.{name}.callbacks.{key}"
        spec = fit_arguments(key, spec, settings)
        callback = build_target(full_key, spec, **_choose_mode(full_key, spec, metrics))
        if not isinstance(callback, Callback):
            raise ConfigError(f"{full_key}: {spec['_target_']} is no callback of Lightning")
        if isinstance(callback, LearningRateMonitor | DeviceStatsMonitor) and not has_logger:
            continue  # Lightning would refuse it
        for kind, remedy in REFUSED.items():
            if isinstance(callback, kind):
                raise ConfigError(f"{full_key}: {kind.__name__} {remedy}")
        if isinstance(callback, StochasticWeightAveraging) and freezing.batch_norm_frozen:
            raise ConfigError(
                f"{full_key}: StochasticWeightAveraging resets every BatchNorm, and the phase freezes some: "
                "callbacks=ema averages weights without that"
            )
        callbacks.append(callback)
    _try_together(name, callbacks)
    callbacks.sort(key=lambda item: isinstance(item, FreezeBatchNorm))  # it must set the modes last
    # In a file, a progress bar is noise.
    return [item for item in callbacks if get_console().is_terminal or not isinstance(item, ProgressBar)]


def _try_together(name: str, callbacks: list[Callback]) -> None:
    """Run the checks of callbacks that Lightning makes only when a training begins.

    Raises:
        ConfigError: Two callbacks have the same state key, or a weight average does not take an argument.
    """
    tried = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    try:
        trainer = Trainer(
            accelerator="cpu", callbacks=tried, logger=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        for callback in tried:
            if type(callback) in (WeightAveraging, EMAWeightAveraging):
                callback.setup(trainer, LightningModule(), "fit")
    except Exception as error:
        raise ConfigError(f"phases.{name}.callbacks: {first_line(error)}") from None


def _choose_mode(key: str, spec: Instantiable, metrics: EpochMetrics) -> dict[str, str]:
    check_target(key, spec)
    monitor = spec.get("monitor")
    if not isinstance(monitor, str) or not monitor.startswith("val/") or not takes_argument(spec, "mode"):
        return {}
    try:
        mode = metrics.choose_mode(monitor)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    return {"mode": choose_mode(key, spec, monitor, mode)}
