"""Read one image file completely: whether it can be decoded, and the distribution of its pixels."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import DataError
from cxrlit.data.image_io.decode import decode_image, describe_image, resize_square
from cxrlit.data.image_io.gray_levels import count_levels, measure_levels
from cxrlit.data.image_io.memory_budget import hold_file, hold_pixels

THUMBNAIL_PX = 128

LEVELS = 256
"""Number of gray levels of the histogram; level k is k / 255 of the range."""


class ImageFacts(NamedTuple):
    """Properties of one file. If it cannot be decoded, only the first three are meaningful.

    Attributes:
        row: Row of the image in the index.
        image: Name of the image.
        reason: Why it cannot be decoded; empty if it can.
        width, height: Pixels.
        mode: Pixel format.
        digest: Hash of the bytes of the file.
        mean, std: Mean and standard deviation of the pixels, as fractions of their range.
        warning: How the decoder departs from the file's own description; empty if it does not.
    """

    row: int
    image: str
    reason: str
    width: int = 0
    height: int = 0
    mode: str = ""
    digest: bytes = b""
    mean: float = 0.0
    std: float = 0.0
    warning: str = ""


class ReadImage(NamedTuple):
    """A decoded image.

    Attributes:
        facts: Properties of the file.
        levels: (256,) fraction of its pixels at each gray level; None if it could not be decoded.
        thumbnail: PNG of ``THUMBNAIL_PX``, if requested.
    """

    facts: ImageFacts
    levels: NDArray[np.float64] | None = None
    thumbnail: bytes | None = None


def read_image(row: int, image: str, path: Path, with_thumbnail: bool) -> ReadImage:
    """Read and measure one file; an unusable file is a finding, not an error.

    Raises:
        ConfigError: The file is a DICOM image whose compression needs a package that is not installed.
    """
    try:
        with hold_file(path) as content, hold_pixels(content):
            width, height, mode = describe_image(content)
            pixels, _, read_otherwise = decode_image(content)
            digest = hashlib.blake2b(content, digest_size=16).digest()
            counts, thumbnail = count_levels(pixels), None
            if with_thumbnail:
                thumbnail = cv2.imencode(".png", resize_square(pixels, THUMBNAIL_PX, "pad"))[1].tobytes()
    except ValueError as error:
        return ReadImage(ImageFacts(row, image, str(error)))
    except DataError as error:  # its advice is for commands that need the file
        return ReadImage(ImageFacts(row, image, str(error).removeprefix(f"{path}: ").partition(";")[0]))
    values, mean, std = measure_levels(counts)
    levels = np.bincount(np.rint(values * (LEVELS - 1)).astype(np.int64), weights=counts, minlength=LEVELS)
    facts = ImageFacts(row, image, "", width, height, mode, digest, mean, std, "; ".join(read_otherwise))
    return ReadImage(facts, levels / counts.sum(), thumbnail)
