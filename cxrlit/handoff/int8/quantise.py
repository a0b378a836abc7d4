"""Make ``model.int8.onnx``: ``model.onnx`` quantised statically by ONNX Runtime's tool, on training images.

Activations are uint8 with one scale, weights int8 with a scale for each output channel, in pairs of QuantizeLinear and
DequantizeLinear (QDQ), which ONNX Runtime and OpenVINO both fuse. Weights have 7 bits (``reduce_range``): on CPUs
without VNNI, sums of two products of 8 bits do not fit into 16 bits, and the file must not depend on the CPU. All
convolutions except the first, which sees the pixels, are quantised; the first and the head stay in fp32.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.extras import import_extra
from cxrlit.handoff.onnx_export import IMAGES, import_onnx

BATCH_SIZE = 8


def import_quantization() -> Any:
    """Import ONNX Runtime's quantisation tool.

    Raises:
        ConfigError: It is not installed.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        return import_extra("onnxruntime.quantization", "onnx", "--int8")
    finally:  # its import makes the root logger print messages of all libraries
        root.handlers[:] = handlers
        root.setLevel(level)


def quantise_graph(graph: bytes, images: NDArray[np.uint8]) -> bytes:
    """Quantise a graph to int8. The bytes are the same for one type of CPU and version of onnxruntime.

    Args:
        graph: From ``make_graph``.
        images: (N, S, S) training images, which fix the ranges of the activations.
    """
    onnx, tool = import_onnx(), import_quantization()
    with tempfile.TemporaryDirectory() as folder:
        exact, made = Path(folder, "exact.onnx"), Path(folder, "int8.onnx")
        model = onnx.load_model_from_string(graph)
        # The tool's mark of a preprocessed graph, without which it warns twice.
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        onnx.save_model(model, exact)
        tool.quantize_static(
            exact,
            made,
            _Batches(images),
            quant_format=tool.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=["conv0", "relu0"],
            per_channel=True,
            reduce_range=True,
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            calibrate_method=tool.CalibrationMethod.MinMax,
            extra_options={"QDQKeepRemovableActivations": True},  # check_graph needs all nodes
        )
        quantised = onnx.load_model(made)
    quantised.producer_name = "cxrlit"
    del quantised.graph.value_info[:], quantised.metadata_props[:]  # tensor shapes, and marks of the tool
    content: bytes = quantised.SerializeToString(deterministic=True)
    return content


class _Batches:
    """Gives the tool the images, batch by batch, then None."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches = (images[start : start + BATCH_SIZE, None] for start in range(0, len(images), BATCH_SIZE))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGES: np.ascontiguousarray(batch)}
