"""What an epoch brought: a line on the screen, a row of metrics.csv, the curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cxrlit.core.console import say
from cxrlit.core.files import replace_file, write_csv
from cxrlit.metrics.macro import macro
from cxrlit.model.module import CXRModule


class EpochReport(Callback):
    """After each epoch: its line, with each label's change since the best epoch so far, and its row.

    The mean loss of an epoch is made here of the losses of its batches: Lightning's own forgets those before a resume.

    Args:
        folder: The phase folder; gets ``metrics.csv`` and ``curves.png``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._rows: list[dict[str, Any]] = []
        self._best: NDArray[np.float64] | None = None
        self._lr = float("nan")
        self._losses: list[Tensor] = []
        self._resumed_losses: list[float] = []
        self._n_images: list[int | Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_metrics(trainer)  # where a phase resumes, without what came after the state it resumes from

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["mean_loss"])
        self._n_images.append(outputs["n_images"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        values = pl_module.auroc["val"]
        train_loss = float(np.average(self._read_losses(), weights=self._count_images()))
        self._losses, self._resumed_losses, self._n_images = [], [], []
        pl_module.log("train/loss_epoch", train_loss, batch_size=1)
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": self._lr,
            "train_loss": train_loss,
            "val_loss": float(trainer.callback_metrics["val/loss"]),
            "val_n_labels": macro(values).n_labels,
        }
        for part, aurocs in sorted(pl_module.auroc.items(), reverse=True):  # val, train
            row[f"{part}_auroc_macro"] = macro(aurocs).value
            names = [f"{part}_auroc_{label}" for label in pl_module.labels]
            row |= dict(zip(names, aurocs.tolist(), strict=True))
        self._rows.append(row)
        self._write_metrics(trainer)
        say(self._describe(row, pl_module.labels, values, trainer.max_epochs))
        if self._best is None or macro(values).value > macro(self._best).value:
            self._best = values

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._rows and trainer.is_global_zero:
            draw_curves(pd.DataFrame(self._rows), self.folder / "curves.png")

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self._rows,
            "best": None if self._best is None else self._best.tolist(),
            "lr": self._lr,
            "losses": self._read_losses(),
            "n_images": self._count_images(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self._rows, self._best = state_dict["rows"], None if best is None else np.array(best)
        self._lr, self._n_images = state_dict["lr"], state_dict["n_images"]
        self._losses, self._resumed_losses = [], state_dict["losses"]

    def _read_losses(self) -> list[float]:
        """The loss of each batch of the epoch so far; the device is asked once."""
        return self._resumed_losses + (torch.stack(self._losses).tolist() if self._losses else [])

    def _count_images(self) -> list[int]:
        """Images of each of those batches."""
        return [int(number) for number in self._n_images]

    def _write_metrics(self, trainer: Trainer) -> None:
        path = self.folder / "metrics.csv"
        if not trainer.is_global_zero:
            return
        if self._rows:
            write_csv(path, pd.DataFrame(self._rows))
        else:
            path.unlink(missing_ok=True)

    def _describe(
        self, row: dict[str, Any], labels: Sequence[str], values: NDArray[np.float64], max_epochs: int | None
    ) -> str:
        before = np.full(len(labels), np.nan) if self._best is None else self._best
        mean = macro(values)
        change = _say_change(mean.value, macro(before).value)
        over = "" if mean.n_labels == len(labels) else f" over {mean.n_labels} labels"
        train = f" (train {row['train_auroc_macro']:.4f})" if "train_auroc_macro" in row else ""
        shown = [
            f"{label} {value:.3f}{_say_change(value, best)}"
            for label, value, best in zip(labels, values, before, strict=True)
            if not np.isnan(value)
        ]
        undefined = [label for label, value in zip(labels, values, strict=True) if np.isnan(value)]
        if undefined:
            shown.append(f"undefined: {', '.join(undefined)}")
        return (
            f"epoch {row['epoch'] + 1}/{max_epochs}  loss {row['train_loss']:.4f} val {row['val_loss']:.4f}  "
            f"lr {row['lr']:.1e}  macro AUROC {mean.value:.4f}{change}{over}{train}"
            f"  |  {'  '.join(shown)}"
        )


def _say_change(value: float, best: float) -> str:
    """The change since the best epoch so far; nothing in the first."""
    return "" if np.isnan(best) else f" ({value - best:+.3f})"


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
