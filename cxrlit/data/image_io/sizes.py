"""The type of decoded pixels, and the size limit that each format checks before decoding."""

from numpy import uint8, uint16
from numpy.typing import NDArray

Pixels = NDArray[uint8] | NDArray[uint16]
"""(H, W) gray values: uint8 from 0 to 255, or uint16 from 0 to 65535."""

MAX_SIDE = 8192
"""Maximum side, pixels. Larger images are refused unread, even thin ones, which padding would make square."""


def check_size(width: int, height: int) -> None:
    """Refuse images without pixels or with too many.

    Raises:
        ValueError: The size is out of range.
    """
    if width < 1 or height < 1:
        raise ValueError("an image without pixels")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width} x {height} pixels are too many")
