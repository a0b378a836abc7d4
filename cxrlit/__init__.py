"""cxrlit: train, evaluate and hand over chest X-ray classifiers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlit.handoff.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """``cxrlit.Predictor``, imported when it is asked for: most of the package does without it."""
    if name == "Predictor":
        from cxrlit.handoff.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'cxrlit' has no attribute {name!r}")
