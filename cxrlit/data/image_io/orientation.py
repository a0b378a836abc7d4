"""How an image is turned, by EXIF, which JPEG and PNG both may hold.

Source: EXIF 2.3 (CIPA DC-008), section 4.6.
"""

import struct

from cxrlit.data.image_io.sizes import Pixels

UPRIGHT = 1
TAG, SHORT = 0x0112, 3


def read_orientation(exif: bytes) -> int:
    """The orientation that EXIF says, 1 to 8; 1, upright, where it says none or is damaged.

    >>> read_orientation(b"II*\\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6))
    6
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (start,) = struct.unpack(f"{order}I", exif[4:8])
    n_entries = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    for entry in range(start + 2, min(start + 2 + 12 * n_entries, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if (tag, kind, count) == (TAG, SHORT, 1):
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror an image as its orientation says.

    >>> import numpy as np
    >>> turn_upright(np.array([[1, 2, 3]], np.uint8), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation not in range(2, 9):
        return pixels
    if orientation >= 5:
        pixels = pixels.T
    step_y = -1 if orientation in {3, 4, 7, 8} else 1
    step_x = -1 if orientation in {2, 3, 6, 7} else 1
    return pixels[::step_y, ::step_x].copy()
