"""Build Lightning Trainers: precision, validation, no banners."""

import logging
import warnings
from typing import Literal

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar, Timer
from pytorch_lightning.loggers import Logger

from cxrlit.config import Precision, TrainConfig, TrainerConfig
from cxrlit.core.distributed import device_options
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.metrics.epoch_metrics import build_metrics
from cxrlit.model.checkpoint import DurableCheckpointIO
from cxrlit.model.densenet import CXRNet
from cxrlit.model.module import CXRModule
from cxrlit.training.plan import PlannedPhase

LIGHTNING_PRECISION: dict[Precision, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "fp32": "32-true",
}


def validate(
    network: CXRNet, loss: torch.nn.Module, datamodule: CXRDataModule, precision: Precision, config: TrainConfig
) -> dict[str, float]:
    """Compute the validation metrics of a network, on cached features if the datamodule has them."""
    module = CXRModule(
        network=network,
        labels=datamodule.labels,
        loss=loss,
        metrics=build_metrics(config.metrics.collection, datamodule.labels),
        monitor=config.monitor,
        n_cached=datamodule.n_cached,
    )
    trainer = Trainer(
        **device_options(config.trainer),
        precision=LIGHTNING_PRECISION[precision],
        deterministic=True,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.validate(module, datamodule=datamodule, verbose=False)
    return module.scores["val"]


class PhaseTimer(Timer):
    """Measures how long a phase trains, with validation and over resumes; users may add their own ``Timer``."""


def read_seconds(trainer: Trainer) -> float:
    """Return how long a phase has trained, seconds."""
    [timer] = [callback for callback in trainer.callbacks if type(callback) is PhaseTimer]  # type: ignore[attr-defined]
    return round(timer.time_elapsed(), 1)


def build_trainer(
    plan: PlannedPhase, options: TrainerConfig, precision: Precision, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """Build the trainer of a phase: deterministic, with its files in the phase folder."""
    return Trainer(
        **device_options(options, find_unused_parameters=plan.freezing.may_change),
        precision=LIGHTNING_PRECISION[precision],
        max_epochs=plan.config.max_epochs,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_norm,
        callbacks=callbacks,
        logger=loggers,
        enable_autolog_hparams=False,  # the whole config is logged instead, once
        plugins=[DurableCheckpointIO()],
        deterministic=True,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        default_root_dir=str(plan.folder),
    )


def quiet_lightning() -> None:
    """Suppress Lightning's banners and its advice on loader workers."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Found .* module.* in eval mode.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # logged values are already reduced over devices
    warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*`lr_scheduler.step..` before `optimizer.step..`.*")  # fp16 skips steps
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
