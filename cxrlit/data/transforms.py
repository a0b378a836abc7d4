"""Augmentation of training images, and nothing else. The one file that knows albumentations."""

import hashlib
import os
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.config import AugmentConfig


class Augment:
    """Horizontal flip, rotation, zoom and contrast as the config says, a function of the image and a seed."""

    def __init__(self, config: AugmentConfig) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask a server for its version
        import albumentations

        steps: list[albumentations.BasicTransform] = []
        if config.flip:
            steps.append(albumentations.HorizontalFlip(p=config.flip))
        if config.rotate or config.zoom:
            steps.append(
                albumentations.Affine(
                    rotate=(-config.rotate, config.rotate),
                    scale=(1 - config.zoom, 1 + config.zoom),
                    interpolation=cv2.INTER_LINEAR,
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=0,
                    p=1,
                )
            )
        if config.contrast:
            # Of its four changes only contrast, about the image's own mean.
            steps.append(
                albumentations.ColorJitter(
                    contrast=(1 - config.contrast, 1 + config.contrast),
                    brightness=(1, 1),
                    saturation=(1, 1),
                    hue=(0, 0),
                    p=1,
                )
            )
        self._compose = albumentations.Compose(steps)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """An image (S, S) uint8 in, an image of the same shape out, the same for the same seed."""
        self._compose.set_random_seed(seed)
        augmented: NDArray[np.uint8] = self._compose(image=image)["image"]
        return augmented


def build_augment(config: AugmentConfig) -> Augment | None:
    """None where the config says none of the changes."""
    return Augment(config) if any(config.model_dump().values()) else None


def key_names(images: Iterable[str]) -> NDArray[np.int64]:
    """(N,) a number for each image name, the same on every machine: 8 bytes where a list of names takes 80."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in images)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def seed_of(seed: int, epoch: int, key: int, copy: int = 0) -> int:
    """Seed of what is random about one drawing of an image in one epoch: 32 bits, the same on every machine.

    Args:
        seed: Of the run.
        epoch: From 0.
        key: From ``key_names``.
        copy: Which drawing of the image in this epoch.

    >>> seed_of(0, 0, 17) == seed_of(0, 0, 17) != seed_of(0, 1, 17)
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}:{key}:{copy}".encode(), digest_size=4).digest(), "big")
