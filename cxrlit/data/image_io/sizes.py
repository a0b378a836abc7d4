"""A file for each image format: its header checked before anything is decoded, then its gray values."""

from numpy import uint8, uint16
from numpy.typing import NDArray

Pixels = NDArray[uint8] | NDArray[uint16]
"""(H, W) gray values: uint8 from 0 to 255, or uint16 from 0 to 65535."""

MAX_SIDE = 8192
"""Pixels. A larger image is refused unread, and so is a thin one, which padding would make a square of that side."""


def check_size(width: int, height: int) -> None:
    """Refuse what has no pixels or too many.

    Raises:
        ValueError: It does.
    """
    if width < 1 or height < 1:
        raise ValueError("an image without pixels")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width} x {height} pixels are too many")
