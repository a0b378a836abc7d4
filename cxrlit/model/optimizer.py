"""The optimizer of a phase and the schedule of its learning rate."""

import inspect
from collections.abc import Sequence
from typing import Any

from hydra.utils import get_class
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR

from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.config.types import Instantiable
from cxrlit.core.errors import ConfigError, format_count

WARMUP_START = 1e-3
"""Fraction of the learning rate that a warm-up starts from."""
LENGTHS = ("T_max", "total_steps", "total_iters", "epochs")
"""Arguments of torch's schedulers that set their length."""


def build_optimizer(
    backbone: Sequence[Parameter], head: Sequence[Parameter], lr: float, spec: Instantiable
) -> Optimizer:
    """Build the optimizer that a config names.

    Args:
        backbone: Parameters of the features that train in any epoch.
        head: Trainable parameters of the head and, if any, of the loss.
        lr: Learning rate of the head.
        spec: A dict with ``_target_`` and its arguments. Two keys are handled here: ``backbone_lr_factor`` (learning
            rate of the backbone / ``lr``, default 1) and ``decay_norms`` (false: no weight decay on norms and biases,
            default true).

    Raises:
        ConfigError: It cannot be built.
    """
    spec = dict(spec)
    factor, decay_norms = spec.pop("backbone_lr_factor", 1.0), spec.pop("decay_norms", True)
    groups: list[dict[str, Any]] = []
    for parameters, rate in ((backbone, factor * lr), (head, lr)):
        if decay_norms:
            groups.append({"params": list(parameters), "lr": rate})
            continue
        groups.append({"params": [one for one in parameters if one.ndim > 1], "lr": rate})
        groups.append({"params": [one for one in parameters if one.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    if decay_norms and factor == 1:
        groups = [{"params": [*backbone, *head]}]
    optimizer: Optimizer = build_target("optimizer", spec, [group for group in groups if group["params"]], lr=lr)
    return optimizer


def build_schedulers(
    optimizer: Optimizer,
    spec: Instantiable | None,
    *,
    n_epochs: int,
    n_steps: int,
    monitor: str,
    mode: str,
    key: str = "scheduler",
) -> list[dict[str, Any]]:
    """Build the schedule that a config names, in Lightning's format.

    Arguments that the class takes and the config does not set are filled in: ``total_steps`` or ``T_max`` (steps of the
    phase), ``max_lr`` (the learning rate), ``mode`` (that of the monitor). A class with one of the first three steps
    after each optimizer step, others after each epoch, unless ``interval`` is set.

    Args:
        optimizer: From ``build_optimizer``.
        spec: A dict with ``_target_`` and its arguments, or None. Two keys are handled here: ``interval`` (step |
            epoch) and ``warmup`` (epochs, or below 1 a fraction of the phase: the schedule is multiplied by a factor
            that rises linearly from nearly 0; ``min_lr`` bounds the product).
        n_epochs: Epochs of the phase.
        n_steps: Optimizer steps of the phase.
        monitor: Name of the monitored metric.
        mode: ``max`` or ``min``.
        key: Its name in the config.

    Raises:
        ConfigError: It cannot be built, or is longer than the phase.
    """
    if spec is None:
        return []
    spec = dict(spec)
    warmup, interval = spec.pop("warmup", 0), spec.pop("interval", None)
    check_target(key, spec, positional=1)
    takes = {name for name in (*LENGTHS, "max_lr") if takes_argument(spec, name)}
    given: dict[str, Any] = {}
    whole = next((name for name in ("total_steps", "T_max") if name in takes), None)
    if whole and not any(name in spec for name in LENGTHS):
        given[whole] = n_steps
        interval = interval or "step"
    if "max_lr" in takes and "max_lr" not in spec:
        given["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        interval = interval or "step"
    if _watches(spec):
        given["mode"] = choose_mode(key, spec, monitor, mode)
    interval = interval or "epoch"
    if interval not in ("step", "epoch"):
        raise ConfigError(f"{key}.interval={interval}: it may be step or epoch")
    for name in takes & spec.keys() & set(LENGTHS):
        length = n_epochs if interval == "epoch" or name == "epochs" else n_steps
        if isinstance(spec[name], int) and spec[name] > length:
            unit = "epochs" if length == n_epochs else "steps"
            raise ConfigError(f"{key}.{name}={spec[name]}: it is longer than the phase, which has {length} {unit}")
    schedulers = _build_warmup(optimizer, warmup, n_epochs, n_steps, key)
    if warmup and "max_lr" in takes:
        raise ConfigError(f"{key}.warmup={warmup}: this schedule has its own warm-up, pct_start: drop it")
    warmed = [group["lr"] for group in optimizer.param_groups]
    scheduler = build_target(key, spec, optimizer, **given)
    if warmup and [group["lr"] for group in optimizer.param_groups] != warmed:
        raise ConfigError(
            f"{key}.warmup={warmup}: {spec['_target_']} sets the rate whatever it was, and a warm-up before it would "
            f"multiply it: {key}.warmup=0"
        )
    return [*schedulers, {"scheduler": scheduler, "interval": interval, "monitor": monitor}]


def _watches(spec: Instantiable) -> bool:
    """Whether a scheduler's ``mode`` means higher or lower values; other schedulers use the name differently."""
    parameter = inspect.signature(get_class(spec["_target_"])).parameters.get("mode")
    return parameter is not None and parameter.default in ("min", "max")


def choose_mode(key: str, spec: Instantiable, monitor: str, mode: str) -> str:
    """Choose the mode of a callback or scheduler that watches a metric: that of the metric.

    Raises:
        ConfigError: The config sets the opposite mode.
    """
    if spec.get("mode", mode) != mode:
        better = "higher" if mode == "max" else "lower"
        raise ConfigError(f"{key}.mode={spec['mode']}: {monitor} is better {better}: {mode}")
    return mode


def _build_warmup(optimizer: Optimizer, warmup: Any, n_epochs: int, n_steps: int, key: str) -> list[dict[str, Any]]:
    if isinstance(warmup, bool) or not isinstance(warmup, (int, float)) or warmup < 0:
        raise ConfigError(f"{key}.warmup={warmup}: it must be a number of epochs, or a fraction of the phase below 1")
    if warmup >= n_epochs:
        length = format_count(n_epochs, "epoch")
        raise ConfigError(f"{key}.warmup={warmup}: the phase has {length}: let it be shorter, or a fraction below 1")
    n_warmup = round(n_steps * (warmup if warmup < 1 else warmup / n_epochs))
    if not n_warmup:
        return []
    return [{"scheduler": LinearLR(optimizer, WARMUP_START, total_iters=n_warmup), "interval": "step"}]
