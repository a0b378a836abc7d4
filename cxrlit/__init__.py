"""cxrlit: train, evaluate and hand over chest X-ray classifiers."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlit.handoff.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor"]

# Read by torch at its first allocation: large tensors lie in huge pages where Linux leaves that to the programs
# (``madvise``). Training on a CPU is up to a third faster; not a bit of a result changes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Read by albumentations at its import: without it each import asks the network for a newer version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


def __getattr__(name: str) -> Any:
    """``cxrlit.Predictor``, imported when it is asked for: most of the package does without it."""
    if name == "Predictor":
        from cxrlit.handoff.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'cxrlit' has no attribute {name!r}")
