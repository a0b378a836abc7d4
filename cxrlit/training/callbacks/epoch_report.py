"""Report each epoch: a row on the screen, a row of metrics.csv, the curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich import get_console
from torch import Tensor

from cxrlit.core.console import say
from cxrlit.core.errors import format_count
from cxrlit.core.files import write_csv
from cxrlit.metrics.epoch_metrics import read_monitored
from cxrlit.model.module import CXRModule
from cxrlit.training.curves import draw_curves

MIN_WIDTH = 8
"""Smallest width of a column, characters."""
LABELS_FROM = 80
"""Smallest width of the screen that shows labels, characters."""


class EpochReport(Callback):
    """Prints a table row for each epoch, with the changes since the best epoch so far, and adds it to ``metrics.csv``.

    On a wide screen, the labels follow below the row. The mean loss of an epoch is computed here from its batches:
    Lightning's mean omits those before a resume.

    Args:
        folder: The phase folder, for ``metrics.csv`` and ``curves.png``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._rows: list[dict[str, Any]] = []
        self._best: dict[str, float] | None = None
        self._lr = float("nan")
        self._losses: list[Tensor] = []
        self._resumed_losses: list[float] = []
        self._n_images: list[int | Tensor] = []
        self._has_head = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``metrics.csv``; on resume, this removes rows after the resumed state."""
        self._write_metrics(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the learning rate of the step."""
        self._lr = float(trainer.optimizers[0].param_groups[-1]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss and the number of images of the batch."""
        self._losses.append(outputs["mean_loss"])
        self._n_images.append(outputs["n_images"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean loss, and write and print the row of the epoch."""
        assert isinstance(pl_module, CXRModule)
        train_loss = float(np.average(self._read_losses(), weights=self._count_images()))
        self._losses, self._resumed_losses, self._n_images = [], [], []
        pl_module.log("train/loss_epoch", train_loss, batch_size=1)
        scores = pl_module.scores["val"]
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self._lr,
            "train_loss": train_loss,
            "val_loss": scores["loss"],
            "val_n_labels": sum(not math.isnan(value) for value in _read_labels(pl_module, scores).values()),
        }
        for part in ("val", "train"):
            values = {name: value for name, value in pl_module.scores.get(part, {}).items() if name != "loss"}
            row |= {f"{part}_{name}": value for name, value in values.items()}
        self._rows.append(row)
        self._write_metrics(trainer)
        self._print(row, pl_module, trainer.max_epochs)
        if self._best is None or pl_module.is_better(
            pl_module.monitored, read_monitored(self._best, pl_module.monitor)
        ):
            self._best = dict(scores)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves, and say if a callback stopped the training early."""
        if self._rows and trainer.is_global_zero:
            assert isinstance(pl_module, CXRModule)
            if len(self._rows) < (trainer.max_epochs or 0):
                callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
                by = [type(one).__name__ for one in callbacks if getattr(one, "stopped_epoch", 0)] or ["a callback"]
                say(f"stopped after epoch {len(self._rows)} of {trainer.max_epochs} by {', '.join(by)}")
            metrics = pl_module.metrics
            draw_curves(
                pd.DataFrame(self._rows),
                metrics.has_labels,
                metrics.labels,
                pl_module.monitor,
                pl_module.mode,
                self.folder / "curves.png",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, the best scores, and the losses of the epoch so far."""
        return {
            "rows": self._rows,
            "best": self._best,
            "lr": self._lr,
            "losses": self._read_losses(),
            "n_images": self._count_images(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._rows, self._best = state_dict["rows"], state_dict["best"]
        self._lr, self._n_images = state_dict["lr"], state_dict["n_images"]
        self._losses, self._resumed_losses = [], state_dict["losses"]

    def _read_losses(self) -> list[float]:
        """Losses of the epoch's batches so far, in a single transfer from the device."""
        return self._resumed_losses + (torch.stack(self._losses).tolist() if self._losses else [])

    def _count_images(self) -> list[int]:
        """Number of images in each of these batches."""
        return [int(number) for number in self._n_images]

    def _write_metrics(self, trainer: Trainer) -> None:
        path = self.folder / "metrics.csv"
        if not trainer.is_global_zero:
            return
        if self._rows:
            write_csv(path, pd.DataFrame(self._rows))
        else:
            path.unlink(missing_ok=True)

    def _print(self, row: dict[str, Any], module: CXRModule, max_epochs: int | None) -> None:
        """Print a row of the table of epochs, with the header before the first, and the labels below."""
        scores, best, main = module.scores["val"], self._best or {}, _name_main_metric(module)
        cells = {
            "": f"epoch {row['epoch']}/{max_epochs}",
            "train loss": f"{row['train_loss']:.4f}",
            "val loss": f"{row['val_loss']:.4f}",
            "lr": f"{row['lr']:.1e}",
        }
        logged = module.monitor.removeprefix("val/")
        if logged not in ("loss", f"{main}_macro"):
            cells |= {logged: f"{scores[logged]:.4f}", "change": _say_change(scores[logged], best.get(logged))}
        if main is not None:
            value, title = scores[f"{main}_macro"], "AUROC" if main == "auroc" else main
            cells[f"macro {title}"] = f"{value:.4f}"
            cells[f"change of {title}" if "change" in cells else "change"] = _say_change(
                value, best.get(f"{main}_macro")
            )
            if f"train_{main}_macro" in row:
                cells[f"train {title}"] = f"{row[f'train_{main}_macro']:.4f}"
        widths = [max(len(name), MIN_WIDTH if name else len(f"epoch {max_epochs}/{max_epochs}")) for name in cells]
        if not self._has_head:
            say(_align(cells, widths), style="bold")
            self._has_head = True
        n_labels = row["val_n_labels"]
        over = f"  over {format_count(n_labels, 'label')}" if main is not None and n_labels < len(module.labels) else ""
        say(_align(cells.values(), widths) + over)
        if main is not None and get_console().width >= LABELS_FROM:
            self._print_labels(
                _read_labels(module, scores), {label: best.get(f"{main}_{label}") for label in module.labels}
            )

    def _print_labels(self, values: Mapping[str, float], best: Mapping[str, float | None]) -> None:
        defined = [label for label, value in values.items() if not math.isnan(value)]
        shown = [f"{label} {values[label]:.3f} {_say_change(values[label], best[label])}".rstrip() for label in defined]
        if len(defined) < len(values):
            shown.append(f"undefined: {', '.join(label for label in values if label not in defined)}")
        lines, width = [""], get_console().width
        for text in shown:
            if lines[-1] and len(lines[-1]) + len(text) + 2 > width:
                lines.append("")
            lines[-1] += f"  {text}"
        for line in lines:
            say(line, style="dim")


def _align(cells: Iterable[str], widths: Sequence[int]) -> str:
    """Align the first cell left and the others right."""
    first, *others = (
        f"{cell:>{width}}" if number else f"{cell:<{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def _name_main_metric(module: CXRModule) -> str | None:
    """Choose the per-label metric to print: the monitored one, else the first."""
    names = [name for name, has_labels in module.metrics.has_labels.items() if has_labels]
    return next((name for name in names if module.monitor.startswith(f"val/{name}_")), names[0] if names else None)


def _read_labels(module: CXRModule, scores: Mapping[str, float]) -> dict[str, float]:
    main = _name_main_metric(module)
    return {label: scores[f"{main}_{label}"] for label in module.labels} if main else {}


def _say_change(value: float, best: float | None) -> str:
    """Format the change since the best epoch so far; empty in the first epoch."""
    return "" if best is None or math.isnan(best) else f"{value - best:+.3f}"
