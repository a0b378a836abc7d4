"""How a state dict differs from what a module has is told whole."""

from typing import Any

import pytest
import torch

from cxrlit.core.errors import CheckpointError
from cxrlit.model.load_state import load_or_describe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"weight": torch.zeros(4, 2)}, "weight is 4 x 2, not 3 x 2"),
        (lambda state: {"bias": state["bias"]}, "1 weight is missing (weight)"),
        (lambda state: {}, "2 weights are missing (bias, weight)"),
        (lambda state: state | {"more": torch.zeros(1)}, "1 weight is not known (more)"),
        (lambda state: state | {"bias": torch.zeros(())}, "bias is a single number, not 3"),
        (
            lambda state: {f"a rather long name of a weight {number}": torch.zeros(1) for number in range(9)},
            "2 weights are missing (bias, weight); 9 weights are not known (a rather long name of a weight 0, a rather "
            "long name of a weight 1, a rather long name of a weight 2 and 6 more)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told_whole(change: Any, said: str) -> None:
    module = torch.nn.Linear(2, 3)
    with pytest.raises(CheckpointError) as caught:
        load_or_describe(module, change(module.state_dict()), "a.pth: not ours")
    assert str(caught.value) == f"a.pth: not ours: {said}"
