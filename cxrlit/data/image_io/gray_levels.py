"""Distribution of an image's gray values."""

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.data.image_io.sizes import Pixels

MIN_STD = 0.01
"""Standard deviation of the pixels, as a fraction of the range, below which an image is almost constant."""


def count_levels(pixels: Pixels) -> NDArray[np.float64]:
    """(256,) or (65536,) number of pixels with each gray value."""
    n_values = int(np.iinfo(pixels.dtype).max) + 1
    counts = cv2.calcHist([pixels], [0], None, [n_values], [0, n_values])
    return counts.ravel().astype(np.float64)


def measure_levels(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """Gray values as fractions of their range, and mean and standard deviation of the pixels.

    Args:
        counts: Result of ``count_levels``.
    """
    values = np.arange(len(counts)) / (len(counts) - 1)
    mean = float(counts @ values / counts.sum())
    return values, mean, float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))


def is_flat(pixels: Pixels) -> bool:
    """Whether an image has a single gray, or almost.

    Args:
        pixels: (H, W) uint8 or uint16, before any padding.

    >>> is_flat(np.full((8, 8), 7, np.uint8)), is_flat(np.eye(8, dtype=np.uint8) * 255)
    (True, False)
    """
    return measure_levels(count_levels(pixels))[2] < MIN_STD
