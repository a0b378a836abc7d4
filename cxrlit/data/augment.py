"""Augmentation of training images, and nothing else."""

import hashlib
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.config import AugmentConfig


class Augment:
    """Horizontal flip, rotation, zoom and contrast as the config says, a function of the image and a seed.

    Flip, rotation and zoom are one resampling, so that an image is blurred once; contrast is a table of 256 values.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """An image (S, S) uint8 in, an image of the same shape out, the same for the same seed."""
        config, (flip, turn, scale, contrast) = self.config, _draw_uniform(seed)
        sign = -1 if flip < config.flip else 1
        if config.rotate or config.zoom:
            angle = np.deg2rad(config.rotate * (2 * turn - 1))
            zoom = 1 + config.zoom * (2 * scale - 1)
            image = _warp(image, zoom * np.cos(angle), zoom * np.sin(angle), sign)
        elif sign < 0:
            image = cv2.flip(image, 1).astype(np.uint8, copy=False)
        if config.contrast:
            mean = cv2.mean(image)[0]
            factor = 1 + config.contrast * (2 * contrast - 1)
            table = np.rint((np.arange(256) - mean) * factor + mean).clip(0, 255).astype(np.uint8)
            image = cv2.LUT(image, table).astype(np.uint8, copy=False)
        return image


def _warp(image: NDArray[np.uint8], cos: float, sin: float, sign: int) -> NDArray[np.uint8]:
    """Flip about the middle column where ``sign`` is -1, then turn and scale about the middle; outside is black."""
    middle = (image.shape[0] - 1) / 2
    matrix = np.array([[cos * sign, sin, 0], [-sin * sign, cos, 0]])
    matrix[:, 2] = middle - matrix[:, :2].sum(axis=1) * middle
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _draw_uniform(seed: int) -> list[float]:
    """Four numbers in [0, 1), the same for the same seed on every machine."""
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=32).digest()
    drawn: list[float] = ((np.frombuffer(digest, dtype="<u8") >> np.uint64(11)) / 2.0**53).tolist()
    return drawn


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
