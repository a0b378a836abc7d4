"""Check that weights are finite."""

from typing import Any

import torch
from torch import Tensor

from cxrlit.core.errors import CheckpointError
from cxrlit.model.archive import is_whole


def check_finite(state: dict[Any, Any], what: str) -> None:
    """Check that a mapping is a state dict without NaN or infinite weights.

    Args:
        state: Names and tensors.
        what: What to call it in messages.

    Raises:
        CheckpointError: It is not a state dict, or a weight, which the message names, is not finite.
    """
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{what}: not a state dict: it must map names to tensors")
        if not is_whole(value):
            raise CheckpointError(f"{what}: {name} is no plain tensor")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{what}: {name} holds NaN or infinity: the training behind it diverged")
