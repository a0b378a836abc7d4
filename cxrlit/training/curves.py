"""Plot losses, learning rate and metrics of a phase by epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cxrlit.core.files import replace_file

TITLES = {"auroc": "AUROC", "average_precision": "average precision"}
N_DOTS = 40
"""Most epochs that are marked by dots."""
PARTS = (("train", "train", "C0"), ("val", "validation", "C1"))


def draw_curves(
    table: pd.DataFrame, metrics: Mapping[str, bool], labels: Sequence[str], monitor: str, mode: str, path: Path
) -> None:
    """Write the curves of ``plot_curves`` as a PNG file."""
    figure = plot_curves(table, metrics, labels, monitor, mode)
    with replace_file(path) as staged:
        figure.savefig(staged, dpi=110)


def plot_curves(
    table: pd.DataFrame, metrics: Mapping[str, bool], labels: Sequence[str], monitor: str, mode: str
) -> Figure:
    """Plot losses and learning rate, then two panels for each metric: its value, and the values of the labels.

    Args:
        table: The table of ``metrics.csv``.
        metrics: Names of the metrics, and whether each has a value for each label.
        labels: Names of the labels.
        monitor: Logged name of the metric that chooses the best epoch, which is marked.
        mode: ``max`` or ``min``.
    """
    n_rows = max(len(metrics), 1)
    longest = max(map(len, labels), default=0) + len(" (undefined)")
    width = 10 + (0.6 + 0.09 * longest) * _count_columns(labels)  # leaves room for long names
    figure = Figure(figsize=(width, 4.5 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, 3, squeeze=False)
    best = _find_best(table, monitor, mode)
    _draw_losses(panels[0, 0], table)
    for row, (name, has_labels) in enumerate(metrics.items()):
        column = f"{name}_macro" if has_labels else name
        _draw_value(panels[row, 1], table, column, monitor, best)
        title = TITLES.get(name, name)
        panels[row, 1].set_title(f"Macro {title}" if has_labels else title)
        if has_labels:
            _draw_labels(panels[row, 2], table, name, labels)
            panels[row, 2].set_title(f"Validation {title} by label")
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(table["epoch"].min() - 0.5, table["epoch"].max() + 0.5)
        axes.grid(alpha=0.3)
    return figure


def _count_columns(labels: Sequence[str]) -> int:
    """Number of legend columns that keeps the legend no higher than its panel."""
    return -(-len(labels) // 16)


def _find_best(table: pd.DataFrame, monitor: str, mode: str) -> int | None:
    """The row of the best epoch."""
    scores = table[monitor.replace("/", "_", 1)].to_numpy()
    if np.isnan(scores).all():
        return None
    return int(np.nanargmax(scores) if mode == "max" else np.nanargmin(scores))


def _draw_losses(axes: Axes, table: pd.DataFrame) -> None:
    for part, name, color in PARTS:
        _plot(axes, table, f"{part}_loss", color=color, label=name)
    losses = table[["train_loss", "val_loss"]].to_numpy()
    losses = losses[np.isfinite(losses)]
    axes.set(title="Loss", ylim=(min(0, *losses), 1.08 * max(*losses, 1e-6)) if len(losses) else None)
    rate = axes.twinx()
    rates = table["lr"].where(table["lr"] > 0)  # a log axis cannot show 0
    rate.plot(table["epoch"], rates, color="gray", linestyle=":", marker=".", label="learning rate (right)")
    if rates.notna().any():
        rate.set_yscale("log")
        rate.set_ylim(rates.min() / 2, 2 * rates.max())
    lines = [*axes.get_lines(), *rate.get_lines()]
    _add_legend(axes, lines)


def _draw_value(axes: Axes, table: pd.DataFrame, column: str, monitor: str, best: int | None) -> None:
    for part, name, color in PARTS:
        if f"{part}_{column}" in table:
            _plot(axes, table, f"{part}_{column}", color=color, label=name)
    if best is not None:
        epoch, is_monitored = int(table["epoch"].iloc[best]), monitor == f"val/{column}"
        score = f": {table[f'val_{column}'].iloc[best]:.4f}" if is_monitored else ""
        axes.axvline(epoch, color="gray", linestyle=":", zorder=1, label=f"best{score}, epoch {epoch}")
    _add_legend(axes, axes.get_lines())


def _draw_labels(axes: Axes, table: pd.DataFrame, metric: str, labels: Sequence[str]) -> None:
    colors = matplotlib.colormaps["tab10"]
    for number, label in enumerate(labels):
        values = table[f"val_{metric}_{label}"]
        axes.plot(
            table["epoch"],
            values,
            marker=".",
            color=colors(number % 10),
            linestyle=("-", "--", ":")[number // 10 % 3],
            label=f"{label} (undefined)" if values.isna().all() else label,
        )
    handles = axes.get_lines()
    if metric == "auroc":
        axes.axhline(0.5, color="gray", linewidth=0.8)
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=_count_columns(labels)
    )


def _plot(axes: Axes, table: pd.DataFrame, column: str, color: str, label: str) -> None:
    """Plot a value by epoch, with dots if the epochs are few."""
    marker = "o" if len(table) <= N_DOTS else ""
    axes.plot(table["epoch"], table[column], marker=marker, color=color, label=label)


def _add_legend(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Add a legend below the panel."""
    axes.legend(
        lines, [str(line.get_label()) for line in lines], loc="upper center", bbox_to_anchor=(0.5, -0.13),
        ncols=3, frameon=False, handlelength=1.4, columnspacing=1.0,
    )  # fmt: skip
