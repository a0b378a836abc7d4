"""cxrlit: train, evaluate and hand over chest X-ray classifiers."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlit.data.datamodule import CXRDataModule
    from cxrlit.handoff.predictor import Predictor
    from cxrlit.model.module import CXRModule
    from cxrlit.training.callbacks import FreezeBatchNorm, PhasedUnfreezing

__version__ = "0.1.0"
__all__ = ["CXRDataModule", "CXRModule", "FreezeBatchNorm", "PhasedUnfreezing", "Predictor"]

# Read by torch at its first allocation: large tensors lie in huge pages where Linux leaves that to the programs
# (``madvise``). Training on a CPU is up to a third faster; not a bit of a result changes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Read by albumentations at its import: without it each import asks the network for a newer version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Read by ONNX Runtime at its import: from version 1.29 on, it reports models and sessions to Microsoft without it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

MODULES = {
    "CXRDataModule": "cxrlit.data.datamodule",
    "CXRModule": "cxrlit.model.module",
    "FreezeBatchNorm": "cxrlit.training.callbacks",
    "PhasedUnfreezing": "cxrlit.training.callbacks",
    "Predictor": "cxrlit.handoff.predictor",
}
"""Modules of the public names. Each is imported on first use, since a prediction needs no trainer."""


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(importlib.import_module(MODULES[name]), name)
    raise AttributeError(f"module 'cxrlit' has no attribute {name!r}")
