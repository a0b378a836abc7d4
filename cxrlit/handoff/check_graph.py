"""Check that a graph is, node by node, the one that ``onnx_export`` writes, or that one in int8.

An int8 graph is quantised by any version of ONNX Runtime, so its names and order are not fixed. The nodes that
quantisation adds are removed for the check: each pair of QuantizeLinear and DequantizeLinear, and each DequantizeLinear
of a constant, which becomes a weight. The rest must be the graph in fp32.
"""

import hashlib
from typing import Any

import numpy as np

from cxrlit.core.errors import BundleError, first_line
from cxrlit.handoff.onnx_export import FEATURES, IMAGES, LOGITS, import_onnx

STRUCTURE = "ac5a703c3c8a79af030807150b16d33cc23ae1b90b8e87f6e1df3e54e23f2a66"
"""SHA-256 of a graph's structure without its numbers (``_digest_structure``). It changes with ``onnx_export``."""


def check_graph(content: bytes, n_labels: int, img_size: int, path: Any, *, is_int8: bool = False) -> None:
    """Refuse any other graph than the one that ``onnx_export`` writes: its nodes could do anything.

    Args:
        content: The bytes of an ONNX model.
        n_labels: L.
        img_size: S, pixels.
        path: Path of the file, for messages.
        is_int8: Whether it is quantised.

    Raises:
        BundleError: It is another graph, not an ONNX model, has other labels or another image size than the bundle, or
            a weight is not finite.
    """
    onnx = import_onnx()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own error types
        raise BundleError(f"{path}: no ONNX model: {first_line(error, 160)}") from None
    graph = model.graph
    if any(weight.external_data or weight.data_location for weight in graph.initializer):
        raise BundleError(f"{path}: refused: its weights lie in another file")
    if model.functions or graph.sparse_initializer or model.training_info:
        raise BundleError(f"{path}: refused: it holds more than a network")
    for weight in graph.initializer:
        try:
            values = onnx.numpy_helper.to_array(weight)
        except Exception as error:  # of any type: the bytes do not fit its shape
            raise BundleError(f"{path}: {weight.name}: {first_line(error, 160)}") from None
        if not np.isfinite(values).all():
            raise BundleError(f"{path}: {weight.name} has values that are not finite numbers")
    if is_int8 and not _remove_quantisation(graph, onnx):
        raise BundleError(f"{path}: refused: it is quantised in a way in which this version of cxrlit does not")
    if _digest_structure(model) != STRUCTURE:
        raise BundleError(f"{path}: refused: it is not the graph that this version of cxrlit writes")
    found = [
        (value.name, value.type.tensor_type.elem_type, [size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    ]
    wanted = [
        (IMAGES, onnx.TensorProto.UINT8, [0, 1, img_size, img_size]),
        (LOGITS, onnx.TensorProto.FLOAT, [0, n_labels]),
        (FEATURES, onnx.TensorProto.FLOAT, [0, 1024, img_size // 32, img_size // 32]),
    ]
    if found != wanted:
        raise BundleError(f"{path}: it is not of {n_labels} labels and {img_size} px, as the bundle's config says")


def _digest_structure(model: Any) -> str:
    """Hash the nodes, the versions of their operators, and names, types and shapes of the weights.

    The number of labels is hashed as 0, since it is checked with the outputs.
    """
    parts = [entry.SerializeToString(deterministic=True) for entry in (*model.opset_import, *model.graph.node)]
    for weight in sorted(model.graph.initializer, key=lambda one: one.name):
        shape = [0, *weight.dims[1:]] if weight.name.startswith("head.") else list(weight.dims)
        parts.append(f"{weight.name} {weight.data_type} {shape}".encode())
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _remove_quantisation(graph: Any, onnx: Any) -> bool:
    """Remove the nodes of quantisation from a graph; False if one differs from those written here.

    Activations are uint8 with one scale, weights int8 and biases int32 with a scale for each output channel.
    """
    types = onnx.TensorProto
    constants = {weight.name: weight for weight in graph.initializer}
    numbers: set[str] = set()  # names of scales, zero points and quantised weights
    weights, nodes = [], []
    stands_for: dict[str, str] = {}  # names of the original tensors, by the names read in their place
    quantised: dict[str, list[str]] = {}  # input of each QuantizeLinear, by its output
    for node in graph.node:
        names = [stands_for.get(name, name) for name in node.input]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            del node.input[:]
            node.input.extend(names)
            nodes.append(node)
            continue
        attributes = [(attribute.name, attribute.i) for attribute in node.attribute]
        if node.domain or len(names) != 3 or len(node.output) != 1 or attributes not in ([], [("axis", 0)]):
            return False
        scale, zero = (constants.get(name) for name in names[1:])
        if scale is None or zero is None or list(scale.dims) != list(zero.dims) or scale.data_type != types.FLOAT:
            return False
        if not (onnx.numpy_helper.to_array(scale) > 0).all():
            return False
        numbers.update(names[1:])
        weight = constants.get(names[0])
        if weight is not None and node.op_type == "DequantizeLinear":
            if weight.data_type not in (types.INT8, types.INT32) or zero.data_type != weight.data_type:
                return False
            if list(scale.dims) != list(weight.dims[:1]):
                return False
            numbers.add(names[0])
            restored = types(name=names[0].removesuffix("_quantized"), data_type=types.FLOAT, dims=weight.dims)
            weights.append(restored)
            stands_for[node.output[0]] = restored.name
        elif list(scale.dims) or zero.data_type != types.UINT8:
            return False
        elif node.op_type == "QuantizeLinear":
            quantised[node.output[0]] = names
        elif quantised.get(names[0], [])[1:] == names[1:]:
            stands_for[node.output[0]] = quantised[names[0]][0]
        else:
            return False
    weights += [weight for name, weight in constants.items() if name not in numbers]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    return bool(numbers)
