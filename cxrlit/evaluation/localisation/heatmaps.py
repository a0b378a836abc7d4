"""Grad-CAM and Grad-CAM++ of every label from one forward pass.

They are taken at the input of the head: the last dense block after its BatchNorm and ReLU. Before these, a channel has
an offset that only the BatchNorm removes, so that the ReLU of Grad-CAM would cut each map at an arbitrary level, and
Grad-CAM++ is defined on non-negative maps. From there, a logit is a mean and a product, so that gradients are known
without a backward pass, and Grad-CAM's map is the contribution of each position to the logit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cxrlit.model.densenet import CXRNet

Method = Literal["gradcam", "gradcam++"]


class Heatmaps(NamedTuple):
    """Logits and heatmaps of a batch.

    Attributes:
        logits: (B, L) float32.
        maps: (B, L, h, w) float32 in [0, 1], h and w about S / 32: each map divided by its maximum. A map without a
            positive value (no evidence for the label) is 0 everywhere.
    """

    logits: Tensor
    maps: Tensor


@torch.no_grad()
def make_heatmaps(network: CXRNet, images: Tensor, method: Method = "gradcam") -> Heatmaps:
    """Compute the logits and the heatmap of each label in each image.

    The network runs in eval mode and returns to its previous mode; nothing in it changes. Under autocast, features may
    have lower precision; everything after them is float32.

    Args:
        network: The network.
        images: (B, 1, S, S) uint8, on its device.
        method: ``gradcam`` or ``gradcam++``.

    Raises:
        ValueError: A map is NaN or infinite.

    Memory: 1,024 float32 maps of h x w per image.
    """
    with evaluating(network):
        features = network.forward_features(images)
    logits = network.forward_head(features)
    with torch.autocast(images.device.type, enabled=False):
        maps = weigh_features(features, network.head.weight, method)
    if not torch.isfinite(maps).all():
        raise ValueError("a heatmap is NaN or infinite")
    return Heatmaps(logits, normalise(maps))


def weigh_features(features: Tensor, weight: Tensor, method: Method) -> Tensor:
    """Compute the maps as the papers define them, for a head that is linear in the mean of each feature map.

    With F the features of a channel, m their mean, W the head's weight and n the cells of a map, the gradient of the
    logit is W / n in every cell. So Grad-CAM's weight of a channel is W / n. Grad-CAM++'s is relu(W) / (2 + W m),
    since all derivatives of exp(logit) are powers of W / n.

    Args:
        features: (B, C, h, w), >= 0.
        weight: (L, C) weight of the head.
        method: ``gradcam`` or ``gradcam++``.

    Returns:
        (B, L, h, w), >= 0. For Grad-CAM, the mean over all cells before the ReLU is the logit without its bias.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017; Chattopadhay et al., "Grad-CAM++", WACV 2018; for this kind of head
        Grad-CAM is the class activation map of Zhou et al., CVPR 2016.
    """
    if method == "gradcam":
        maps = torch.einsum("lc,bchw->blhw", weight, features)
    else:
        positive = weight.relu()
        by_image = positive / (2 + positive * features.mean(dim=(2, 3))[:, None])  # (B, L, C)
        maps = torch.einsum("blc,bchw->blhw", by_image, features)
    return maps.relu()


def normalise(maps: Tensor) -> Tensor:
    """Divide each map (..., h, w) by its maximum, so that it is in [0, 1]; a map of zeros does not change."""
    highest = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / torch.where(highest > 0, highest, 1)


def average_heatmaps(maps: Tensor) -> Tensor:
    """Average (M, ..., h, w) heatmaps of M networks and divide by the maximum; one network's do not change.

    >>> average_heatmaps(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]))
    tensor([[0.5000, 1.0000]])
    """
    return maps[0] if len(maps) == 1 else normalise(maps.mean(dim=0))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode inside the block, and restore their modes after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
