"""Test-time augmentation: the views of an image that a network sees, and their mean over views and networks.

``none`` is the image, S x S. ``flip`` is the image and its mirror image. ``crops`` resizes the image to 8 S / 7 pixels
(256 for 224) and takes its centre and four corners, S x S, each with its mirror image: ten views.

Evaluation and bundles share this file, which needs no torch.

Source of the ten crops: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
2012.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cxrlit.config import TTA, Average

if TYPE_CHECKING:
    from torch import Tensor

Images = TypeVar("Images", "Tensor", NDArray[np.uint8])

VIEWS: dict[TTA, str] = {
    "none": "each image",
    "flip": "each image and its mirror image",
    "crops": "ten crops of each image",
}
"""Description of the views."""
N_VIEWS: dict[TTA, int] = {"none": 1, "flip": 2, "crops": 10}


def choose_side(size: int, tta: TTA) -> int:
    """Side at which an image is loaded, pixels.

    Args:
        size: Side S of the network's input, pixels.
        tta: The test-time augmentation.

    >>> choose_side(224, "none"), choose_side(224, "flip"), choose_side(224, "crops"), choose_side(320, "crops")
    (224, 224, 256, 366)
    """
    return round(8 * size / 7) if tta == "crops" else size


def cut_views(images: Images, size: int, tta: TTA) -> list[Images]:
    """The views of images, each (..., S, S).

    Args:
        images: (..., H, H), with the side from ``choose_side``.
        size: Side S, pixels.
        tta: The test-time augmentation.

    >>> image = np.arange(9, dtype=np.uint8).reshape(3, 3)
    >>> [view.tolist() for view in cut_views(image[:, 1:], 3, "flip")]
    [[[1, 2], [4, 5], [7, 8]], [[2, 1], [5, 4], [8, 7]]]
    >>> [view[0, 0].item() for view in cut_views(np.arange(1369).reshape(37, 37), 32, "crops")]
    [76, 107, 0, 31, 5, 36, 185, 216, 190, 221]
    """
    if tta == "none":
        return [images]
    if tta == "flip":
        return [images, _mirror(images)]
    last = images.shape[-1] - size
    centre = last // 2
    places = [(centre, centre), (0, 0), (0, last), (last, 0), (last, last)]
    crops = [images[..., top : top + size, left : left + size] for top, left in places]
    return [view for crop in crops for view in (crop, _mirror(crop))]


def _mirror(images: Images) -> Images:
    return images[..., ::-1] if isinstance(images, np.ndarray) else images.flip(-1)


def average_logits(logits: NDArray[np.float32], average: Average) -> NDArray[np.float32]:
    """Average (V, N, L) logits of V views and networks to (N, L) probs: rounded to float32 once, at the end.

    >>> round(average_logits(np.array([[[0.0]], [[2.0]]], np.float32), "logits").item(), 4)
    0.7311
    """
    exact = logits.astype(np.float64)
    probs = expit(exact.mean(axis=0)) if average == "logits" else expit(exact).mean(axis=0)
    return np.asarray(probs, np.float32)


def describe_mean(n_networks: int, tta: TTA, average: Average) -> str:
    """How probs are computed, in words.

    >>> describe_mean(3, "crops", "probs"), describe_mean(1, "none", "probs")
    ('the mean probs of 3 checkpoints on ten crops of each image', 'one checkpoint on each image')
    """
    by = "one checkpoint" if n_networks == 1 else f"{n_networks} checkpoints"
    is_mean = n_networks > 1 or tta != "none"
    return f"{f'the mean {average} of ' if is_mean else ''}{by} on {VIEWS[tta]}"
