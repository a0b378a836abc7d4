"""Write ``model.onnx``: the network as a graph of standard operators.

The graph is written here node by node, not traced: the same weights give the same bytes with any exporter version,
without paths, times or versions. A BatchNorm after a convolution is folded into it, exact except for rounding (in
float64, rounded once); one after a concatenation and before a ReLU cannot be folded, and stays. A transition pools
before its 1 x 1 convolution instead of after it, which gives the same sum with a quarter of the products.

    images (batch, 1, S, S) uint8 -> logits (batch, L) float32, features (batch, 1024, S / 32, S / 32) float32
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.extras import import_extra

if TYPE_CHECKING:
    from cxrlit.model.densenet import CXRNet

OPSET, IR_VERSION = 18, 9
IMAGES, LOGITS, FEATURES = "images", "logits", "features"


def import_onnx() -> Any:
    """Import the package onnx.

    Raises:
        ConfigError: It is not installed.
    """
    return import_extra("onnx", "onnx", "model.onnx")


def make_graph(network: "CXRNet", img_size: int) -> bytes:
    """Make the bytes of an ONNX model of the network.

    Args:
        network: The network, which is not changed.
        img_size: S, pixels.
    """
    return _Writer(network).write(img_size)


class _Writer:
    """Collects nodes and weights; each node is named after its output."""

    def __init__(self, network: "CXRNet") -> None:
        self.onnx = import_onnx()
        self.network = network
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def write(self, img_size: int) -> bytes:
        from torchvision.models.densenet import _DenseLayer, _Transition

        helper, types = self.onnx.helper, self.onnx.TensorProto
        network, features = self.network, self.network.features
        maps = self.add("Cast", "pixels", [IMAGES], to=types.FLOAT)
        maps = self.add("Div", "scaled", [maps, self.keep("white", np.array(255, np.float32))])
        maps = self.add("Concat", "channels", [maps] * 3, axis=1)
        for operator, name in (("Sub", "mean"), ("Div", "std")):
            maps = self.add(operator, f"normalize.{name}", [maps, self.keep(name, getattr(network, name).numpy())])
        maps = self.convolve("conv0", maps, features.conv0, features.norm0)
        maps = self.add("Relu", "relu0", [maps])
        maps = self.add("MaxPool", "pool0", [maps], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for name, module in features.named_modules():
            if isinstance(module, _DenseLayer):
                made = self.normalize(f"{name}.norm1", maps, module.norm1)
                made = self.convolve(
                    f"{name}.conv1", self.add("Relu", f"{name}.relu1", [made]), module.conv1, module.norm2
                )
                made = self.convolve(f"{name}.conv2", self.add("Relu", f"{name}.relu2", [made]), module.conv2)
                maps = self.add("Concat", name, [maps, made], axis=1)
            elif isinstance(module, _Transition):
                maps = self.add("Relu", f"{name}.relu", [self.normalize(f"{name}.norm", maps, module.norm)])
                maps = self.add("AveragePool", f"{name}.pool", [maps], kernel_shape=[2, 2], strides=[2, 2])
                maps = self.convolve(f"{name}.conv", maps, module.conv)
        maps = self.add("Relu", FEATURES, [self.normalize("norm5", maps, features.norm5)])
        axes = self.keep("axes", np.array([2, 3], np.int64))
        means = self.add("ReduceMean", "means", [maps, axes], keepdims=0)
        head = [self.keep(f"head.{name}", tensor.detach().numpy()) for name, tensor in network.head.named_parameters()]
        self.add("Gemm", LOGITS, [means, *head], transB=1)
        n_labels, cells = len(network.head.bias), img_size // 32
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "cxrlit",
            [value(IMAGES, types.UINT8, ["batch", 1, img_size, img_size])],
            [value(LOGITS, types.FLOAT, ["batch", n_labels]),
             value(FEATURES, types.FLOAT, ["batch", features.norm5.num_features, cells, cells])],
            self.weights,
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cxrlit"
        )
        self.onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def add(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def keep(self, name: str, values: NDArray[Any]) -> str:
        """Add a weight; returns its name."""
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def normalize(self, name: str, maps: str, norm: Any) -> str:
        tensors = {"weight": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "var": norm.running_var}
        kept = [self.keep(f"{name}.{part}", tensor.detach().numpy()) for part, tensor in tensors.items()]
        return self.add("BatchNormalization", name, [maps, *kept], epsilon=norm.eps)

    def convolve(self, name: str, maps: str, conv: Any, norm: Any = None) -> str:
        """Add a convolution, with the BatchNorm after it folded in."""
        weight, kept = conv.weight.detach().numpy(), []
        if norm is not None:
            scale = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach().numpy()
            bias = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * scale
            weight = (weight * scale[:, None, None, None]).astype(np.float32)
            kept = [self.keep(f"{name}.bias", bias.astype(np.float32))]
        kept.insert(0, self.keep(f"{name}.weight", weight))
        (rows, columns), (step, _) = conv.padding, conv.stride
        pads = [rows, columns, rows, columns]
        return self.add(
            "Conv", name, [maps, *kept], kernel_shape=list(conv.kernel_size), pads=pads, strides=[step, step]
        )
