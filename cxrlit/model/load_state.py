"""Load a state dict into a module, or describe in one line how the two differ."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from cxrlit.core.errors import CheckpointError, format_count, name_some


def load_or_describe(module: nn.Module, state: Mapping[str, Tensor], fault: str) -> None:
    """Load a state dict.

    Raises:
        CheckpointError: It does not fit; the message is ``fault`` and the differences.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(f"{fault}: {describe_misfit(module, state)}") from None


def describe_misfit(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Describe in one line how a state dict differs from that of a module.

    >>> describe_misfit(nn.Linear(2, 3), {"weight": Tensor(4, 2), "offset": Tensor(3)})
    '1 weight is missing (bias); 1 weight is not known (offset); weight is 4 x 2, not 3 x 2'
    """
    wanted = module.state_dict()
    missing, strange = sorted(wanted.keys() - state.keys()), sorted(map(str, state.keys() - wanted.keys()))
    said = [
        f"{format_count(len(names), f'weight is {what}', f'weights are {what}')} ({name_some(names, 3)})"
        for names, what in ((missing, "missing"), (strange, "not known"))
        if names
    ]
    shapes = [(name, tuple(state[name].shape), tuple(one.shape)) for name, one in wanted.items() if name in state]
    others = [
        f"{name} is {_name_shape(shape)}, not {_name_shape(expected)}"
        for name, shape, expected in shapes
        if shape != expected
    ]
    return "; ".join([*said, *([name_some(others, 3)] if others else [])])


def _name_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
