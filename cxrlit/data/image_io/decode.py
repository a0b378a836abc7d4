"""Read an image file, decode it by its content, and resize it to a square of gray values.

Any file becomes pixels or a ``ValueError`` whose text is the reason why it cannot be used. Nothing here changes the
state of the process, so that many threads can decode at once.
"""

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import DataError
from cxrlit.core.files import NotAFileError, open_regular
from cxrlit.data.image_io import jpeg, png
from cxrlit.data.image_io.sizes import Pixels

PREPROCESSING_VERSION = 6
"""Part of the key of every store and of every phase's id. Increases when the same file would give other pixels."""

MAX_FILE_BYTES = 192 * 2**20
"""Maximum file size; a larger file is refused unread."""

MAX_COLOUR = 8.0
"""Maximum channel difference of a gray image (``measure_colour``). JPEG's rounding makes less than 2."""

DICOM_START = re.compile(rb".{128}DICM|[\x02\x08]\0.\0|\0\x08\0.", re.DOTALL)
"""Start of a DICOM file; without the 132-byte preamble, an element of group 2 or 8, in either byte order."""

Resize = Literal["pad", "crop", "stretch"]


def read_file(path: Path) -> bytes:
    """Read the bytes of a regular file.

    Raises:
        ValueError: The path is no regular file, or the file is larger than ``MAX_FILE_BYTES``.
        DataError: The file cannot be read, perhaps temporarily.
    """
    try:
        with open_regular(path) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
            return file.read(n_bytes)
    except NotAFileError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; mend that and start again") from None


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: (H, W): uint8 where the file has at most 8 bits of gray or has colour; otherwise uint16, scaled to 0 to
            65535, so that ``resize_square`` converts them to 8 bits without knowing their origin.
        colour: Result of ``measure_colour``; 0 where the file has no colour channels.
        read_otherwise: How the decoder departs from the file's own description, one text per difference.
    """

    pixels: Pixels
    colour: float
    read_otherwise: list[str]


def decode_image(content: bytes) -> Decoded:
    """Decode a PNG, JPEG or DICOM image.

    Raises:
        ValueError: The content is no image, damaged, too large, or of an unsupported kind; the message says which.
        ConfigError: The content is a DICOM image whose compression needs a package that is not installed.
    """
    if content.startswith(png.SIGNATURE):
        pixels, colour = png.decode_png(content)
    elif content.startswith(jpeg.SIGNATURE):
        pixels, colour = jpeg.decode_jpeg(content)
    elif DICOM_START.match(content):
        from cxrlit.data.image_io.dicom import decode_dicom

        pixels, read_otherwise = decode_dicom(content)
        return Decoded(pixels, 0.0, read_otherwise)  # DICOM in colour is refused
    else:
        raise ValueError("not a PNG, JPEG or DICOM image" if content else "empty file")
    mode = describe_image(content)[2].partition(" ")[0]
    if mode not in {"RGB", "RGBA"}:
        return Decoded(pixels, colour, [])
    return Decoded(
        pixels, colour, [f"gray saved as {mode}" if colour <= MAX_COLOUR else "colour, read as its luminance"]
    )


def decode_pixels(content: bytes) -> Pixels:
    """The gray values only; same errors as ``decode_image``."""
    return decode_image(content).pixels


def describe_image(content: bytes) -> tuple[int, int, str]:
    """Width, height and mode of an image by its header, without decoding.

    Returns:
        Width and height in pixels, and pixel format: ``L``, ``RGBA``, ``I;16``, ``DICOM MONOCHROME1 12 bit``, ...

    Raises:
        ValueError: The content is no image, damaged or too large.
    """
    if content.startswith(png.SIGNATURE):
        header: png.PNGHeader | jpeg.JPEGHeader = png.read_png_header(content)
    elif content.startswith(jpeg.SIGNATURE):
        header = jpeg.read_jpeg_header(content)
    elif DICOM_START.match(content):
        from cxrlit.data.image_io.dicom import describe_dicom

        return describe_dicom(content)
    else:
        raise ValueError("not a PNG, JPEG or DICOM image" if content else "empty file")
    return header.width, header.height, header.mode


def read_view(content: bytes) -> str:
    """View position in the file of an image that can be decoded; empty if it has none."""
    if content.startswith((png.SIGNATURE, jpeg.SIGNATURE)):
        return ""
    from cxrlit.data.image_io.dicom import read_dicom_view

    return read_dicom_view(content)


def resize_square(pixels: Pixels, size: int, resize: Resize) -> NDArray[np.uint8]:
    """Resize to a square with area interpolation, then to 8 bits.

    Args:
        pixels: (H, W) uint8 or uint16.
        size: Side of the result, pixels.
        resize: ``pad`` adds black borders, ``crop`` keeps the centre, ``stretch`` changes the aspect ratio.

    Returns:
        (size, size) uint8.
    """
    height, width = pixels.shape
    if resize == "crop" and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif resize == "pad" and height != width:
        side = max(height, width)
        square = np.zeros((side, side), pixels.dtype)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = pixels
        pixels = square
    scaled = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    if scaled.dtype == np.uint16:
        scaled = np.round(scaled / 257.0)
    return scaled.astype(np.uint8)
