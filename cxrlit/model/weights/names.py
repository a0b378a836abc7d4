"""Find DenseNet121's features in a state dict, under the names of any program."""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models import densenet121

from cxrlit.core.errors import CheckpointError, format_count, name_some
from cxrlit.model.archive import is_whole
from cxrlit.model.weights.finite import check_finite
from cxrlit.model.weights.pickled_module import ModuleState

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Keys under which programs store a state dict."""

STEM = "conv0.weight"
FEATURE = re.compile(r"(conv0|norm0|denseblock\d+|transition\d+|norm5)\.")
COUNT = "num_batches_tracked"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

OTHERS = {
    r"(^|\.)layer[1-4]\.\d+\.conv1\.weight$": "a ResNet",
    r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$": "a vision transformer",
    r"(^|\.)layers\.\d+\.blocks\.\d+\.": "a Swin transformer",
    r"(^|\.)stages\.\d+\.": "a ConvNeXt",
    r"(^|\.)features\.\d+\.weight$": "a VGG or AlexNet",
}
"""Patterns of weight names that identify other networks."""

DENSENETS = {(64, 24): "DenseNet121", (64, 32): "DenseNet169", (64, 48): "DenseNet201", (96, 36): "DenseNet161"}
"""DenseNets by the channels of the stem and the layers of the third block."""


class FoundFeatures(NamedTuple):
    """Features in a state dict.

    Attributes:
        weights: Names as in torchvision's ``features`` and float32 tensors; the stem has one or three channels.
        prefix: Prefix of each name in the file, such as ``module.features.``.
        rest: The other tensors, such as the head's.
    """

    weights: dict[str, Tensor]
    prefix: str
    rest: dict[str, Tensor]


@functools.cache
def list_shapes() -> dict[str, tuple[int, ...]]:
    """The shape of each weight and statistic of DenseNet121's features, by torchvision's name.

    >>> list_shapes()["conv0.weight"]
    (64, 3, 7, 7)
    """
    with torch.device("meta"):
        state = densenet121(weights=None).features.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def unwrap(content: Any, what: str) -> tuple[dict[str, Tensor], str, str]:
    """Find the state dict in a file's content, the keys above it, and the pickled class, if any.

    Raises:
        CheckpointError: The content has no state dict.
    """
    keys: list[str] = []
    while isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if tensors and (inner is None or _list_stems(tensors)):
            return tensors, ".".join(keys), content.class_name if isinstance(content, ModuleState) else ""
        if inner is None or len(keys) == len(WRAPPERS):
            break
        content = content[inner]
        keys.append(inner)
    found = f"a dict of {name_some(sorted(map(repr, content)))}" if isinstance(content, Mapping) else "something else"
    raise CheckpointError(
        f"{what}: not a state dict: found {found[:200]}; looked for names and tensors, alone or below "
        f"{', '.join(WRAPPERS)}"
    )


def find_features(state: Mapping[str, Tensor], what: str) -> FoundFeatures:
    """Find DenseNet121's features under any prefix.

    ``norm.1`` of torchvision's first releases is ``norm1``, and MONAI's ``denselayer1.layers.norm1`` the same.

    Raises:
        CheckpointError: The features are missing, incomplete, or of another network.
    """
    stems = _list_stems(state)
    if not stems:
        raise CheckpointError(_describe_other(state, what))
    if len(stems) > 1:
        raise CheckpointError(
            f"{what}: not one network but several: {_show(stems)}: save the state dict of the one that you want"
        )
    prefix = stems[0].removesuffix(STEM)
    own = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not prefix or not prefix.endswith("features."):  # the head may have the same prefix
        own = {name: tensor for name, tensor in own.items() if FEATURE.match(name[len(prefix) :])}
    rest = {name: tensor for name, tensor in state.items() if name not in own}
    weights: dict[str, Tensor] = {}
    for name, tensor in own.items():
        simple = simplify_feature(name[len(prefix) :])
        if simple in weights:
            raise CheckpointError(f"{what}: it has {_show([prefix + simple])} twice, under an old and a new name")
        weights[simple] = tensor
    _check_shapes(weights, prefix, what)
    floats = {name: _to_float(name, weights.get(name), f"{what}: {prefix}") for name in list_shapes()}
    check_finite({f"{prefix}{name}": tensor for name, tensor in floats.items()}, what)
    return FoundFeatures(floats, prefix, rest)


def _list_stems(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in state.items() if f".{name}".endswith(f".{STEM}") and tensor.ndim == 4]


def simplify_feature(name: str) -> str:
    """Translate the name of a weight in an older torchvision or another program to torchvision's.

    >>> simplify_feature("denseblock1.denselayer1.norm.1.weight")
    'denseblock1.denselayer1.norm1.weight'
    >>> simplify_feature("denseblock1.denselayer1.layers.norm1.weight")
    'denseblock1.denselayer1.norm1.weight'
    """
    return re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name.replace(".layers.", "."))


def _check_shapes(weights: Mapping[str, Tensor], prefix: str, what: str) -> None:
    shapes = list_shapes()
    channels = tuple(weights[STEM].shape)
    faults = {
        "lacks": [name for name in shapes if name not in weights and not name.endswith(COUNT)],
        "has besides": [name for name in weights if name not in shapes],
        "has of other shapes": [
            f"{name} {tuple(weights[name].shape)}, not {shape}"
            for name, shape in shapes.items()
            if name in weights
            and tuple(weights[name].shape) not in (shape, *([(shape[0], 1, *shape[2:])] if name == STEM else []))
            and not name.endswith(COUNT)
        ],
    }
    if not any(faults.values()):
        return
    n_layers = len({name.split(".")[1] for name in weights if name.startswith("denseblock3.")})
    nearest = DENSENETS.get((channels[0], n_layers), "DenseNet121")
    said = "; ".join(f"it {verb} {_show(names)}" for verb, names in faults.items() if names)
    raise CheckpointError(
        f"{what}: not the weights of DenseNet121: found {format_count(len(weights), 'tensor')} below {prefix[:60]!r}, "
        f"nearest to {nearest}: {said}"
    )


def _to_float(name: str, tensor: Tensor | None, where: str) -> Tensor:
    if name.endswith(COUNT):  # unused here: the statistics have a momentum
        return torch.tensor(0)
    assert tensor is not None
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not is_plain or tensor.is_nested or tensor.dtype not in FLOATS:
        raise CheckpointError(f"{where}{name} is {tensor.dtype}, {tensor.layout}: weights are dense floats")
    if not is_whole(tensor):
        raise CheckpointError(f"{where}{name} repeats the same numbers in the file: it is damaged, or no training's")
    converted = tensor.detach().to(torch.float32).contiguous()
    if name.endswith("running_var") and (converted < 0).any():
        raise CheckpointError(f"{where}{name} is below 0, which no variance is: it is damaged")
    return converted


def _describe_other(state: Mapping[str, Tensor], what: str) -> str:
    """Describe a state dict without DenseNet's stem, by its names."""
    matching = (network for pattern, network in OTHERS.items() if any(re.search(pattern, name) for name in state))
    nearest = next(matching, "nothing known")
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    return (
        f"{what}: not the weights of DenseNet121: found {format_count(len(state), 'tensor')} "
        f"({_show(shown)}), nearest to {nearest}; looked for {STEM} (64, 3 or 1, 7, 7) under any prefix, "
        "as torchvision, timm, MONAI and torchxrayvision name it"
    )


def _show(names: list[str]) -> str:
    """A few names in one line, cleaned: a file's names may hold anything."""
    shown = name_some(names, 2)[:160]
    return shown if shown.isprintable() else ascii(shown)
