"""Keeps the weights of the best epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from cxrlit.metrics.macro import macro
from cxrlit.model.module import CXRModule
from cxrlit.training.checkpoint import write_checkpoint


class BestCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` after each epoch whose validation macro AUROC is above all before it.

    Args:
        folder: The phase folder.
        metadata: What the checkpoint says of its origin (``write_checkpoint``).

    Attributes:
        epoch: The best epoch so far, from 0; None before the first has ended.
        score: Its validation macro AUROC.
    """

    def __init__(self, folder: str | Path, metadata: Mapping[str, Any]) -> None:
        self.folder, self.metadata = Path(folder), dict(metadata)
        self.epoch: int | None = None
        self.score = float("-inf")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        score = macro(pl_module.auroc["val"]).value
        if score > self.score:
            self.epoch, self.score = trainer.current_epoch, score
            if trainer.is_global_zero:
                write_checkpoint(self.folder / "best.ckpt", self.metadata, self.epoch, score, pl_module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.score = state_dict["epoch"], state_dict["score"]
