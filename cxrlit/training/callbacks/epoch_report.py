"""What an epoch brought: a line on the screen, a row of metrics.csv, the curves."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cxrlit.core.console import say
from cxrlit.core.errors import format_count
from cxrlit.core.files import write_csv
from cxrlit.metrics.epoch_metrics import read_monitored
from cxrlit.model.module import CXRModule
from cxrlit.training.curves import draw_curves


class EpochReport(Callback):
    """After each epoch: its line, with each label's change since the best epoch so far, and its row in ``metrics.csv``.

    The mean loss of an epoch is made here of the losses of its batches: Lightning's own forgets those before a resume.

    Args:
        folder: The phase folder; gets ``metrics.csv`` and ``curves.png``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._rows: list[dict[str, Any]] = []
        self._best: dict[str, float] | None = None
        self._lr = float("nan")
        self._losses: list[Tensor] = []
        self._resumed_losses: list[float] = []
        self._n_images: list[int | Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_metrics(trainer)  # where a phase resumes, without what came after the state it resumes from

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._lr = float(trainer.optimizers[0].param_groups[-1]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["mean_loss"])
        self._n_images.append(outputs["n_images"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        say(self._describe(row, pl_module, trainer.max_epochs))
        if self._best is None or pl_module.is_better(
            pl_module.monitored, read_monitored(self._best, pl_module.monitor)
        ):
            self._best = dict(scores)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        return {
            "rows": self._rows,
            "best": self._best,
            "lr": self._lr,
            "losses": self._read_losses(),
            "n_images": self._count_images(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows, self._best = state_dict["rows"], state_dict["best"]
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

    def _describe(self, row: dict[str, Any], module: CXRModule, max_epochs: int | None) -> str:
        scores, best, main = module.scores["val"], self._best or {}, _name_main_metric(module)
        text = (
            f"epoch {row['epoch']}/{max_epochs}  loss {row['train_loss']:.4f} val {row['val_loss']:.4f}  "
            f"lr {row['lr']:.1e}"
        )
        logged = module.monitor.removeprefix("val/")
        if logged not in ("loss", f"{main}_macro"):
            text += f"  {logged} {scores[logged]:.4f}{_say_change(scores[logged], best.get(logged))}"
        if main is None:
            return text
        value, labels = scores[f"{main}_macro"], _read_labels(module, scores)
        defined = {label: value for label, value in labels.items() if not math.isnan(value)}
        over = "" if len(defined) == len(labels) else f" over {format_count(len(defined), 'label')}"
        train = f" (train {row[f'train_{main}_macro']:.4f})" if f"train_{main}_macro" in row else ""
        shown = [
            f"{label} {value:.3f}{_say_change(value, best.get(f'{main}_{label}'))}" for label, value in defined.items()
        ]
        if len(defined) < len(labels):
            shown.append(f"undefined: {', '.join(label for label in labels if label not in defined)}")
        title = "macro AUROC" if main == "auroc" else f"macro {main}"
        change = _say_change(value, best.get(f"{main}_macro"))
        return f"{text}  {title} {value:.4f}{change}{over}{train}  |  {'  '.join(shown)}"


def _name_main_metric(module: CXRModule) -> str | None:
    """The metric of each label that the screen shows: that of the monitor, else the first."""
    names = [name for name, has_labels in module.metrics.has_labels.items() if has_labels]
    return next((name for name in names if module.monitor.startswith(f"val/{name}_")), names[0] if names else None)


def _read_labels(module: CXRModule, scores: Mapping[str, float]) -> dict[str, float]:
    main = _name_main_metric(module)
    return {label: scores[f"{main}_{label}"] for label in module.labels} if main else {}


def _say_change(value: float, best: float | None) -> str:
    """The change since the best epoch so far; nothing in the first."""
    return "" if best is None or math.isnan(best) else f" ({value - best:+.3f})"
