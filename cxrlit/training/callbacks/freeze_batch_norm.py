"""Which BatchNorms keep their statistics."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from cxrlit.model.densenet import CXRNet, list_last_modules
from cxrlit.training.callbacks.phased_unfreezing import UnfreezeSchedule, network_of


class FreezeBatchNorm(Callback):
    """Keeps the statistics of every BatchNorm that does not train.

    PyTorch puts a whole network into train mode at once, which lets the running statistics of frozen layers move.
    With ``freeze_bn`` no BatchNorm moves; without, only those of the layers that train in the epoch.

    Args:
        n_unfreeze: Last layers that train; with a schedule, its largest number.
        freeze_bn: No BatchNorm trains.
        schedule: {epoch: n_unfreeze}, as for ``PhasedUnfreezing``.
    """

    def __init__(self, n_unfreeze: int, freeze_bn: bool, schedule: Mapping[int, int] | None = None) -> None:
        self.schedule = UnfreezeSchedule(n_unfreeze, schedule)
        self.freeze_bn = freeze_bn
        self._frozen: list[nn.Module] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which is not called where an epoch goes on in its middle

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = network_of(pl_module)
        set_batch_norm_modes(network, self.schedule.at(trainer.current_epoch), self.freeze_bn)
        self._frozen = [
            module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and not module.training
        ]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # A validation, another callback or a user's hook may have called train() since the epoch began.
        for module in self._frozen:
            module.eval()


def set_batch_norm_modes(network: CXRNet, n_unfreeze: int, freeze_bn: bool) -> None:
    """BatchNorms of the trained layers use and update the batch's statistics, all others keep theirs."""
    training = {id(module) for module in list_last_modules(network, n_unfreeze)} if not freeze_bn else set()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(id(module) in training)
