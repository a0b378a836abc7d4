"""Write ``model.safetensors`` from a network, and read its head without torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from cxrlit.core.errors import BundleError, first_line

if TYPE_CHECKING:
    from cxrlit.model.densenet import CXRNet

N_FEATURES = 1024


def pack_weights(network: "CXRNet", labels: Sequence[str]) -> bytes:
    """Pack the weights and buffers of a network, and the labels of its outputs, into a safetensors file."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    content: bytes = save(tensors, metadata={"labels": json.dumps(list(labels))})
    return content


def read_head(content: bytes, labels: Sequence[str], path: Path) -> NDArray[np.float32]:
    """Read the (L, 1024) weights of the head.

    Args:
        content: The bytes of a safetensors file.
        labels: L labels, in the order of the config.
        path: Path of the file, for messages.

    Raises:
        BundleError: It is not a safetensors file, its head has other labels, or a weight is not finite.
    """
    try:
        tensors = load(content)
    except Exception as error:  # safetensors' own error type
        raise BundleError(f"{path}: no safetensors file: {first_line(error, 160)}") from None
    # JSON follows 8 bytes of length, else it would not have loaded.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if header.get("__metadata__", {}).get("labels") != json.dumps(list(labels)):
        raise BundleError(f"{path}: its labels are not those of the config, in their order")
    n_labels = len(labels)
    head, bias = tensors.get("head.weight"), tensors.get("head.bias")
    if head is None or bias is None or head.shape != (n_labels, N_FEATURES) or bias.shape != (n_labels,):
        raise BundleError(f"{path}: its head is not of the {n_labels} labels of the config")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(f"{path}: {name} has values that are not finite numbers")
    return np.asarray(head, np.float32)
