"""JPEG: the header is parsed here, so that the size is known before decoding; Pillow decodes the pixels.

Pillow receives the file without comments and camera data (EXIF, thumbnails, colour profiles).

Source: ITU-T T.81, annex B.
"""

import io
import re
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cxrlit.core.errors import first_line
from cxrlit.data.image_io.colour import measure_colour
from cxrlit.data.image_io.orientation import UNKNOWN, UPRIGHT, read_orientation, read_xmp_orientation, turn_upright
from cxrlit.data.image_io.sizes import Pixels, check_size

SIGNATURE = b"\xff\xd8\xff"
BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
FRAMES = frozenset({*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC})
"""Frame header markers, which give the kind of JPEG and precede its size."""
START_OF_SCAN, END_OF_IMAGE, APP0, APP1, APP14, APP15, COMMENT = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
"""Prefixes of the two kinds of APP1 segment that may give an orientation."""
MARKER = re.compile(rb"\xff[^\0\xff]")
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment."""
MAX_SCANS = 100
"""Maximum number of scans. A progressive image has about 10; each costs a pass over all pixels."""
MAX_SEGMENTS = 10_000
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class JPEGHeader:
    """Contents of the header.

    Attributes:
        width: Width, pixels.
        height: Height, pixels.
        precision: Bits of a sample.
        n_components: 1 for gray, 3 for colour, 4 for CMYK.
        process: Marker of the frame header: ``BASELINE``, ...
        orientation: Orientation by EXIF, else XMP, 1 to 8; 1 is upright.
        segments: First and last byte of each segment that decoding needs, up to the first scan.
    """

    width: int
    height: int
    precision: int
    n_components: int
    process: int
    orientation: int
    segments: list[tuple[int, int]]

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""
        mode = MODES.get(self.n_components, f"{self.n_components} components")
        return mode if self.precision == 8 else f"{mode} {self.precision} bit"


def read_jpeg_header(content: bytes) -> JPEGHeader:
    """Parse the header of a JPEG or JPEG-LS file.

    Raises:
        ValueError: The header is damaged, or the image is too large or would take too long.
    """
    frame: tuple[int, int, int, int, int] | None = None
    orientation = by_xmp = UNKNOWN
    segments: list[tuple[int, int]] = []
    position = 2
    for _ in range(MAX_SEGMENTS):
        # A decoder skips bytes between two segments.
        found = MARKER.search(content, position)
        position = found.start() if found else len(content)
        if position + 4 > len(content) or content[position + 1] == END_OF_IMAGE:
            raise ValueError("damaged: no pixels")
        marker = content[position + 1]
        if marker in ALONE:
            position += 2
            continue
        stop = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        body = content[position + 4 : stop]
        if stop > len(content) or stop < position + 4:
            raise ValueError("damaged: the end is missing")
        if marker in FRAMES:
            if frame is not None or len(body) < 6:
                raise ValueError("damaged: two headers" if frame else "damaged: no header")
            frame = (marker, *struct.unpack(">BHHB", body[:6]))
        if marker == APP1 and body.startswith(EXIF):
            orientation = orientation or read_orientation(body[len(EXIF) :])
        if marker == APP1 and body.startswith(XMP):
            by_xmp = by_xmp or read_xmp_orientation(body)
        if marker in {APP0, APP14} or not (APP0 <= marker <= APP15 or marker == COMMENT):
            segments.append((position, stop))
        if marker == START_OF_SCAN:
            break
        position = stop
    else:
        raise ValueError("damaged: too many segments")
    if frame is None:
        raise ValueError("damaged: no header")
    process, precision, height, width, n_components = frame
    check_size(width, height)
    if content.count(b"\xff\xda", stop) >= MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    return JPEGHeader(width, height, precision, n_components, process, orientation or by_xmp or UPRIGHT, segments)


def decode_jpeg(content: bytes) -> tuple[Pixels, float]:
    """The gray values of a JPEG, rotated upright by EXIF or XMP; and ``measure_colour``, 0 with one component.

    Colour becomes luminance.

    Raises:
        ValueError: The image is damaged, cut off, too large, or of an unsupported kind.
    """
    header = read_jpeg_header(content)
    if header.process not in {BASELINE, EXTENDED, PROGRESSIVE} or header.precision != 8:
        raise ValueError(f"JPEG of process {header.process - BASELINE} with {header.precision} bits is not supported")
    if header.n_components not in {1, 3}:
        raise ValueError(f"JPEG with {header.n_components} components (CMYK) is not supported")
    try:
        with Image.open(io.BytesIO(_strip(content, header)), formats=["JPEG"]) as image:
            colour = 0.0 if header.n_components == 1 else measure_colour(image)
            return turn_upright(np.asarray(image.convert("L")), header.orientation), colour
    except MemoryError:
        raise
    except Exception as error:  # Pillow can raise nearly any error for damaged pixels
        raise ValueError(f"damaged: {first_line(error)}") from None


def _strip(content: bytes, header: JPEGHeader) -> bytes:
    """The same JPEG without comments and camera data."""
    view = memoryview(content)
    return b"".join(
        [content[:2], *(view[start:stop] for start, stop in header.segments), view[header.segments[-1][1] :]]
    )
