"""Check that frozen weights and statistics stay bit-identical."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn

from cxrlit.core.errors import ConfigError
from cxrlit.model.densenet import count_frozen_units
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks.freeze_batch_norm import list_batch_norms


class FrozenGuard(Callback):
    """Ends the training if a frozen weight or statistic changes.

    Frozen are parameters that require no gradient and BatchNorms in eval mode; the callbacks decide which. Only
    parameters of the optimizer may have a gradient. In a weight average, frozen values are copied, since averaging
    would round them.

    The engine puts it before all callbacks of the config.

    Args:
        n_trainable: Number of weights of the features that the phase trains; None: not checked.
        batch_norm_may_train: Whether a BatchNorm may be in train mode in some epoch.

    Raises:
        ConfigError: Something frozen has a gradient or changed; the message names it.
    """

    def __init__(self, n_trainable: int | None = None, batch_norm_may_train: bool = True) -> None:
        self.n_trainable, self.batch_norm_may_train = n_trainable, batch_norm_may_train
        self._held: set[int] = set()
        self._before: dict[str, Tensor] = {}
        self._frozen: dict[str, Tensor] = {}
        self._settled = False
        self._resumed: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the number of trainable weights and, on resume, note the frozen values."""
        held = [one for group in trainer.optimizers[0].param_groups for one in group["params"]]
        self._held = {id(one) for one in held}
        assert isinstance(pl_module, CXRModule)
        features = {id(one) for one in pl_module.network.features.parameters()}
        n_trainable = sum(one.numel() for one in held if id(one) in features)
        if self.n_trainable not in (None, n_trainable):
            raise ConfigError(
                f"the optimizer holds {n_trainable:,} weights of the features, the phase trains {self.n_trainable:,}: "
                "another callback than phased_unfreezing and freeze_batch_norm sets requires_grad"
            )

        tensors = _list_tensors(pl_module)
        self._frozen = {name: tensors[name].detach().clone() for name in self._resumed if name in tensors}
        self._settled = bool(self._frozen)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the frozen values; an epoch may freeze others."""
        self._check(pl_module)
        self._settled = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Check which parameters require a gradient; before the epoch's first step, copy all values."""
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and id(parameter) not in self._held:
                raise ConfigError(f"{name} is frozen in this phase and requires a gradient: a callback unfroze it")
        if not self._settled:
            self._before = {name: tensor.detach().clone() for name, tensor in _list_tensors(pl_module).items()}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """At the epoch's first step, note what the callbacks have frozen, and check it."""
        if self._before:  # by now the callbacks have frozen this epoch's layers
            assert isinstance(pl_module, CXRModule)
            if pl_module.n_cached and count_frozen_units(pl_module.network.units) < pl_module.n_cached:
                raise ConfigError("a callback unfroze layers whose output is kept: set cache_features=false")
            if not self.batch_norm_may_train and any(norm.training for norm in list_batch_norms(pl_module)):
                raise ConfigError(
                    "a BatchNorm is in train mode, and the phase freezes all: a callback or a hook sets it"
                )
            names = _list_frozen(pl_module)
            self._check(pl_module, names)  # a callback may have acted between two epochs
            self._frozen, self._before, self._settled = {name: self._before[name] for name in names}, {}, True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Check the parameters of the optimizer, and that no frozen one has a gradient."""
        held = {id(one) for group in optimizer.param_groups for one in group["params"]}
        if held != self._held:
            raise ConfigError(
                "a callback unfroze parameters and added them to the optimizer: setup() is the place for it"
            )
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None and (id(parameter) not in self._held or name in self._frozen):
                raise ConfigError(f"{name} is frozen in this phase and has a gradient: a callback unfroze it")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the frozen values."""
        self._check(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the frozen values into weight averages."""
        self._settle_averages(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Save the names of the frozen tensors."""
        return {"frozen": list(self._frozen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the names: a resumed epoch may have only its validation left."""
        self._resumed = state_dict["frozen"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the frozen values, and copy them into weight averages."""
        self._check(pl_module)
        self._settle_averages(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the frozen values after the other callbacks' ``on_train_end``."""
        self._check(pl_module)

    def _check(self, module: LightningModule, names: Sequence[str] | None = None) -> None:
        tensors = _list_tensors(module)
        for name in self._frozen if names is None else self._frozen.keys() & set(names):
            if not torch.equal(tensors[name], self._frozen[name]):
                raise ConfigError(f"{name} is frozen in this phase and has changed: a callback changes it")

    def _settle_averages(self, trainer: Trainer) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            average = callback._average_model if isinstance(callback, WeightAveraging) else None
            if average is not None:
                tensors = _list_tensors(average.module)
                for name, value in self._frozen.items():
                    tensors[name].data.copy_(value)


def _list_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _list_frozen(module: LightningModule) -> list[str]:
    """Names of parameters without gradient, and of all buffers except those of training BatchNorms."""
    moving = {id(buffer) for norm in list_batch_norms(module) if norm.training for buffer in norm.buffers()}
    return [
        *(name for name, parameter in module.named_parameters() if not parameter.requires_grad),
        *(name for name, buffer in module.named_buffers() if id(buffer) not in moving),
    ]
