"""``model.safetensors``: written from a network, and its head read without torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from cxrlit.errors import BundleError, first_line

if TYPE_CHECKING:
    from cxrlit.model.densenet import CXRNet

N_FEATURES = 1024


def pack_weights(network: "CXRNet") -> bytes:
    """The weights and buffers of a network as the bytes of a safetensors file."""
    from safetensors.torch import save

    content: bytes = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    return content


def read_head(content: bytes, n_labels: int, path: Path) -> NDArray[np.float32]:
    """(L, 1024) weights of the head.

    Args:
        content: The bytes of a safetensors file.
        n_labels: L.
        path: Where they are from, for messages.

    Raises:
        BundleError: It is no such file, its head is not of so many labels, or a weight is not a finite number.
    """
    try:
        tensors = load(content)
    except Exception as error:  # safetensors' own kind of error
        raise BundleError(f"{path}: no safetensors file: {first_line(error)[:160]}") from None
    head, bias = tensors.get("head.weight"), tensors.get("head.bias")
    if head is None or bias is None or head.shape != (n_labels, N_FEATURES) or bias.shape != (n_labels,):
        raise BundleError(f"{path}: its head is not of the {n_labels} labels of the config")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(f"{path}: {name} has values that are not finite numbers")
    return np.asarray(head, np.float32)
