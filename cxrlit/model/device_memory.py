"""Choose the batch size of prediction by the GPU's free memory, and halve it if it does not fit."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from cxrlit.core.console import say
from cxrlit.core.errors import ConfigError, format_count

T = TypeVar("T")

BYTES_PER_PIXEL = 512
"""Most bytes per pixel of a forward pass without autograd, in fp32: about 300 for the largest pair of maps of a dense
block, and workspaces."""

MOST_IMAGES = 256
"""Larger batches are no faster."""


def choose_batch_size(free_bytes: int, img_size: int) -> int:
    """Choose the images per forward pass: a power of 2, at most 256, in four fifths of the free memory.

    Args:
        free_bytes: Free memory of the device.
        img_size: S, side of the images, pixels.

    >>> choose_batch_size(6 * 2**30, 224), choose_batch_size(6 * 2**30, 512), choose_batch_size(0, 224)
    (128, 32, 1)
    """
    n_images = int(0.8 * free_bytes) // (BYTES_PER_PIXEL * img_size**2)
    return 1 << min(max(n_images, 1), MOST_IMAGES).bit_length() - 1


def read_free_memory() -> int:
    """Free bytes of the current CUDA device, including those that torch holds in reserve."""
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


class FittingBatches:
    """Computes batches in parts that fit into the device's memory; a part that does not fit is halved.

    Args:
        n_at_once: Images per part; None: the whole batch, until it does not fit.
        pads: Pad the last part of a batch, to avoid compiling a new shape.
    """

    def __init__(self, n_at_once: int | None = None, pads: bool = False) -> None:
        self.n_at_once, self.pads = n_at_once, pads
        self._is_halved = False

    def grow(self, n_images: int) -> None:
        """Take this many images at once from now on, if it took fewer and none of its parts was too large."""
        if not self._is_halved:
            self.n_at_once = max(self.n_at_once or 0, n_images)

    def run(self, compute: Callable[[Tensor], T], images: Tensor) -> list[T]:
        """Apply a function to the parts of a batch, in order.

        Args:
            compute: Takes at most ``n_at_once`` images. With ``pads``, its last result includes the padding.
            images: (B, ...), on any device.

        Raises:
            ConfigError: A single image does not fit.
        """
        made: list[T] = []
        done = 0
        while done < len(images):
            part = images[done : done + (self.n_at_once or len(images))]
            n_images = len(part)
            if self.pads and self.n_at_once and n_images < self.n_at_once:
                part = torch.cat([part, part[:1].expand(self.n_at_once - n_images, *part.shape[1:])])
            try:
                made.append(compute(part))
            except torch.OutOfMemoryError:
                fits = False
            else:
                fits, done = True, done + n_images
            if not fits:  # after the except block, the error holds no tensors
                self._halve(len(part))
        return made

    def _halve(self, n_images: int) -> None:
        if n_images == 1:
            raise ConfigError("the GPU has no memory for one image: end what else computes there, or take the CPU")
        self.n_at_once, self._is_halved = n_images // 2, True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(
            f"warning: the GPU has no memory for {n_images} images at once: going on with "
            f"{format_count(self.n_at_once, 'image')}",
            style="yellow",
        )
