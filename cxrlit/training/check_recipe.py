"""Build and try everything that a config names, before any work."""

from pathlib import Path

import torch
from torch.optim import Optimizer

from cxrlit.config import TrainConfig
from cxrlit.data.augment import build_augment
from cxrlit.metrics.epoch_metrics import EpochMetrics, build_metrics
from cxrlit.model.losses import build_loss
from cxrlit.model.optimizer import build_optimizer, build_schedulers
from cxrlit.training.composed_callbacks import build_composed_callbacks
from cxrlit.training.freezing import try_freezing
from cxrlit.training.loggers import build_logger

MAX_START_SHARE = 0.1
"""Largest share that the first step may have in the final weight average without a warning."""

MANY_IMAGES = 10**9
"""Number of training images that is assumed before the data are read."""


def check_recipe(config: TrainConfig) -> None:
    """Check the phases up to the goal without reading the data; raises like ``check_phase``."""
    metrics = build_epoch_metrics(config)
    for name in config.list_to_goal():
        check_phase(name, config, metrics)


def build_epoch_metrics(config: TrainConfig) -> EpochMetrics:
    """Build the metrics that are computed after each epoch.

    Raises:
        ConfigError: A metric cannot be used.
    """
    return EpochMetrics(build_metrics(config.metrics.collection, config.labels), config.labels)


def check_phase(name: str, config: TrainConfig, metrics: EpochMetrics) -> None:
    """Build and try the parts of a phase.

    Args:
        name: Name of the phase.
        config: The resolved config of the chain.
        metrics: Metrics computed after each epoch.

    Raises:
        ConfigError: A transform, loss, optimizer, scheduler, callback or logger cannot be used.
    """
    settings, freezing = config.phases[name], try_freezing(name, config.phases[name])
    build_augment(config.augment, settings.img_size)
    build_loss(config.loss, torch.ones(len(config.labels)))
    check_schedule(name, config, metrics)
    build_composed_callbacks(name, settings, metrics, freezing, has_logger=bool(config.logger))
    for logger, spec in config.logger.items():
        build_logger(logger, spec, Path(config.runs_dir) / config.run / name)


def check_schedule(name: str, config: TrainConfig, metrics: EpochMetrics, n_train: int = MANY_IMAGES) -> None:
    """Build the optimizer and the schedule of a phase.

    Args:
        name: Name of the phase.
        config: The resolved config of the chain.
        metrics: Metrics computed after each epoch.
        n_train: Training images, for the length of the phase, which the schedule may not exceed.

    Raises:
        ConfigError: One of them cannot be used, or the monitored metric is not computed.
    """
    settings, mode = config.phases[name], metrics.choose_mode(config.monitor)
    optimizer = _try_optimizer(settings.lr, config)
    build_schedulers(
        optimizer,
        settings.scheduler,
        n_epochs=settings.max_epochs,
        n_steps=count_steps(name, config, n_train),
        monitor=config.monitor,
        mode=mode,
        key=f"phases.{name}.scheduler",
    )


def count_steps(name: str, config: TrainConfig, n_train: int) -> int:
    """Count the optimizer steps of a phase with ``n_train`` training images."""
    settings = config.phases[name]
    n_batches = -(-n_train // settings.batch_size)
    return settings.max_epochs * -(-n_batches // config.trainer.accumulate_grad_batches)


def describe_slow_average(name: str, config: TrainConfig, n_train: int) -> str:
    """Warn, in a sentence, if a moving average stays too close to its first weights; empty if it does not.

    Args:
        name: Name of the phase.
        config: The resolved config of the chain, checked by ``check_phase``.
        n_train: Training images.
    """
    n_steps = count_steps(name, config, n_train)
    for key, spec in config.phases[name].callbacks.items():
        every = spec.get("update_every_n_steps", 1)
        if not str(spec.get("_target_")).endswith(".EMAWeightAveraging") or not every:
            continue
        n_updates = n_steps / every
        share = spec.get("decay", 0.999) ** n_updates
        if share > MAX_START_SHARE:
            return (
                f"callbacks.{key}: {share:.0%} of the average is the weights of its first step at the end of {name}, "
                f"which has {n_steps:,} steps: set callbacks.{key}.decay={0.01 ** (1 / n_updates):.3f} or less, or "
                f"callbacks.{key}=null"
            )
    return ""


def name_idle_keys(config: TrainConfig) -> list[str]:
    """List the keys of the optimizer that have no effect in any phase up to the goal, one line each.

    They are not an error: a later phase may need them, and its chain is the same only if they are set now.
    """
    idle = []
    factor, names = config.optimizer.get("backbone_lr_factor", 1.0), config.list_to_goal()
    if factor != 1 and not any(try_freezing(name, config.phases[name]).n_trainable for name in names):
        idle.append(
            f"optimizer.backbone_lr_factor={factor:g} changes nothing up to phase={config.phase}: no phase trains "
            "layers of the backbone"
        )
    if not config.optimizer.get("decay_norms", True):
        optimizer = _try_optimizer(config.phases[names[-1]].lr, config)
        if not optimizer.defaults.get("weight_decay"):
            idle.append("optimizer.decay_norms=false changes nothing: no weight decays; set optimizer.weight_decay")
    return idle


def _try_optimizer(lr: float, config: TrainConfig) -> Optimizer:
    backbone, head = ([torch.nn.Parameter(torch.zeros(1, 1))] for _ in range(2))
    return build_optimizer(backbone, head, lr, config.optimizer)
