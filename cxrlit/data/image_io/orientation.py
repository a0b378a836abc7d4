"""Orientation of an image by EXIF or XMP, which JPEG and PNG may contain. EXIF takes precedence.

Source: EXIF 2.3 (CIPA DC-008), section 4.6; XMP specification, part 2, section 3.6 (tiff:Orientation).
"""

import re
import struct

from cxrlit.data.image_io.sizes import Pixels

UNKNOWN, UPRIGHT = 0, 1
TAG, SHORT = 0x0112, 3
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\s*[\"'<]")


def read_orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; ``UNKNOWN`` if it is missing or damaged.

    >>> read_orientation(b"II*\\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6))
    6
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return UNKNOWN
    (start,) = struct.unpack(f"{order}I", exif[4:8])
    n_entries = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    for entry in range(start + 2, min(start + 2 + 12 * n_entries, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if (tag, kind, count) == (TAG, SHORT, 1):
            return value if 1 <= value <= 8 else UPRIGHT
    return UNKNOWN


def read_xmp_orientation(xmp: bytes) -> int:
    """The XMP orientation, 1 to 8; ``UNKNOWN`` if it is missing.

    >>> read_xmp_orientation(b'<x tiff:Orientation="6"/>'), read_xmp_orientation(b"<x/>")
    (6, 0)
    """
    found = XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else UNKNOWN


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate and mirror an image according to its orientation.

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
