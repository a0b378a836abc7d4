"""Compressed pixels in a DICOM file: JPEG, JPEG-LS, JPEG 2000, RLE. Their own headers are checked before decoding.

The decoders are those of imagecodecs (libjpeg-turbo, CharLS, OpenJPEG); each decodes one image at a time. A
codestream states its own size, whatever the surrounding file says, and the decoders allocate memory for it. They serve
even where pydicom has decoders without further packages: its RLE unpacks without a limit, and JPEG 2000 with Pillow
takes two thirds more time and a third more memory.

Source: ITU-T T.81, T.87 and T.800, annex A of each; DICOM PS3.5, annex G.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import ConfigError
from cxrlit.core.extras import import_extra
from cxrlit.data.image_io import jpeg
from cxrlit.data.image_io.sizes import check_size

JPEG_PROCESSES = {jpeg.BASELINE, jpeg.EXTENDED, jpeg.PROGRESSIVE, jpeg.LOSSLESS}
MAX_TILES = 10_000
MIN_PRECINCT_EXPONENT = 4
"""16 pixels. A decoder keeps records of each precinct: precincts of 1 x 1 pixel take gigabytes."""

NEEDED_BY = "a compressed DICOM image"

RLE_SLACK = 2**16
"""Maximum bytes that a segment may unpack to beyond its pixels: the decoder treats padding as pixels too."""


@dataclass(frozen=True)
class Codestream:
    """One compressed image of one component, without its container.

    Attributes:
        content: The codestream.
        width: Pixels, as the codestream says.
        height: Pixels, as the codestream says.
        precision: Bits of a sample, as the codestream says.
        is_verbatim: Whether samples are complete words as in uncompressed files, including bits above the image's own.
    """

    content: bytes
    width: int
    height: int
    precision: int
    is_verbatim: bool = False


def read_codestream(content: bytes, kind: str) -> Codestream:
    """Read a codestream and check its header.

    Args:
        content: The codestream with its padding.
        kind: ``jpeg`` (a process that DICOM uses), ``jpeg_ls`` or ``jpeg_2000``.

    Raises:
        ValueError: The codestream is damaged, cut off, in colour, too large, or made to exhaust memory.
    """
    if kind == "jpeg_2000":
        return _read_jpeg_2000(content)
    return _read_jpeg(content, {jpeg.JPEG_LS} if kind == "jpeg_ls" else JPEG_PROCESSES)


def _read_jpeg(content: bytes, processes: set[int]) -> Codestream:
    content = content.rstrip(b"\0\xff")  # padding of the last fragment
    if not content.startswith(jpeg.SIGNATURE):
        raise ValueError("damaged: the compressed pixels are not what the transfer syntax says")
    if not content.endswith(b"\xff\xd9"):  # without it the decoder silently fills the rest with gray
        raise ValueError("damaged: the end is missing")
    header = jpeg.read_jpeg_header(content)
    if header.process not in processes:
        raise ValueError("damaged: the compressed pixels are not what the transfer syntax says")
    if header.n_components not in {1, 3}:
        raise ValueError("compressed pixels of two or four channels are not supported")
    return Codestream(content, header.width, header.height, header.precision, header.process == jpeg.LOSSLESS)


def _read_jpeg_2000(content: bytes) -> Codestream:
    """Read a JPEG 2000 codestream, without the JP2 container that some files wrongly have."""
    if content[4:8] == b"jP  ":
        content = content[max(content.find(b"\xff\x4f\xff\x51"), 0) :]
    if not content.startswith(b"\xff\x4f\xff\x51") or len(content) < 45:
        raise ValueError("damaged: the compressed pixels are not what the transfer syntax says")
    x_stop, y_stop, left, top, tile_width, tile_height, tile_left, tile_top, n_components, depth = struct.unpack(
        ">8IHB", content[8:43]
    )
    steps = content[43 : 42 + 3 * n_components]
    check_size(x_stop, y_stop)
    check_size(x_stop - left, y_stop - top)
    same = bytes([1, 1, depth])  # for every component, one after the other
    if n_components not in {1, 3} or steps != (same * n_components)[: 3 * n_components - 1]:
        raise ValueError("compressed pixels of channels that are not alike are not supported")
    if not tile_width or not tile_height or tile_left > left or tile_top > top:
        raise ValueError("damaged: a header that no JPEG 2000 image has")
    if -(-(x_stop - tile_left) // tile_width) * -(-(y_stop - tile_top) // tile_height) > MAX_TILES:
        raise ValueError(f"more than {MAX_TILES} tiles")
    _check_precincts(content)
    return Codestream(content, x_stop - left, y_stop - top, (depth & 0x7F) + 1)


def _check_precincts(content: bytes) -> None:
    """Refuse small precincts in the header of the image or of a tile."""
    position, tile_stop = 2, 0
    while True:
        marker, length = struct.unpack(">HH", content[position : position + 4].ljust(4, b"\0"))
        body = content[position + 4 : position + 2 + length]
        if marker == 0xFF93 and tile_stop > position:  # the pixels of a tile follow
            position = tile_stop
            continue
        if marker == 0xFFD9 or (tile_stop and position >= len(content)):
            return
        if marker < 0xFF4F or marker == 0xFF93 or length < 2:
            raise ValueError("damaged: a header that no JPEG 2000 image has")
        if marker == 0xFF90:  # the header of a tile, which gives its length
            (tile_length,) = struct.unpack(">I", body[2:6].ljust(4, b"\0"))
            tile_stop = position + tile_length if tile_length else len(content)
            if tile_stop < position + 2 + length:
                raise ValueError("damaged: a header that no JPEG 2000 image has")
        if marker == 0xFF53 or (marker == 0xFF52 and tile_stop):
            raise ValueError("JPEG 2000 with settings of its own for a tile is not supported")
        sizes = body[10:] if marker == 0xFF52 and body[:1] and body[0] & 1 else b""
        if any(size & 0x0F < MIN_PRECINCT_EXPONENT or size >> 4 < MIN_PRECINCT_EXPONENT for size in sizes):
            raise ValueError("JPEG 2000 with precincts below 16 x 16 pixels is not supported")
        position += 2 + length


def decode(codestream: Codestream, kind: str) -> NDArray[Any]:
    """(H, W), or (H, W, 3) in colour, unsigned integers of 1 or 2 bytes; any sign bit stays in place.

    Args:
        codestream: Result of ``read_codestream``.
        kind: ``jpeg``, ``jpeg_ls`` or ``jpeg_2000``.

    Raises:
        ValueError: The codestream is damaged.
        ConfigError: imagecodecs is not installed.
    """
    functions = {"jpeg": "jpeg8_decode", "jpeg_ls": "jpegls_decode", "jpeg_2000": "jpeg2k_decode"}
    values: NDArray[Any] = _run_codec(functions[kind], codestream.content)
    if values.shape not in {(codestream.height, codestream.width), (codestream.height, codestream.width, 3)}:
        raise ValueError("damaged: the compressed pixels are not what their header says")
    return values.astype(np.int16).view(np.uint16) if values.dtype.kind == "i" else values


def decode_rle(content: bytes, width: int, height: int, n_bytes: int, n_channels: int = 1) -> NDArray[Any]:
    """Decode RLE to (H, W) or (H, W, 3) unsigned integers of 1 or 2 bytes.

    The input has one segment per byte of a pixel, channel by channel, high byte first.

    Raises:
        ValueError: The content is damaged.
        ConfigError: imagecodecs is not installed.
    """
    n_wanted = n_bytes * n_channels
    n_segments, *offsets = struct.unpack("<16I", content[:64].ljust(64, b"\0"))
    starts = [*offsets[:n_wanted], len(content)]
    if n_segments != n_wanted or starts[0] < 64 or starts != sorted(starts):
        raise ValueError("damaged: the compressed pixels are not what the transfer syntax says")
    values = np.zeros((height, width, n_channels), np.uint8 if n_bytes == 1 else np.uint16)
    for number, (start, stop) in enumerate(pairwise(starts)):
        plane = _run_codec("packbits_decode", content[start:stop], out=width * height + RLE_SLACK)
        if len(plane) < width * height:
            raise ValueError("fewer pixels than its header says")
        excess = plane[width * height :]
        if len(excess) > 2 and len(excess) >= min(width, height) and excess.strip(b"\0"):  # padding is 0
            raise ValueError("damaged: more pixels than its header says")
        channel, place = divmod(number, n_bytes)
        byte = np.frombuffer(plane, np.uint8, width * height).reshape(height, width)
        values[..., channel] |= byte.astype(values.dtype) << 8 * (n_bytes - 1 - place)
    return values[..., 0] if n_channels == 1 else values


def _run_codec(name: str, content: bytes, **options: Any) -> Any:
    try:
        return getattr(import_extra("imagecodecs", "dicom", NEEDED_BY), name)(content, **options)
    except ImportError:  # a build without this codec
        raise ConfigError(f"{NEEDED_BY} needs imagecodecs with {name}: pip install 'cxrlit[dicom]'") from None
    except (RuntimeError, ValueError, TypeError, OverflowError):  # messages of native libraries
        raise ValueError("damaged: the compressed pixels cannot be decoded") from None
