"""Which parameters train: the head and the last layers."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cxrlit.core.errors import ConfigError
from cxrlit.model.densenet import CXRNet, list_trainable
from cxrlit.model.module import CXRModule


class UnfreezeSchedule:
    """How many of the last layers train in each epoch.

    Args:
        n_unfreeze: As Keras counts them, 0 to 427; with a schedule, its largest number.
        schedule: {epoch: n_unfreeze}, from epoch 0 on; None: ``n_unfreeze`` throughout.

    Raises:
        ValueError: The schedule does not start at epoch 0, or its largest number is not ``n_unfreeze``.
    """

    def __init__(self, n_unfreeze: int, schedule: Mapping[int, int] | None = None) -> None:
        self.n_unfreeze = n_unfreeze
        self.steps = dict(schedule or {0: n_unfreeze})
        if 0 not in self.steps or max(self.steps.values()) != n_unfreeze:
            raise ValueError(f"the schedule {self.steps} must start at epoch 0 and reach n_unfreeze={n_unfreeze}")

    def at(self, epoch: int) -> int:
        """Layers that train in an epoch.

        >>> [UnfreezeSchedule(50, {0: 10, 2: 50}).at(epoch) for epoch in range(4)]
        [10, 10, 50, 50]
        """
        return self.steps[max(start for start in self.steps if start <= epoch)]


class PhasedUnfreezing(Callback):
    """The head and the last layers train; how many layers may change from epoch to epoch.

    The optimizer is built once, over all that will ever train. A parameter whose turn has not come has no
    gradient, and the optimizer leaves it alone, weight decay included.

    Args:
        n_unfreeze: Last layers that train, as Keras counts them: 0 to 427. With a schedule, its largest number.
        freeze_bn: The BatchNorms among them keep their weight and bias.
        schedule: {epoch: n_unfreeze}, from epoch 0 on; None: ``n_unfreeze`` throughout.
    """

    def __init__(self, n_unfreeze: int, freeze_bn: bool, schedule: Mapping[int, int] | None = None) -> None:
        self.schedule = UnfreezeSchedule(n_unfreeze, schedule)
        self.freeze_bn = freeze_bn
        self._trainable: set[int] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before the optimizer is built
            self._unfreeze(pl_module, self.schedule.n_unfreeze)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._unfreeze(pl_module, self.schedule.n_unfreeze)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
        if {id(parameter) for parameter in held} != self._trainable:
            raise ConfigError(
                f"the optimizer holds {len(held)} parameters, the phase trains {len(self._trainable)}: "
                "only PhasedUnfreezing may set requires_grad"
            )
        self.on_train_epoch_start(trainer, pl_module)  # which is not called where an epoch goes on in its middle

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unfreeze(pl_module, self.schedule.at(trainer.current_epoch))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Refuse a step in which something else would change."""
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None and id(parameter) not in self._trainable:
                raise ConfigError(f"{name} is frozen in this phase and has a gradient: something else unfroze it")

    def _unfreeze(self, module: LightningModule, n_unfreeze: int) -> None:
        self._trainable = unfreeze_last(network_of(module), n_unfreeze, self.freeze_bn)


def unfreeze_last(network: CXRNet, n_unfreeze: int, freeze_bn: bool) -> set[int]:
    """Set ``requires_grad`` of every parameter so that exactly those of ``list_trainable`` train; returns their ids."""
    trainable = {id(parameter) for parameter in list_trainable(network, n_unfreeze, freeze_bn)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trainable)
    return trainable


def network_of(module: LightningModule) -> CXRNet:
    """The network of the one kind of module that these callbacks know."""
    if not isinstance(module, CXRModule):
        raise TypeError(f"the freezing callbacks work on CXRModule, not on {type(module).__name__}")
    return module.network
