"""Metrics after an epoch: torchmetrics on all of its probabilities, with NaN for undefined labels."""

import difflib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.config.types import Instantiable
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.metrics.macro import macro

UNKNOWN = -1
"""Code of an unknown target: ``ignore_index`` of torchmetrics."""
LOSS = "loss"
"""Name of the loss, which is measured too; lower is better."""


class EpochMetrics:
    """Metrics by name, each computed once over a whole epoch.

    A metric receives (N, L) float32 probs and (N, L) int64 targets: 1 present, 0 absent, -1 unknown. It returns one
    number, or one per label. A label without both a positive and a negative has NaN, whatever the metric returns. A
    single label is passed as two equal columns, because torchmetrics requires at least two labels.

    Args:
        metrics: The metrics by name.
        labels: Names of the L labels.

    Raises:
        ConfigError: An object is no metric, fails on probs and targets, or returns another shape.

    >>> from cxrlit.metrics.auroc import LabelAUROC
    >>> metrics = EpochMetrics({"auroc": LabelAUROC()}, ["Mass", "Nodule"])
    >>> metrics.measure(torch.tensor([[0.9, 0.2], [0.3, 0.6]]), torch.tensor([[1.0, 1.0], [0.0, torch.nan]]))
    {'auroc_macro': 1.0, 'auroc_Mass': 1.0, 'auroc_Nodule': nan}
    """

    def __init__(self, metrics: Mapping[str, Metric], labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                kind = type(metric).__name__
                raise ConfigError(f"metrics.collection.{name}: it must be a torchmetrics.Metric, not a {kind}")
            metric.distributed_available_fn = _is_never  # every rank has the predictions of all ranks
        self.collection = MetricCollection(dict(metrics), compute_groups=False)
        self.has_labels = {name: _try_metric(name, metric, _count_columns(labels)) for name, metric in metrics.items()}
        names = [*self.list_names(), LOSS]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"metrics.collection: two results are logged as {name}: give one another name")

    def list_names(self) -> list[str]:
        """Names of the values of ``measure``, in order."""
        names = ("macro", *self.labels)
        return [
            logged
            for name, has_labels in self.has_labels.items()
            for logged in ([f"{name}_{label}" for label in names] if has_labels else [name])
        ]

    def measure(self, probs: Tensor, targets: Tensor) -> dict[str, float]:
        """Values by name: ``<metric>``, or ``<metric>_macro`` and ``<metric>_<label>``.

        Args:
            probs: (N, L) float32.
            targets: (N, L) float32; 1 present, 0 absent, NaN unknown.

        Raises:
            ValueError: A prob is NaN.
        """
        if probs.isnan().any():
            raise ValueError("a probability is NaN")
        n_columns = _count_columns(self.labels)
        probs, targets = probs.expand(-1, n_columns), targets.expand(-1, n_columns)
        known = targets.nan_to_num(UNKNOWN).to(torch.int64)
        undefined = ~((known == 1).any(dim=0) & (known == 0).any(dim=0))
        filled = torch.where(undefined, torch.arange(len(known))[:, None] % 2, known)  # some metrics need both classes
        values: dict[str, float] = {}
        for name, has_labels in self.has_labels.items():
            metric = self.collection[name]
            metric.reset()
            metric.update(probs, filled if has_labels else known)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # labels without positives are undefined here
                result = np.asarray(metric.compute(), dtype=np.float64)
            metric.reset()
            if not has_labels:
                values[name] = float(result)
                continue
            result = np.where(undefined.numpy(), np.nan, result)[: len(self.labels)]
            values[f"{name}_macro"] = macro(result).value
            values |= {f"{name}_{label}": float(value) for label, value in zip(self.labels, result, strict=True)}
        return values

    def choose_mode(self, monitor: str) -> str:
        """``max`` or ``min`` for a value that is logged as ``val/<name>``.

        Raises:
            ConfigError: No measured value has that name, or its metric does not say which direction is better.
        """
        names = [f"val/{name}" for name in (*self.list_names(), LOSS)]
        if monitor not in names:
            [close] = difflib.get_close_matches(f"val/{monitor.removeprefix('val/')}", names, n=1, cutoff=0.8) or [""]
            hint = f"did you mean {close}?" if close else f"it may be {', '.join(names)}"
            raise ConfigError(f"monitor={monitor}: it is not measured; {hint}")
        if monitor == f"val/{LOSS}":
            return "min"
        logged = monitor.removeprefix("val/")
        name = max((name for name in self.has_labels if f"{logged}_".startswith(f"{name}_")), key=len)
        better = self.collection[name].higher_is_better
        if better is None:
            raise ConfigError(f"monitor={monitor}: {name} does not say whether higher is better (higher_is_better)")
        return "max" if better else "min"


def _count_columns(labels: Sequence[str]) -> int:
    return max(2, len(labels))


def _is_never() -> bool:
    return False


def describe_monitor(monitor: str) -> str:
    """Readable name of a monitored value.

    >>> describe_monitor("val/auroc_macro"), describe_monitor("val/loss")
    ('validation macro AUROC', 'val/loss')
    """
    return "validation macro AUROC" if monitor == "val/auroc_macro" else monitor


def read_monitored(scores: Mapping[str, float], monitor: str) -> float:
    """The monitored value among scores by name; NaN if it is not among them.

    >>> read_monitored({"loss": 0.25}, "val/loss")
    0.25
    """
    return scores.get(monitor.removeprefix("val/"), math.nan)


def drop_undefined(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that are not NaN.

    >>> drop_undefined({"auroc_Mass": float("nan"), "loss": 0.25})
    {'loss': 0.25}
    """
    return {name: value for name, value in scores.items() if not math.isnan(value)}


def build_metrics(specs: Mapping[str, Instantiable | None], labels: Sequence[str]) -> dict[str, Metric]:
    """Build the metrics that a config names.

    A torchmetrics class that takes ``num_labels``, ``ignore_index`` or ``average`` gets the number of labels (at
    least 2), -1 and ``none`` unless the config sets them.

    Args:
        specs: ``metrics.collection`` of the config, by name; null drops one.
        labels: Names of the L labels.

    Raises:
        ConfigError: A metric cannot be built.
    """
    metrics: dict[str, Any] = {}
    for name, spec in specs.items():
        if spec is None:
            continue
        key = f"metrics.collection.{name}"
        if not name.isidentifier() or name == LOSS:
            raise ConfigError(f"{key}: a metric's name has letters, digits and _, and is not {LOSS}")
        check_target(key, spec)
        given = {"num_labels": _count_columns(labels), "ignore_index": UNKNOWN, "average": "none"}
        if spec.get("average") in ("macro", "weighted"):
            raise ConfigError(
                f"{key}.average={spec['average']}: a label without positives would count as 0: drop it; the mean over "
                f"the other labels is logged as {name}_macro"
            )
        metrics[name] = build_target(
            key, {**{name: value for name, value in given.items() if takes_argument(spec, name)}, **spec}
        )
    return metrics


def _try_metric(name: str, metric: Metric, n_labels: int) -> bool:
    """Whether a metric returns one number per label; otherwise it returns a single number."""
    key = f"metrics.collection.{name}"
    try:
        metric.update(torch.full((2, n_labels), 0.5), torch.tensor([[0], [1]]).repeat(1, n_labels))
        shape = np.asarray(metric.compute(), dtype=np.float64).shape
        metric.reset()
    except Exception as error:  # a user's class may raise anything
        raise ConfigError(
            f"{key}: it fails on probs and targets: {type(error).__name__}: {first_line(error)}"
        ) from None
    if shape not in ((), (n_labels,)):
        raise ConfigError(f"{key}: its result has shape {shape}: it must be one number, or one for each label")
    return shape == (n_labels,)
