"""Keep the weights of the best epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from cxrlit.model.checkpoint import write_checkpoint
from cxrlit.model.module import CXRModule


class BestCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` after each epoch with the best monitored value so far.

    It writes the validated weights: a weight average is in the module only during validation.

    Args:
        folder: The phase folder.
        metadata: Metadata of the checkpoint (``write_checkpoint``).

    Attributes:
        epoch: The best epoch so far, from 1; None before the first has ended.
        score: Its monitored value.
    """

    def __init__(self, folder: str | Path, metadata: Mapping[str, Any]) -> None:
        self.folder, self.metadata = Path(folder), dict(metadata)
        self.epoch: int | None = None
        self.score = float("nan")
        self._validated: dict[str, Tensor] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the last batch, copy the validated weights."""
        if batch_idx + 1 == trainer.num_val_batches[0] and trainer.is_global_zero:
            assert isinstance(pl_module, CXRModule)
            self._validated = pl_module.copy_weights()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``best.ckpt`` if the epoch is the best so far."""
        assert isinstance(pl_module, CXRModule)
        score = pl_module.monitored
        if self.epoch is None or pl_module.is_better(score, self.score):
            self.epoch, self.score = trainer.current_epoch + 1, score
            if trainer.is_global_zero:
                write_checkpoint(
                    self.folder / "best.ckpt", self.metadata, self.epoch, pl_module.scores["val"], self._validated
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch and its score."""
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch and its score."""
        self.epoch, self.score = state_dict["epoch"], state_dict["score"]
