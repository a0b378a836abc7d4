"""Which BatchNorms keep their statistics."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from cxrlit.config.types import BATCH_NORM_MODES, BatchNormMode
from cxrlit.core.errors import ConfigError
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.model.adapt_batch_norm import adapt_batch_norms
from cxrlit.model.module import CXRModule


class FreezeBatchNorm(Callback):
    """A BatchNorm that does not train keeps its statistics.

    PyTorch puts a whole network into train mode at once, which lets the running statistics of frozen layers move. Works
    with any LightningModule.

    Args:
        mode: ``frozen``: each BatchNorm keeps statistics, weight and bias. ``affine``: each keeps its statistics, and
            weight and bias train where they require a gradient. ``adapt``: statistics are estimated anew on the
            training images before the first step, and then each keeps all (``CXRModule`` and ``CXRDataModule`` alone).
            ``train``: those whose weight or bias requires a gradient train, all others keep what they have.

    Raises:
        ValueError: There is no such mode.

    Attributes:
        is_adapted: Whether the statistics were estimated anew.

    >>> trainer = Trainer(logger=False, callbacks=[FreezeBatchNorm()])
    """

    def __init__(self, mode: BatchNormMode = "frozen") -> None:
        if mode not in BATCH_NORM_MODES:
            raise ValueError(f"mode={mode}: it may be {', '.join(BATCH_NORM_MODES)}")
        self.mode = mode
        self.is_adapted = False

    def freeze(self, module: nn.Module) -> None:
        """Freeze weight and bias of every BatchNorm, unless they may train."""
        if self.mode in ("frozen", "adapt"):
            for norm in list_batch_norms(module):
                norm.requires_grad_(False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before the optimizer is built
            self.freeze(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.mode != "adapt" or self.is_adapted:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, CXRModule) or not isinstance(datamodule, CXRDataModule):
            raise ConfigError("FreezeBatchNorm('adapt') needs a CXRModule and a CXRDataModule")
        with trainer.precision_plugin.forward_context():
            adapt_batch_norms(pl_module.network, datamodule.statistics_dataloader())
        self.is_adapted = True

    def state_dict(self) -> dict[str, Any]:
        return {"is_adapted": True} if self.is_adapted else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.is_adapted = state_dict["is_adapted"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.set_modes(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.set_modes(pl_module)  # a validation, another callback or a user's hook may have called train()

    def set_modes(self, module: nn.Module) -> None:
        """Let each BatchNorm that has something to train use the statistics of the batch, and no other."""
        for norm in list_batch_norms(module):
            norm.train(self.mode == "train" and any(parameter.requires_grad for parameter in norm.parameters()))


def list_batch_norms(module: nn.Module) -> list[nn.Module]:
    """The BatchNorms of a module."""
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
