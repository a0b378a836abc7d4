"""Weights from files: torchvision's for ImageNet, or state dicts of anybody, of which nothing is run."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import DenseNet121_Weights

from cxrlit.core.errors import CheckpointError, first_line
from cxrlit.core.files import hash_file
from cxrlit.model.archive import is_whole
from cxrlit.model.load_state import load_or_describe

IMAGENET_URL: str = DenseNet121_Weights.IMAGENET1K_V1.url
IMAGENET_FILE = IMAGENET_URL.rpartition("/")[2]


def fetch_imagenet() -> Path:
    """torchvision's ImageNet weights in torch's own cache, downloaded on first use.

    Raises:
        CheckpointError: They are not in the cache and cannot be downloaded; says which file to put where.
    """
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_FILE
    digest = IMAGENET_FILE.removesuffix(".pth").rpartition("-")[2]
    if path.is_file():
        if not hash_file(path).startswith(digest):
            raise CheckpointError(f"model.weights=imagenet: {path} is not torchvision's file of that name: remove it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(IMAGENET_URL, str(path), hash_prefix=digest)
    except (OSError, RuntimeError) as error:  # no network is an OSError, a wrong hash a RuntimeError
        raise CheckpointError(
            f"model.weights=imagenet: {IMAGENET_FILE} cannot be downloaded ({first_line(error)}): put the file "
            f"from {IMAGENET_URL} into {path.parent}, or start from model.weights=none"
        ) from None
    return path


def load_features(features: nn.Module, path: Path) -> None:
    """Load DenseNet121's features from a state dict in torchvision's format; its classifier is ignored.

    The names of older files (``norm.1`` for ``norm1``) are understood, as torchvision does.

    Raises:
        CheckpointError: The file is missing, is not a state dict of plain tensors, or its tensors do not fit.
    """
    if not path.is_file():
        raise CheckpointError(f"model.weights={path}: there is no such file; it may be imagenet, none or a file")
    state = load_plain(path, f"model.weights={path}")
    if not isinstance(state, dict):
        raise CheckpointError(f"model.weights={path}: not a state dict: it must map names to tensors")
    check_finite(state, f"model.weights={path}")
    # torchvision's own file still has the names norm.1, conv.2 ... of its first releases.
    weights = {
        re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", name.removeprefix("features.")): tensor
        for name, tensor in state.items()
        if name.startswith("features.")
    }
    load_or_describe(features, weights, f"model.weights={path}: not the weights of torchvision's DenseNet121")


def load_plain(path: Path, what: str) -> Any:
    """Load tensors and plain types from a file; nothing in it is run.

    Args:
        path: A file by ``torch.save``, or ``.safetensors``.
        what: What to call it in messages.

    Raises:
        CheckpointError: It is damaged, no such file at all, or a pickle of more than plain types.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd pickle, which is refused or read all the same
            return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{what}: refused: it is no file of weights, or holds more than plain types") from None
    except Exception as error:  # bytes that are no pickle make the reader raise anything
        raise CheckpointError(f"{what}: it is damaged or no file of weights: {first_line(error, 160)}") from None


def check_finite(state: dict[Any, Any], what: str) -> None:
    """The mapping is a state dict, and no weight of it is NaN or infinite.

    Raises:
        CheckpointError: It is not; the message names the weight.
    """
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{what}: not a state dict: it must map names to tensors")
        if not is_whole(value):
            raise CheckpointError(f"{what}: {name} is no plain tensor")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{what}: {name} holds NaN or infinity: the training behind it diverged")
