"""Which parameters train: the head and the last layers."""

from collections.abc import Mapping

from pytorch_lightning import Callback, LightningModule, Trainer

from cxrlit.model.densenet import unfreeze_last
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm


class UnfreezeSchedule:
    """How many of the last layers train in each epoch.

    Args:
        n_unfreeze: As Keras counts them, 0 to 427; with a schedule, its largest number.
        schedule: {epoch: n_unfreeze}, from epoch 1 on; None: ``n_unfreeze`` throughout.

    Raises:
        ValueError: The schedule does not start at epoch 1, or its largest number is not ``n_unfreeze``.
    """

    def __init__(self, n_unfreeze: int, schedule: Mapping[int, int] | None = None) -> None:
        self.n_unfreeze = n_unfreeze
        self.steps = dict(schedule or {1: n_unfreeze})
        if min(self.steps) != 1 or max(self.steps.values()) != n_unfreeze:
            raise ValueError(f"the schedule {self.steps} must start at epoch 1 and reach n_unfreeze={n_unfreeze}")

    def at(self, epoch: int) -> int:
        """Layers that train in an epoch.

        >>> [UnfreezeSchedule(50, {1: 10, 3: 50}).at(epoch) for epoch in (1, 2, 3, 4)]
        [10, 10, 50, 50]
        """
        return self.steps[max(start for start in self.steps if start <= epoch)]


class PhasedUnfreezing(Callback):
    """The head and the last layers train; how many layers may change from epoch to epoch.

    The optimizer is built once, over all that will ever train. A parameter whose turn has not come has no gradient, and
    the optimizer leaves it alone, weight decay included. A ``FreezeBatchNorm`` beside it, before or after it, decides
    on the BatchNorms among the layers.

    Args:
        n_unfreeze: Last layers that train, as Keras counts them: 0 to 427. With a schedule, its largest number.
        schedule: {epoch: n_unfreeze}, from epoch 1 on; None: ``n_unfreeze`` throughout.

    Raises:
        ValueError: ``n_unfreeze`` is out of range, or the schedule does not start at epoch 1 and reach it.

    >>> trainer = Trainer(logger=False, callbacks=[PhasedUnfreezing(n_unfreeze=100), FreezeBatchNorm()])
    """

    def __init__(self, n_unfreeze: int, schedule: Mapping[int, int] | None = None) -> None:
        self.schedule = UnfreezeSchedule(n_unfreeze, schedule)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before the optimizer is built
            self._unfreeze(trainer, pl_module, self.schedule.n_unfreeze)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which is not called where an epoch goes on in its middle

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unfreeze(trainer, pl_module, self.schedule.at(trainer.current_epoch + 1))

    def _unfreeze(self, trainer: Trainer, module: LightningModule, n_unfreeze: int) -> None:
        if not isinstance(module, CXRModule):
            raise TypeError(f"PhasedUnfreezing knows the layers of CXRModule, not of {type(module).__name__}")
        unfreeze_last(module.network, n_unfreeze)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FreezeBatchNorm):
                callback.freeze(module)
