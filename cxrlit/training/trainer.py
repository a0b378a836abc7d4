"""The trainer of one phase, and the callbacks around it."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from hydra.utils import get_class, instantiate
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich import get_console

from cxrlit.config import Precision, TrainConfig
from cxrlit.core.distributed import device_options
from cxrlit.core.errors import ConfigError
from cxrlit.model.module import build_optimizer
from cxrlit.training.callbacks import FreezeBatchNorm, ResumeCheckpoint
from cxrlit.training.checkpoint import DurableCheckpointIO
from cxrlit.training.plan import PlannedPhase

LIGHTNING_PRECISION: dict[Precision, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


def build_trainer(
    phase: PlannedPhase,
    config: TrainConfig,
    precision: Precision,
    facts: Mapping[str, Any],
    watching: Sequence[Callback] = (),
) -> Trainer:
    """Lightning's trainer for a phase: deterministic, its files in the phase folder.

    Args:
        phase: What to do.
        config: The resolved config of the chain.
        precision: bf16 or fp32.
        facts: What its checkpoints say of their origin.
        watching: Callbacks beside those of the phase.
    """
    callbacks = [*build_callbacks(phase, config, facts), *watching]
    return Trainer(
        **device_options(config.trainer, find_unused_parameters=phase.config.n_unfreeze_schedule is not None),
        precision=LIGHTNING_PRECISION[precision],
        max_epochs=phase.config.max_epochs,
        gradient_clip_val=config.trainer.gradient_clip_norm,
        callbacks=callbacks,
        logger=False if config.logger is None else instantiate(config.logger, save_dir=str(phase.folder)),
        plugins=[DurableCheckpointIO()],
        deterministic=True,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        default_root_dir=str(phase.folder),
    )


def build_callbacks(phase: PlannedPhase, config: TrainConfig, facts: Mapping[str, Any]) -> list[Callback]:
    """The callbacks of a phase; those that make it what it is are told what that is."""
    settings = {
        "n_unfreeze": phase.config.n_unfreeze,
        "freeze_bn": phase.config.freeze_bn,
        "schedule": phase.config.n_unfreeze_schedule,
    }
    told: dict[str, dict[str, Any]] = {
        "resume_checkpoint": {
            "folder": phase.folder,
            "phase_id": phase.id,
            "every_n_steps": config.trainer.checkpoint_every_n_steps,
        },
        "phased_unfreezing": settings,
        "freeze_batch_norm": settings,
        "finite_loss": {},
        "epoch_report": {"folder": phase.folder},
        "best_checkpoint": {"folder": phase.folder, "facts": facts},
    }
    callbacks = [
        get_class(spec["_target_"])(**told[name]) if name in told else instantiate(spec)
        for name, spec in phase.callbacks.items()
    ]
    # ResumeCheckpoint sees what was before a batch, and FreezeBatchNorm has the last word on the modes.
    callbacks.sort(key=lambda item: isinstance(item, FreezeBatchNorm) - isinstance(item, ResumeCheckpoint))
    # Where the output is a file, a bar is noise.
    return [item for item in callbacks if get_console().is_terminal or not isinstance(item, ProgressBar)]


def check_buildable(phase: PlannedPhase, config: TrainConfig) -> None:
    """Optimizer, scheduler, callbacks and logger take the arguments that they are given.

    Raises:
        ConfigError: One of them does not, or a callback is none.
    """
    weights = [torch.nn.Parameter(torch.zeros(1))]
    try:
        build_optimizer(weights, phase.config.lr, config.optimizer, phase.config.scheduler, n_steps=1000)
        callbacks = build_callbacks(phase, config, {})
        if config.logger is not None:
            instantiate(config.logger, save_dir=str(phase.folder))
    except Exception as error:  # any class may be named in the config, and raise anything
        raise ConfigError(f"phases.{phase.name}: {error}") from None
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks: {type(callback).__name__} is not a callback of Lightning")


def quiet_lightning() -> None:
    """Keep the trainer's banners and its advice on loader processes off the screen."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Found .* module.* in eval mode.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what is logged is that of all devices already
    warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
