"""The curves of a phase as a picture."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrlit.core.files import replace_file


def draw_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Loss, learning rate, macro AUROC and the AUROC of each label by epoch.

    Args:
        metrics: The table of ``metrics.csv``.
        path: PNG to write.
    """
    epochs = metrics["epoch"] + 1
    scores = metrics["val_auroc_macro"].to_numpy()
    best = None if np.isnan(scores).all() else int(np.nanargmax(scores))
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss, score, labels = figure.subplots(1, 3)

    loss.plot(epochs, metrics["train_loss"], marker="o", label="train")
    loss.plot(epochs, metrics["val_loss"], marker="o", label="validation")
    loss.set(title="Loss", ylim=(0, None))
    rate = loss.twinx()
    rate.plot(epochs, metrics["lr"], color="gray", linestyle=":", label="learning rate (right)")
    rate.set_yscale("log")
    rate.set_ylim(bottom=metrics["lr"].max() * 1e-4)  # one cycle ends at nearly nothing
    lines = [*loss.get_lines(), *rate.get_lines()]
    loss.legend(lines, [str(line.get_label()) for line in lines], loc="lower left")

    for part, name in (("train", "train"), ("val", "validation")):
        if f"{part}_auroc_macro" in metrics:
            score.plot(epochs, metrics[f"{part}_auroc_macro"], marker="o", color=f"C{part == 'val':d}", label=name)
    if best is not None:
        score.axvline(best + 1, color="gray", linestyle=":", label=f"best: {scores[best]:.4f}, epoch {best + 1}")
    score.set(title="Macro AUROC")
    score.legend(loc="lower right")

    colors = matplotlib.colormaps["tab10"]
    columns = [column for column in metrics.columns if column.startswith("val_auroc_") and column != "val_auroc_macro"]
    for number, column in enumerate(columns):
        label, values = column.removeprefix("val_auroc_"), metrics[column]
        name = f"{label} (undefined)" if values.isna().all() else label
        labels.plot(
            epochs,
            values,
            marker=".",
            color=colors(number % 10),
            linestyle=("-", "--", ":")[number // 10 % 3],
            label=name,
        )
    labels.axhline(0.5, color="gray", linewidth=0.8)
    labels.set(title="Validation AUROC by label")
    labels.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)

    for axes in (loss, score, labels):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    with replace_file(path) as staged:
        figure.savefig(staged, dpi=110)
