"""DenseNet121, and its layers in the order and number that Keras counts."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet
from torchvision.models.densenet import _DenseLayer, _Transition

from cxrlit.config import N_LAYERS, Normalization
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.sources import NORMALIZE

IMAGES_A_THREAD = 2
"""Images per CPU thread that frozen layers compute at once, so that their maps stay in cache."""


class CXRNet(nn.Module):
    """DenseNet121's features, global average pooling and a linear head.

    Args:
        normalize: A key of ``NORMALIZE``.
        n_labels: Outputs of the head.

    Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017; features by torchvision.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalize: Normalization, n_labels: int) -> None:
        super().__init__()
        densenet = DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64)
        self.features = densenet.features
        self.head = nn.Linear(densenet.classifier.in_features, n_labels)
        nn.init.zeros_(self.head.bias)
        mean, std = NORMALIZE[normalize]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def units(self) -> list[nn.Module]:
        """The modules of the features, in order; a dense block is listed as its dense layers."""
        units: list[nn.Module] = []
        for module in self.features.children():
            units += module.children() if isinstance(module, nn.ModuleDict) else [module]
        return units

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: (B, 1, S, S) uint8 gray values.

        Returns:
            (B, L) float32 logits, also under autocast: pooling and head compute in float32.
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Map (B, 1, S, S) uint8 images to (B, 1024, h, w) float32 feature maps, >= 0; h is S / 32."""
        n_frozen = count_frozen_units(self.units)
        [maps] = self.forward_frozen(images, [n_frozen])
        return self.forward_trainable(maps, n_frozen)

    def forward_frozen(self, images: Tensor, stops: Sequence[int]) -> list[Tensor]:
        """Compute the output of the first, frozen units without autograd.

        A CPU computes a few images at a time, so that their maps stay in cache: about a fifth faster.

        Args:
            images: (B, 1, S, S) uint8 gray values.
            stops: Numbers of units, ascending. One pass computes all of them.

        Returns:
            For each stop, the (B, C, h, w) maps after that many units.
        """
        on_cpu = images.device.type == "cpu"
        n_few = IMAGES_A_THREAD * torch.get_num_threads() if on_cpu else max(len(images), 1)
        with torch.no_grad():
            parts = [self._forward_frozen_few(few, stops) for few in torch.split(images, n_few)]
        return [torch.cat(made) for made in zip(*parts, strict=True)]

    def _forward_frozen_few(self, images: Tensor, stops: Sequence[int]) -> list[Tensor]:
        pixels = images.to(torch.float32) / 255.0
        pixels = (pixels.expand(-1, 3, -1, -1) - self.mean) / self.std
        maps = pixels.contiguous(memory_format=torch.channels_last)
        made: list[Tensor] = []
        for first, stop in itertools.pairwise([0, *stops]):
            maps = _run(self.units[first:stop], maps)
            made.append(maps)
        return made

    def forward_trainable(self, maps: Tensor, n_units: int) -> Tensor:
        """Apply the units after the first ``n_units``; returns (B, 1024, h, w) float32 feature maps."""
        return torch.relu(_run(self.units[n_units:], maps).float())

    def forward_from_features(self, features: Tensor, n_units: int) -> Tensor:
        """Compute (B, L) logits from the output of the first ``n_units``; after all units, from (B, 1024) map means."""
        if n_units < len(self.units):
            features = self.forward_trainable(features, n_units)
        return self.forward_head(features)

    def forward_head(self, features: Tensor) -> Tensor:
        """Map (B, 1024, h, w) float32 feature maps, or their (B, 1024) means, to (B, L) logits."""
        means = features.mean(dim=(2, 3)) if features.ndim == 4 else features
        with torch.autocast(means.device.type, enabled=False):
            logits: Tensor = self.head(means)
        return logits

    def compile_parts(self) -> None:
        """Compile the frozen and the trainable part, each at its first batch of a shape."""
        for name in ("_forward_frozen_few", "forward_trainable"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=False))


def _run(units: Sequence[nn.Module], maps: Tensor) -> Tensor:
    for unit in units:
        if isinstance(unit, _DenseLayer):
            made = unit.conv1(unit.relu1(unit.norm1(maps)))
            maps = torch.cat([maps, unit.conv2(unit.relu2(unit.norm2(made)))], 1)
        elif isinstance(unit, _Transition):  # pooling before the 1 x 1 convolution saves 3/4 of its products
            maps = unit.conv(unit.pool(unit.relu(unit.norm(maps))))
        else:
            maps = unit(maps)
    return maps


def count_frozen_units(units: Sequence[nn.Module]) -> int:
    """Count the first units without a trainable parameter or a BatchNorm that trains."""
    for number, unit in enumerate(units):
        if any(parameter.requires_grad for parameter in unit.parameters()) or any(
            isinstance(module, nn.BatchNorm2d) and module.training for module in unit.modules()
        ):
            return number
    return len(units)


def build_network(weights: str, normalize: str, n_labels: int, seed: int) -> CXRNet:
    """Build a network with features from ``weights`` and a new head.

    Args:
        weights: ``none`` (random), ``imagenet``, ``xrv:NAME``, ``timm:NAME``, or a file of weights.
        normalize: A key of ``NORMALIZE``; auto: as the weights expect.
        n_labels: Outputs of the head.
        seed: Seed of all random weights.

    Raises:
        CheckpointError: The weights are missing, cannot be downloaded, or are not DenseNet121's.
        ConfigError: The weights need another ``normalize``.
    """
    start = open_weights(weights, normalize)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CXRNet(start.normalize, n_labels)
    start.load_into(network.features, network.head)
    return network.to(memory_format=torch.channels_last)


def list_layers(network: CXRNet) -> list[tuple[str, nn.Module | None]]:
    """The layers of ``DenseNet121(include_top=False)`` as Keras counts them, first to last.

    Returns:
        427 pairs of a name and the module that holds the layer's weights; None for a layer without weights
        (input, padding, activation, pooling, concatenation).

    Source: keras.applications.densenet; the numbers were read off Keras 3.
    """
    return list(_walk(network.features))


def _walk(features: Any) -> Iterator[tuple[str, nn.Module | None]]:
    yield from (("input", None), ("pad0", None), ("conv0", features.conv0), ("norm0", features.norm0))
    yield from (("relu0", None), ("pad1", None), ("pool0", None))
    for block in range(1, 5):
        for name, dense in getattr(features, f"denseblock{block}").named_children():
            for part in ("norm1", "relu1", "conv1", "norm2", "relu2", "conv2", "concat"):
                module = None if part in {"relu1", "relu2", "concat"} else getattr(dense, part)
                yield f"denseblock{block}.{name}.{part}", module
        if block < 4:
            transition = getattr(features, f"transition{block}")
            for part in ("norm", "relu", "conv", "pool"):
                yield f"transition{block}.{part}", getattr(transition, part) if part in {"norm", "conv"} else None
    yield from (("norm5", features.norm5), ("relu5", None))


def list_trainable(network: CXRNet, n_unfreeze: int) -> list[nn.Parameter]:
    """The parameters of the head and of the last ``n_unfreeze`` layers.

    Raises:
        ValueError: ``n_unfreeze`` is not 0 to 427.
    """
    if not 0 <= n_unfreeze <= N_LAYERS:
        raise ValueError(f"n_unfreeze is {n_unfreeze}, not 0 to {N_LAYERS}")
    return [
        parameter
        for module in (network.head, *list_last_modules(network, n_unfreeze))
        for parameter in module.parameters()
    ]


def unfreeze_last(network: CXRNet, n_unfreeze: int) -> None:
    """Make only the head and the last ``n_unfreeze`` layers require gradients."""
    trainable = {id(parameter) for parameter in list_trainable(network, n_unfreeze)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trainable)


def list_last_modules(network: CXRNet, n_unfreeze: int) -> list[nn.Module]:
    """The modules with weights among the last ``n_unfreeze`` layers."""
    layers = list_layers(network)
    return [module for _, module in layers[len(layers) - n_unfreeze :] if module is not None]
