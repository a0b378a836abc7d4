"""Train the head and the last layers."""

from collections.abc import Mapping

from pytorch_lightning import Callback, LightningModule, Trainer

from cxrlit.model.densenet import unfreeze_last
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm


class UnfreezeSchedule:
    """Number of last layers that train in each epoch.

    Args:
        n_unfreeze: Last layers that train, as Keras counts them: 0 to 427. With a schedule, its largest number.
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
        """Return the number of layers that train in an epoch.

        >>> [UnfreezeSchedule(50, {1: 10, 3: 50}).at(epoch) for epoch in (1, 2, 3, 4)]
        [10, 10, 50, 50]
        """
        return self.steps[max(start for start in self.steps if start <= epoch)]


class PhasedUnfreezing(Callback):
    """Trains the head and the last layers; the number of layers may change between epochs.

    The optimizer is built once, over all parameters that train in any epoch. A parameter that is still frozen has no
    gradient, so the optimizer skips it, including weight decay. A ``FreezeBatchNorm``, before or after this callback,
    decides which BatchNorms among the layers train.

    Args:
        n_unfreeze: Last layers that train, as Keras counts them: 0 to 427. With a schedule, its largest number.
        schedule: {epoch: n_unfreeze}, from epoch 1 on; None: ``n_unfreeze`` throughout.

    Raises:
        ValueError: ``n_unfreeze`` is out of range, or the schedule does not start at epoch 1 or reach ``n_unfreeze``.

    >>> trainer = Trainer(logger=False, callbacks=[PhasedUnfreezing(n_unfreeze=100), FreezeBatchNorm()])
    """

    def __init__(self, n_unfreeze: int, schedule: Mapping[int, int] | None = None) -> None:
        self.schedule = UnfreezeSchedule(n_unfreeze, schedule)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Unfreeze all layers that train in any epoch, before the optimizer is built."""
        if stage == "fit":
            self._unfreeze(trainer, pl_module, self.schedule.n_unfreeze)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze the layers of the epoch: on resume within it, ``on_train_epoch_start`` is not called."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze the layers of the epoch, and freeze all others."""
        self._unfreeze(trainer, pl_module, self.schedule.at(trainer.current_epoch + 1))

    def _unfreeze(self, trainer: Trainer, module: LightningModule, n_unfreeze: int) -> None:
        if not isinstance(module, CXRModule):
            raise TypeError(f"PhasedUnfreezing knows the layers of CXRModule, not of {type(module).__name__}")
        unfreeze_last(module.network, n_unfreeze)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FreezeBatchNorm):
                callback.freeze(module)
