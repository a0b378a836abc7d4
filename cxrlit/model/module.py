"""The LightningModule: a network, its loss, its optimizer, and the metrics of an epoch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from cxrlit.core.distributed import sum_over_ranks
from cxrlit.core.errors import ConfigError, DivergenceError
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import rank
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.torch_datasets import Batch
from cxrlit.metrics.auroc import LabelAUROC
from cxrlit.metrics.epoch_metrics import EpochMetrics, read_monitored
from cxrlit.model.checkpoint import name_weights, read_checkpoint
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.epoch_predictions import PredictionBuffer, Predictions
from cxrlit.model.losses import Loss, mask_loss, share_loss
from cxrlit.model.optimizer import build_optimizer, build_schedulers
from cxrlit.model.pos_weight import weigh_positives

MONITOR = "val/auroc_macro"


class CXRModule(LightningModule):
    """torchvision's DenseNet121 with a loss over several labels, for any ``Trainer``.

    Args:
        weights: Starting weights of the features: ``none`` (random), or any value of ``model.weights``.
        labels: Names of the L labels, in order.
        lr: Learning rate; with a one-cycle schedule, its peak.
        normalize: Mean and standard deviation of the images, a key of ``NORMALIZE``; auto: as the weights expect.
        seed: Seed of the random weights.
        loss: Takes (B, L) logits and targets without NaN and returns (B, L) losses; None: binary cross-entropy.
        pos_weight_cap: Without ``loss``: weight of the positives is negatives / positives of the datamodule's training
            part, at most this value; None: 1.
        optimizer: A dict with ``_target_`` (``build_optimizer``); None: AdamW.
        scheduler: A dict with ``_target_`` (``build_schedulers``); None: constant learning rate.
        metrics: Metrics by name (``EpochMetrics``); None: the exact AUROC of each label.
        train_metrics: Also compute the metrics on the augmented training images.
        monitor: Logged name of the metric that ``ReduceLROnPlateau`` watches.
        network: An existing network; ``weights``, ``normalize`` and ``seed`` are then ignored.
        n_cached: Number of units whose cached output a batch holds as ``features``, in place of ``image``.

    Attributes:
        scores: Metrics of the last finished epoch, by part (val, test, train) and name; float64, unlike logged values.
        predictions: Predictions of that epoch by part. Callbacks can read both from ``on_validation_end`` on.

    Raises:
        CheckpointError: The weights are missing or do not fit.
        ConfigError: A metric cannot be used.

    >>> module = CXRModule(weights="none", labels=["Mass", "Nodule"], lr=1e-4)
    >>> module(torch.zeros(1, 1, 64, 64, dtype=torch.uint8)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        weights: str = "none",
        labels: Sequence[str] = LABELS,
        lr: float = 1e-3,
        *,
        normalize: str = "auto",
        seed: int = 0,
        loss: nn.Module | None = None,
        pos_weight_cap: float | None = None,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        train_metrics: bool = False,
        monitor: str = MONITOR,
        network: CXRNet | None = None,
        n_cached: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["loss", "metrics", "network", "n_cached"], logger=False)
        if loss is not None and pos_weight_cap is not None:
            raise ConfigError("pos_weight_cap goes with the default loss: give your loss its weights itself")
        if loss is not None and not callable(loss):
            raise ConfigError(f"loss={loss!r}: it is a module, such as cxrlit.model.losses.FocalLoss()")
        self.network = network or build_network(weights, normalize, len(labels), seed)
        if len(labels) != self.network.head.out_features:
            raise ConfigError(f"{self.network.head.out_features} outputs cannot be {len(labels)} labels")
        self.labels, self.lr, self.n_cached = tuple(labels), lr, n_cached
        self.loss: Loss = loss or nn.BCEWithLogitsLoss(reduction="none")
        self.pos_weight_cap, self.monitor = pos_weight_cap, monitor
        self.optimizer_spec = dict(optimizer or {"_target_": "torch.optim.AdamW"})
        self.scheduler_spec = dict(scheduler) if scheduler else None
        self.metrics = EpochMetrics(metrics if metrics is not None else {"auroc": LabelAUROC()}, labels)
        self.mode = self.metrics.choose_mode(monitor)
        self.train_metrics = train_metrics
        self.scores: dict[str, dict[str, float]] = {}
        self.predictions: dict[str, Predictions] = {}
        self._buffers_by_part = {part: PredictionBuffer() for part in ("train", "val", "test")}
        self._losses: list[Tensor] = []

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, **options: Any) -> Self:  # type: ignore[override]
        """Load the module from a checkpoint (``best.ckpt``) or a phase folder.

        No name in the file is imported: loss, metrics and optimizer are the defaults, or those in ``options``. The
        default loss is unweighted binary cross-entropy, even if the phase trained with another.

        Args:
            checkpoint_path: The file or folder.
            options: Arguments of the class other than ``labels`` and ``network``.

        Raises:
            CheckpointError: The file is damaged, or is not a checkpoint with weights.
        """
        checkpoint = read_checkpoint(Path(checkpoint_path))
        normalize, network = checkpoint.config.model.normalize, checkpoint.build_network()
        options = {"lr": checkpoint.settings.lr, **options}
        return cls(labels=checkpoint.config.labels, normalize=normalize, network=network, **options)

    def setup(self, stage: str) -> None:
        """Check the labels of the datamodule and, with ``pos_weight_cap``, compute the weight of the positives.

        Raises:
            ConfigError: The labels or their order differ, or ``pos_weight_cap`` is set without a ``CXRDataModule``.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, CXRDataModule) and tuple(datamodule.labels) != self.labels:
            raise ConfigError(
                f"the labels of the module, {', '.join(self.labels)}, are not those of the datamodule, "
                f"{', '.join(datamodule.labels)}: CXRModule(labels=datamodule.labels)"
            )
        if stage != "fit" or self.pos_weight_cap is None:
            return
        if not isinstance(datamodule, CXRDataModule):
            raise ConfigError("pos_weight_cap counts the training part of a CXRDataModule: fit with one")
        weights = weigh_positives(datamodule, self.pos_weight_cap)["weight"]
        pos_weight = torch.tensor(weights.to_numpy(), dtype=torch.float32, device=self.device)
        self.loss = nn.BCEWithLogitsLoss(reduction="none", pos_weight=pos_weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, S, S) uint8 images to (B, L) float32 logits."""
        logits: Tensor = self.network(images)
        return logits

    def _compute_logits(self, batch: Batch) -> Tensor:
        if "features" not in batch:
            logits: Tensor = self(batch["image"])
            return logits
        assert self.n_cached is not None
        return self.network.forward_from_features(batch["features"], self.n_cached)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return ``loss`` for the backward pass, and ``mean_loss`` and ``n_images`` of the global batch."""
        logits = self._compute_logits(batch)
        total, n_known = mask_loss(self.loss, logits, batch["target"])
        step = share_loss(total, n_known, len(logits))
        step["loss"] = step["loss"] * self._weigh_in_step(batch_idx)
        self.log("train/loss", step["mean_loss"], on_step=True, on_epoch=False, batch_size=1)
        if self.train_metrics:
            self._buffers_by_part["train"].add(batch["row"], logits, batch["target"])
        return step

    def _weigh_in_step(self, batch_idx: int) -> float:
        """Factor that makes the gradient of a step the mean over its batches.

        Lightning divides by ``accumulate_grad_batches`` even if the last step of an epoch has fewer batches.
        """
        wanted, n_batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        return wanted / min(wanted, n_batches - batch_idx // wanted * wanted)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the loss and the predictions of a validation batch."""
        self._evaluate_batch("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the loss and the predictions of a test batch."""
        self._evaluate_batch("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return (B, L) float32 logits on the CPU."""
        logits: Tensor = self(batch["image"])
        return logits.cpu()

    def _evaluate_batch(self, part: str, batch: Batch) -> None:
        logits = self._compute_logits(batch)
        total, n_known = mask_loss(self.loss, logits, batch["target"])
        self._losses.append(torch.stack([total, n_known.to(total.dtype)]))
        self._buffers_by_part[part].add(batch["row"], logits, batch["target"])

    def on_validation_epoch_end(self) -> None:
        """Compute ``scores`` and ``predictions`` of validation over all devices, and log the scores."""
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Compute ``scores`` and ``predictions`` of the test over all devices, and log the scores."""
        self._end_evaluation("test")

    def _end_evaluation(self, part: str) -> None:
        self._measure(part)
        total, n_known = sum_over_ranks(torch.stack(self._losses).sum(dim=0))
        self._losses = []
        self.scores[part]["loss"] = float(total / n_known)
        self._log_scores(part)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """With ``train_metrics``, compute the training scores after the last batch of an epoch."""
        # Callbacks run before the module's on_train_epoch_end and would report the previous epoch.
        if self.train_metrics and (self.trainer.is_last_batch or self.trainer.should_stop):
            self._measure("train")

    def on_train_epoch_end(self) -> None:
        """With ``train_metrics``, log the training scores."""
        if self.train_metrics:
            self._log_scores("train")

    def _measure(self, part: str) -> None:
        predictions = self._buffers_by_part[part].gather()
        assert predictions is not None
        self._buffers_by_part[part].clear()
        self.predictions[part] = predictions
        try:
            self.scores[part] = self.metrics.measure(predictions.probs, predictions.targets)
        except ValueError as error:
            raise DivergenceError(f"lr={self.lr:g}: the training diverged ({error}): set a lower lr") from None

    def _log_scores(self, part: str) -> None:
        for name, score in self.scores[part].items():
            self.log(f"{part}/{name}", score, on_step=False, on_epoch=True, batch_size=1)

    @property
    def monitored(self) -> float:
        """The value of ``monitor`` after the last validation."""
        return read_monitored(self.scores["val"], self.monitor)

    def is_better(self, score: float, best: float) -> bool:
        """Whether a monitored value is better than the best so far; any number is better than NaN."""
        if math.isnan(score) or math.isnan(best):
            return math.isnan(best) and not math.isnan(score)
        return score > best if self.mode == "max" else score < best

    def copy_weights(self) -> dict[str, Tensor]:
        """Copy the weights of the network to the CPU, under the names used in checkpoints."""
        return name_weights(self.network)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and the schedule; only parameters that require a gradient are included."""
        backbone = [one for one in self.network.features.parameters() if one.requires_grad]
        taken = {id(one) for one in self.network.features.parameters()}
        head = [one for one in self.parameters() if one.requires_grad and id(one) not in taken]
        optimizer = build_optimizer(backbone, head, self.lr, self.optimizer_spec)
        schedulers = build_schedulers(
            optimizer,
            self.scheduler_spec,
            n_epochs=self.trainer.max_epochs or 1,
            n_steps=int(self.trainer.estimated_stepping_batches),
            monitor=self.monitor,
            mode=self.mode,
        )
        return [optimizer], schedulers  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the scores and, with ``train_metrics``, the training predictions of the epoch so far."""
        checkpoint["scores"] = {part: dict(scores) for part, scores in self.scores.items()}
        if self.train_metrics:
            checkpoint["train_predictions"] = list(self._buffers_by_part["train"].gather() or ())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what ``on_save_checkpoint`` saved."""
        self.scores = {part: dict(scores) for part, scores in checkpoint.get("scores", {}).items()}
        if self.train_metrics and checkpoint.get("train_predictions") and rank() == 0:
            self._buffers_by_part["train"].restore(Predictions(*checkpoint["train_predictions"]))
