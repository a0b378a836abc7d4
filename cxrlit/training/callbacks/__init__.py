"""Callbacks of a phase: freezing, checkpoints, reports, checks."""

from cxrlit.training.callbacks.best_checkpoint import BestCheckpoint
from cxrlit.training.callbacks.epoch_progress_bar import EpochProgressBar
from cxrlit.training.callbacks.epoch_report import EpochReport
from cxrlit.training.callbacks.finite_loss import FiniteLoss
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm
from cxrlit.training.callbacks.frozen_guard import FrozenGuard
from cxrlit.training.callbacks.phased_unfreezing import PhasedUnfreezing
from cxrlit.training.callbacks.resume_checkpoint import ResumeCheckpoint

__all__ = [
    "BestCheckpoint",
    "EpochProgressBar",
    "EpochReport",
    "FiniteLoss",
    "FreezeBatchNorm",
    "FrozenGuard",
    "PhasedUnfreezing",
    "ResumeCheckpoint",
]
