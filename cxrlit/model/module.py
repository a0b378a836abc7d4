"""The LightningModule: a network, its loss, its optimizer, and the metrics of an epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from cxrlit.core.distributed import gather_over_ranks, sum_over_ranks
from cxrlit.core.errors import DivergenceError
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import rank
from cxrlit.data.datamodule import Batch
from cxrlit.metrics.auroc import LabelAUROC
from cxrlit.metrics.macro import macro
from cxrlit.model.densenet import CXRNet
from cxrlit.model.losses import masked_bce, share_loss

MONITOR = "val/auroc_macro"


class CXRModule(LightningModule):
    """Trains a network as one phase says.

    Args:
        network: Images to logits.
        labels: Names of the network's outputs.
        lr: Learning rate; the peak where the schedule is one cycle.
        optimizer: A dict with ``_target_``; it gets the parameters that train and ``lr``.
        scheduler: A dict with ``_target_``, or None. One cycle steps after each batch, all others after each
            epoch; ReduceLROnPlateau watches the validation macro AUROC.
        pos_weight: (L,) weight of the positive term of BCE; None: 1.
        train_auroc: Also measure AUROC over the training images as they were seen.
        n_cached: Batches that bring ``features`` in place of ``image`` bring what so many units of the network made.

    Attributes:
        auroc: (L,) float64 AUROC of each label by part (val, train), of the epoch that ended last. Lightning keeps
            what is logged in float32.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        network: CXRNet,
        *,
        labels: Sequence[str] = LABELS,
        lr: float = 1e-3,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        pos_weight: Tensor | None = None,
        train_auroc: bool = False,
        n_cached: int | None = None,
    ) -> None:
        super().__init__()
        if len(labels) != network.head.out_features:
            raise ValueError(f"{network.head.out_features} outputs cannot be {len(labels)} labels")
        self.network = network
        self.labels = tuple(labels)
        self.lr = lr
        self.n_cached = n_cached
        self.optimizer_target = dict(optimizer or {"_target_": "torch.optim.AdamW"})
        self.scheduler_target = dict(scheduler) if scheduler else None
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.auroc: dict[str, NDArray[np.float64]] = {}
        self.val_auroc = LabelAUROC()
        self._val_losses: list[Tensor] = []
        self.train_auroc = LabelAUROC() if train_auroc else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) uint8 images to (B, L) float32 logits."""
        logits: Tensor = self.network(images)
        return logits

    def _compute_logits(self, batch: Batch) -> Tensor:
        if "features" not in batch:
            logits: Tensor = self(batch["image"])
            return logits
        assert self.n_cached is not None
        return self.network.forward_from_features(batch["features"], self.n_cached)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns ``loss``, to go backward from; ``mean_loss`` and ``n_images`` of the global batch."""
        logits = self._compute_logits(batch)
        total, n_known = masked_bce(logits, batch["target"], self.pos_weight)
        step = share_loss(total, n_known, len(logits))
        self.log("train/loss", step["mean_loss"], on_step=True, on_epoch=False, batch_size=1)
        if self.train_auroc is not None:
            self.train_auroc.update(to_probs(logits), batch["target"])
        return step

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self._compute_logits(batch)
        total, n_known = masked_bce(logits, batch["target"], self.pos_weight)
        self._val_losses.append(torch.stack([total, n_known.to(total.dtype)]))
        self.val_auroc.update(to_probs(logits), batch["target"])

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """(B, L) float32 logits, on the CPU."""
        logits: Tensor = self(batch["image"])
        return logits.cpu()

    def on_validation_epoch_end(self) -> None:
        self._measure("val", self.val_auroc)
        total, n_known = sum_over_ranks(torch.stack(self._val_losses).sum(dim=0))
        self._val_losses = []
        self.log("val/loss", total / n_known, on_step=False, on_epoch=True, batch_size=1)
        self._log_auroc("val")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # At the epoch's end the callbacks come before the module, and would report the epoch before.
        if self.train_auroc is not None and self.trainer.is_last_batch:
            self._measure("train", self.train_auroc)

    def on_train_epoch_end(self) -> None:
        if self.train_auroc is not None:
            self._log_auroc("train")

    def _measure(self, part: str, metric: LabelAUROC) -> None:
        try:
            self.auroc[part] = metric.compute().numpy()
        except ValueError as error:
            raise DivergenceError(f"lr={self.lr:g}: the training diverged ({error}): set a lower lr") from None
        metric.reset()

    def _log_auroc(self, part: str) -> None:
        scores = dict(zip(self.labels, self.auroc[part].tolist(), strict=True))
        for name, score in {**scores, "macro": macro(self.auroc[part]).value}.items():
            self.log(f"{part}/auroc_{name}", score, on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        n_steps = int(self.trainer.estimated_stepping_batches)
        return build_optimizer(parameters, self.lr, self.optimizer_target, self.scheduler_target, n_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["auroc"] = {part: values.tolist() for part, values in self.auroc.items()}
        if self.train_auroc is not None:
            probs, targets = self.train_auroc.probs, self.train_auroc.targets
            mine = [torch.cat(probs).cpu(), torch.cat(targets).cpu()] if probs else None
            seen = [share for share in gather_over_ranks(mine) if share is not None]
            checkpoint["train_auroc"] = [torch.cat(tensors) for tensors in zip(*seen, strict=True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.auroc = {part: np.array(values) for part, values in checkpoint["auroc"].items()}
        if self.train_auroc is not None and checkpoint["train_auroc"] and rank() == 0:
            self.train_auroc.update(*checkpoint["train_auroc"])


def to_probs(logits: Tensor) -> Tensor:
    """Logits to float32 probs by way of float64, as the evaluation does: the same probs, and so the same ties."""
    exact = logits.detach() if logits.device.type != "mps" else logits.detach().cpu()  # MPS has no float64
    return exact.double().sigmoid().float()


def build_optimizer(
    parameters: list[Parameter],
    lr: float,
    optimizer_target: Mapping[str, Any],
    scheduler_target: Mapping[str, Any] | None,
    n_steps: int,
) -> OptimizerLRScheduler:
    """The optimizer and its schedule, as Lightning takes them.

    Args:
        parameters: What will ever train.
        lr: Learning rate; the peak where the schedule is one cycle.
        optimizer_target: As for ``CXRModule``.
        scheduler_target: As for ``CXRModule``.
        n_steps: Batches of the whole phase.
    """
    optimizer = instantiate(optimizer_target, parameters, lr=lr)
    if scheduler_target is None:
        return {"optimizer": optimizer}
    build = instantiate(scheduler_target, _partial_=True)
    if build.func is OneCycleLR:
        scheduler = build(optimizer, max_lr=lr, total_steps=n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
    if build.func is ReduceLROnPlateau:
        # As for the checkpoint, more is better.
        scheduler = build(optimizer, mode="max")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": MONITOR}}
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": build(optimizer), "interval": "epoch"}}
