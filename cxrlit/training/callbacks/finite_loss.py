"""Stop a diverging training before it changes a weight."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cxrlit.core.distributed import gather_over_ranks
from cxrlit.core.errors import DivergenceError, name_some
from cxrlit.data.datamodule import CXRDataModule

MAX_NAMES = 64


class FiniteLoss(Callback):
    """Ends the training at a NaN or infinite loss, and names the images of the batch.

    Raises:
        DivergenceError: The loss is NaN or infinite.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._number = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the rows of the batch, for the message."""
        self._rows, self._number = batch["row"], batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss before the backward pass."""
        if torch.isfinite(loss):
            return
        assert self._rows is not None
        rows = [row for share in gather_over_ranks(self._rows.tolist()) for row in share]  # all devices come here
        images = self._name_images(trainer, rows)
        raise DivergenceError(
            f"the loss is {loss.item():g} at epoch {trainer.current_epoch + 1}, batch {self._number + 1}; the step is "
            f"not taken, and what was saved before is kept. Set a lower lr, or look at these images: {images}"
        )

    def _name_images(self, trainer: Trainer, rows: list[int]) -> str:
        datamodule = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, CXRDataModule):
            return name_some([f"row {row}" for row in rows], MAX_NAMES)
        return name_some(datamodule.data.name_rows(datamodule.parts["train"].iloc[rows])["image"].tolist(), MAX_NAMES)
