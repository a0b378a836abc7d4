"""The interface of a backend: its names and precisions, and the output of a batch."""

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BackendName = Literal["torch", "onnx", "openvino"]
BackendChoice = Literal["auto"] | BackendName
Precision = Literal["bf16", "fp32", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""Device of the networks; auto: a GPU, if there is one."""


class Output(NamedTuple):
    """Output of a batch.

    Attributes:
        logits: (M, B, L) float32, of M networks.
        features: (M, B, 1024, h, w) float32; None unless requested.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None


class Backend(Protocol):
    """Computes the networks of a bundle."""

    description: str
    """Program, version, precision and device, for a summary."""
    precision: Precision
    """Precision of the computation."""
    batch_size: int
    """Default batch size, images."""
    reads_ahead: bool
    """Whether files are read while it computes, because it leaves cores free or its threads never wait."""

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """Compute the logits of (B, S, S) uint8 images and, if ``with_features``, the features for heatmaps."""
