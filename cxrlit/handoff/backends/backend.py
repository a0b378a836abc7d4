"""The interface of a backend: its names and precisions, and the output of a batch."""

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BackendName = Literal["torch", "onnx", "openvino"]
BackendChoice = Literal["auto"] | BackendName
Precision = Literal["bf16", "fp32", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""Where networks compute; auto: on a GPU, where there is one."""


class Output(NamedTuple):
    """Output of a batch.

    Attributes:
        logits: (M, B, L) float32, of M networks.
        features: (M, B, 1024, h, w) float32; None where they were not asked for.
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
    """Images at once, unless somebody says otherwise."""
    reads_ahead: bool
    """Whether files are read while it computes: it leaves cores free, or waits for none of its threads."""

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """(B, S, S) images to logits, and to the features that heatmaps are made of."""
