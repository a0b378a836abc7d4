"""Freeze BatchNorm statistics."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from cxrlit.config.types import BATCH_NORM_MODES, BatchNormMode
from cxrlit.core.errors import ConfigError
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.model.adapt_batch_norm import adapt_batch_norms
from cxrlit.model.module import CXRModule


class FreezeBatchNorm(Callback):
    """Keeps the statistics of every BatchNorm that does not train.

    PyTorch puts the whole network into train mode, in which running statistics of frozen layers change. Works with any
    LightningModule.

    Args:
        mode: ``frozen``: statistics, weight and bias are frozen. ``affine``: statistics are frozen; weight and bias
            train if they require a gradient. ``adapt``: statistics are re-estimated on the training images before the
            first step, then everything is frozen (only ``CXRModule`` with ``CXRDataModule``). ``train``: a BatchNorm
            trains if its weight or bias requires a gradient; the others are frozen.

    Raises:
        ValueError: The mode is unknown.

    Attributes:
        is_adapted: Whether the statistics were re-estimated.

    >>> trainer = Trainer(logger=False, callbacks=[FreezeBatchNorm()])
    """

    def __init__(self, mode: BatchNormMode = "frozen") -> None:
        if mode not in BATCH_NORM_MODES:
            raise ValueError(f"mode={mode}: it may be {', '.join(BATCH_NORM_MODES)}")
        self.mode = mode
        self.is_adapted = False

    def freeze(self, module: nn.Module) -> None:
        """Freeze weight and bias of every BatchNorm, in modes ``frozen`` and ``adapt``."""
        if self.mode in ("frozen", "adapt"):
            for norm in list_batch_norms(module):
                norm.requires_grad_(False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Call ``freeze`` before the optimizer is built."""
        if stage == "fit":
            self.freeze(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In mode ``adapt``, re-estimate the statistics unless that was done.

        Raises:
            ConfigError: It is not a ``CXRModule`` with a ``CXRDataModule``.
        """
        if self.mode != "adapt" or self.is_adapted:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, CXRModule) or not isinstance(datamodule, CXRDataModule):
            raise ConfigError("FreezeBatchNorm('adapt') needs a CXRModule and a CXRDataModule")
        with trainer.precision_plugin.forward_context():
            adapt_batch_norms(pl_module.network, datamodule.statistics_dataloader())
        self.is_adapted = True

    def state_dict(self) -> dict[str, Any]:
        """Record that the statistics were re-estimated, so that a resume does not repeat it."""
        return {"is_adapted": True} if self.is_adapted else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore ``is_adapted``."""
        self.is_adapted = state_dict["is_adapted"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the modes after Lightning has called ``train()``."""
        self.set_modes(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the modes again: a validation, a callback or a user's hook may have called ``train()``."""
        self.set_modes(pl_module)

    def set_modes(self, module: nn.Module) -> None:
        """Put each BatchNorm that trains into train mode, and all others into eval mode."""
        for norm in list_batch_norms(module):
            norm.train(self.mode == "train" and any(parameter.requires_grad for parameter in norm.parameters()))


def list_batch_norms(module: nn.Module) -> list[nn.Module]:
    """List the BatchNorms of a module."""
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
