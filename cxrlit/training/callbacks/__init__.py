"""What a phase does around its batches."""

from cxrlit.training.callbacks.epoch_report import EpochReport
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm
from cxrlit.training.callbacks.phased_unfreezing import PhasedUnfreezing

__all__ = ["EpochReport", "FreezeBatchNorm", "PhasedUnfreezing"]
