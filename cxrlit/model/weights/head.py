"""Find the head in weights, and take over the outputs of matching labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cxrlit.core.errors import CheckpointError
from cxrlit.core.labels import simplify_name
from cxrlit.model.weights.finite import check_finite
from cxrlit.model.weights.names import FLOATS

N_FEATURES, MAX_OUTPUTS = 1024, 10_000

SYNONYMS = {"pleural effusion": "effusion"}
"""CheXpert's and MIMIC's names of a finding to NIH's name, as ``simplify_name`` spells them."""


class Head(NamedTuple):
    """A linear layer on the means of the feature maps.

    Attributes:
        weight: (L, 1024) float32.
        bias: (L,) float32.
        labels: Labels of the L outputs; an empty text: untrained output. Empty: unknown.
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]


def find_head(rest: Mapping[str, Tensor]) -> Head | None:
    """Find the linear layer with 1,024 inputs; None unless there is exactly one.

    Args:
        rest: Tensors that are not features, by name.
    """
    linear = {
        name: tensor
        for name, tensor in rest.items()
        if name.endswith("weight") and tensor.ndim == 2 and tensor.shape[1] == N_FEATURES and len(tensor) <= MAX_OUTPUTS
    }
    if len(linear) != 1:
        return None
    [(name, weight)] = linear.items()
    bias = rest.get(f"{name.removesuffix('weight')}bias", torch.zeros(len(weight)))
    if bias.shape != (len(weight),) or not {weight.dtype, bias.dtype} <= set(FLOATS):
        return None
    return Head(weight.detach().float(), bias.detach().float(), ())


def match_head(labels: Sequence[str], theirs: Sequence[str]) -> dict[str, int]:
    """Match labels to the outputs of a head, ignoring case, underscores and spaces.

    >>> match_head(["Mass", "Pleural_Thickening", "Effusion"], ["Pleural Thickening", "", "Pleural Effusion"])
    {'Pleural_Thickening': 0, 'Effusion': 2}
    """
    places = {_spell(name): place for place, name in reversed(list(enumerate(theirs))) if name}
    return {label: places[_spell(label)] for label in labels if _spell(label) in places}


def load_head(layer: nn.Linear, labels: Sequence[str], head: Head, what: str) -> None:
    """Take over the outputs of matching labels.

    Args:
        layer: Head of the network, with one output per label.
        labels: Labels of the network.
        head: Head of the weights.
        what: What to call the weights in messages.

    Raises:
        CheckpointError: No label matches, or the head's weights are not finite.
    """
    places = match_head(labels, head.labels)
    if not places:
        raise CheckpointError(f"{what}: none of its labels is ours; it has {', '.join(filter(None, head.labels))}")
    check_finite({"the head": head.weight, "its bias": head.bias}, what)
    with torch.no_grad():
        for row, label in enumerate(labels):
            if label in places:
                layer.weight[row] = head.weight[places[label]]
                layer.bias[row] = head.bias[places[label]]


def describe_taken(labels: Sequence[str], theirs: Sequence[str]) -> str:
    """Say in words which outputs are taken over.

    >>> describe_taken(["Mass", "Effusion", "Edema"], ["Pleural Effusion", "Mass", "Hernia"])
    'outputs taken over: Mass, Effusion (its Pleural Effusion); new: Edema; not used: Hernia'
    """
    places = match_head(labels, theirs)
    taken = [label if theirs[place] == label else f"{label} (its {theirs[place]})" for label, place in places.items()]
    new = [label for label in labels if label not in places]
    unused = [name for place, name in enumerate(theirs) if name and place not in places.values()]
    parts = {"outputs taken over": taken, "new": new, "not used": unused}
    return "; ".join(f"{name}: {', '.join(some)}" for name, some in parts.items() if some)


def _spell(label: str) -> str:
    name = simplify_name(label)
    return SYNONYMS.get(name, name)
