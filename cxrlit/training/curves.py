"""The curves of a phase: losses, learning rate and metrics by epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrlit.core.files import replace_file

TITLES = {"auroc": "AUROC", "average_precision": "average precision"}
PARTS = (("train", "train", "C0"), ("val", "validation", "C1"))


def draw_curves(
    table: pd.DataFrame, metrics: Mapping[str, bool], labels: Sequence[str], monitor: str, mode: str, path: Path
) -> None:
    """Draw losses and learning rate, then a row of two panels for each metric: its value, and that of each label.

    Args:
        table: The table of ``metrics.csv``.
        metrics: Names of the metrics, and whether each has a value for each label.
        labels: Names of the labels.
        monitor: Logged name of what chooses the best epoch, which is marked.
        mode: ``max`` or ``min``.
        path: PNG to write.
    """
    n_rows = max(len(metrics), 1)
    figure = Figure(figsize=(13, 4.2 * n_rows), layout="constrained")
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(table["epoch"].min() + 0.5, table["epoch"].max() + 1.5)
        axes.grid(alpha=0.3)
    with replace_file(path) as staged:
        figure.savefig(staged, dpi=110)


def _find_best(table: pd.DataFrame, monitor: str, mode: str) -> int | None:
    scores = table[monitor.replace("/", "_", 1)].to_numpy()
    if np.isnan(scores).all():
        return None
    return int(np.nanargmax(scores) if mode == "max" else np.nanargmin(scores))


def _draw_losses(axes: Axes, table: pd.DataFrame) -> None:
    epochs = table["epoch"] + 1
    for part, name, color in PARTS:
        axes.plot(epochs, table[f"{part}_loss"], marker="o", color=color, label=name)
    axes.set(title="Loss", ylim=(0, None))
    rate = axes.twinx()
    rate.plot(epochs, table["lr"], color="gray", linestyle=":", marker=".", label="learning rate (right)")
    rate.set_yscale("log")
    rate.set_ylim(bottom=table["lr"].max() * 1e-4)  # one cycle ends at nearly nothing
    lines = [*axes.get_lines(), *rate.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], framealpha=0.6)


def _draw_value(axes: Axes, table: pd.DataFrame, column: str, monitor: str, best: int | None) -> None:
    for part, name, color in PARTS:
        if f"{part}_{column}" in table:
            axes.plot(table["epoch"] + 1, table[f"{part}_{column}"], marker="o", color=color, label=name)
    if best is not None:
        score = f": {table[f'val_{column}'][best]:.4f}" if monitor == f"val/{column}" else ""
        axes.axvline(best + 1, color="gray", linestyle=":", label=f"best{score}, epoch {best + 1}")
    axes.legend(framealpha=0.6)


def _draw_labels(axes: Axes, table: pd.DataFrame, metric: str, labels: Sequence[str]) -> None:
    colors = matplotlib.colormaps["tab10"]
    for number, label in enumerate(labels):
        values = table[f"val_{metric}_{label}"]
        axes.plot(
            table["epoch"] + 1,
            values,
            marker=".",
            color=colors(number % 10),
            linestyle=("-", "--", ":")[number // 10 % 3],
            label=f"{label} (undefined)" if values.isna().all() else label,
        )
    if metric == "auroc":
        axes.axhline(0.5, color="gray", linewidth=0.8)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
