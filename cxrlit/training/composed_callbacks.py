"""The callbacks that a config names for a phase, built and checked."""

from collections.abc import Mapping

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    LearningRateMonitor,
    ProgressBar,
    StochasticWeightAveraging,
)
from rich import get_console

from cxrlit.config import Instantiable
from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.core.errors import ConfigError
from cxrlit.metrics.epoch_metrics import EpochMetrics
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm
from cxrlit.training.freezing import Freezing


def build_composed_callbacks(
    name: str, specs: Mapping[str, Instantiable], metrics: EpochMetrics, freezing: Freezing, has_logger: bool
) -> list[Callback]:
    """Build the callbacks of a phase; one that takes a ``mode`` gets that of the metric it monitors.

    Args:
        name: Of the phase.
        specs: Its callbacks, by name.
        metrics: What is measured after each epoch.
        freezing: What the phase freezes.
        has_logger: Without one, callbacks that only write to loggers are not built.

    Raises:
        ConfigError: One cannot be built, is no callback, watches what is not measured, or resets what is frozen.
    """
    callbacks = []
    for key, spec in specs.items():
        full_key = f"phases.{name}.callbacks.{key}"
        callback = build_target(full_key, spec, **_choose_mode(full_key, spec, metrics))
        if not isinstance(callback, Callback):
            raise ConfigError(f"{full_key}: {spec['_target_']} is no callback of Lightning")
        if isinstance(callback, LearningRateMonitor | DeviceStatsMonitor) and not has_logger:
            continue  # Lightning would refuse it
        if isinstance(callback, StochasticWeightAveraging) and freezing.batch_norm_frozen:
            raise ConfigError(
                f"{full_key}: StochasticWeightAveraging resets every BatchNorm, and the phase freezes some: "
                "callbacks=ema averages weights without that"
            )
        callbacks.append(callback)
    callbacks.sort(key=lambda item: isinstance(item, FreezeBatchNorm))  # it has the last word on the modes
    # Where the output is a file, a bar is noise.
    return [item for item in callbacks if get_console().is_terminal or not isinstance(item, ProgressBar)]


def _choose_mode(key: str, spec: Instantiable, metrics: EpochMetrics) -> dict[str, str]:
    check_target(key, spec)
    monitor = spec.get("monitor")
    if not isinstance(monitor, str) or not monitor.startswith("val/") or not takes_argument(spec, "mode"):
        return {}
    try:
        mode = metrics.choose_mode(monitor)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    if spec.get("mode", mode) != mode:
        raise ConfigError(
            f"{key}.mode={spec['mode']}: {monitor} is better {'higher' if mode == 'max' else 'lower'}: {mode}"
        )
    return {} if "mode" in spec else {"mode": mode}
