"""Grad-CAM and Grad-CAM++ of every label from one forward pass.

They are taken at the last dense block as the head sees it: after the block's BatchNorm and ReLU. Before them a channel
has an offset that only the BatchNorm takes away, so that the ReLU of Grad-CAM would cut each map at an arbitrary level,
and Grad-CAM++ is defined on maps that are not negative. From there to a logit there is a mean and a product, so that
the gradients are known without a backward pass, and Grad-CAM's map is a share of the logit: what a place adds to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cxrlit.model.densenet import CXRNet

Method = Literal["gradcam", "gradcam++"]


class Heatmaps(NamedTuple):
    """Of a batch.

    Attributes:
        logits: (B, L) float32.
        maps: (B, L, h, w) float32 in [0, 1], h and w about S / 32: each map divided by its maximum. One that is
            nowhere positive (nothing speaks for the label) is 0 everywhere.
    """

    logits: Tensor
    maps: Tensor


@torch.no_grad()
def make_heatmaps(network: CXRNet, images: Tensor, method: Method = "gradcam") -> Heatmaps:
    """The heatmap of each label in each image, and the logits.

    The network is evaluated (BatchNorm with its own statistics, whatever its mode, which it keeps); nothing of it
    changes. Under autocast the features may be of less precision; what follows them is float32.

    Args:
        network: The network.
        images: (B, 1, S, S) uint8, on its device.
        method: ``gradcam`` or ``gradcam++``.

    Raises:
        ValueError: A map is NaN or infinite.

    Memory: 1,024 float32 maps of h x w an image.
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
    """The maps as the papers define them, for a head that is linear in the mean of each feature map.

    With F the features of a channel, m their mean, W the head's weight and n the cells of a map, the gradient of the
    logit is W / n in every cell. So Grad-CAM's weight of a channel is W / n, and Grad-CAM++'s is, since all derivatives
    of exp(logit) are powers of that, relu(W) / (2 + W m).

    Args:
        features: (B, C, h, w), none negative.
        weight: (L, C) of the head.
        method: ``gradcam`` or ``gradcam++``.

    Returns:
        (B, L, h, w), none negative. Of Grad-CAM: the mean over all cells is, before the ReLU, the logit without its
        bias.

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
    """Each map (..., h, w) divided by its maximum, so that it is in [0, 1]; one of zeros stays so."""
    highest = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / torch.where(highest > 0, highest, 1)


def average_heatmaps(maps: Tensor) -> Tensor:
    """(M, ..., h, w) heatmaps of M networks to their mean, divided by its maximum; those of one network stay.

    >>> average_heatmaps(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]))
    tensor([[0.5000, 1.0000]])
    """
    return maps[0] if len(maps) == 1 else normalise(maps.mean(dim=0))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """All modules in eval mode inside the block, each in its own mode after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
