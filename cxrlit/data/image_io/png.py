"""PNG: checks of checksums, size and completeness; Pillow decodes the pixels.

Pillow receives a file with only header, palette and pixels. Other chunks that it would unpack or warn about (texts,
colour profiles, frames of an animation) are ignored, except EXIF and XMP, which give the orientation. OpenCV's and
imagecodecs' libpng refuse short streams without the count that is made here, but OpenCV writes to the terminal for each
refused file, from C, and imagecodecs for each interlaced one; Pillow is silent.

Source: PNG specification, third edition, https://www.w3.org/TR/png-3/.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrlit.core.errors import first_line
from cxrlit.data.image_io.colour import measure_colour
from cxrlit.data.image_io.orientation import UNKNOWN, UPRIGHT, read_orientation, read_xmp_orientation, turn_upright
from cxrlit.data.image_io.sizes import Pixels, check_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT"})
MAX_CHUNKS = 100_000
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels by colour type: gray, RGB, palette, gray and alpha, RGB and alpha."""
DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
GRAY_BITS = (8, 10, 12, 14, 16)
"""Possible bits of the values in a 16-bit gray image."""

TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
RAW_EXIF, XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
"""Keywords of text chunks that may give an orientation."""
MAX_TEXT_BYTES = 2**20
"""Maximum bytes of a text that are read."""

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced image: first column, first row, step between columns, step between rows."""


@dataclass(frozen=True)
class PNGHeader:
    """Contents of the first chunk: size in pixels, bits of a sample, colour type, interlacing."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""
        if self.colour == 0 and self.depth in {1, 16}:
            return "1" if self.depth == 1 else "I;16"
        return MODES[self.colour] + (" 16 bit" if self.depth == 16 else "")

    def count_bytes(self) -> int:
        """Bytes of the unpacked pixels: each row starts with a filter byte and is padded to whole bytes."""
        passes = ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        n_bytes = 0
        for left, top, step_x, step_y in passes:
            columns = -(-max(self.width - left, 0) // step_x)
            rows = -(-max(self.height - top, 0) // step_y)
            if columns:
                n_bytes += rows * (1 + -(-columns * self.depth * CHANNELS[self.colour] // 8))
        return n_bytes


def read_png_header(content: bytes) -> PNGHeader:
    """Parse the header of a file that starts with PNG's signature.

    Raises:
        ValueError: The header is damaged or impossible, or the image is too large.
    """
    if len(content) < 33 or content[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("damaged: no header")
    if zlib.crc32(content[12:29]) != int.from_bytes(content[29:33], "big"):
        raise ValueError("damaged: wrong checksum in IHDR")
    width, height, depth, colour, packing, filtering, interlacing = struct.unpack(">IIBBBBB", content[16:29])
    if depth not in DEPTHS.get(colour, ()) or packing or filtering or interlacing > 1:
        raise ValueError("damaged: a header that no PNG has")
    check_size(width, height)
    return PNGHeader(width, height, depth, colour, interlacing == 1)


def decode_png(content: bytes) -> tuple[Pixels, float]:
    """The gray values of a PNG, or of an animation's first image, rotated upright by EXIF or XMP.

    Colour becomes luminance, transparency is ignored; 1, 2 and 4 bits are scaled to 0 to 255. 16 bits of gray are
    scaled to 0 to 65535 from the fewest of ``GRAY_BITS`` that hold the largest value of the image, since a detector's
    10, 12 or 14 bits are often stored unscaled; 16 bits of colour become 8.

    Returns:
        The gray values, and ``measure_colour``, 0 without colour channels.

    Raises:
        ValueError: The image is damaged, too large, has fewer pixels than its header says, or has 16-bit colour or
            transparency that uses at most 14 bits.
    """
    header, chunks = _check(content)
    plain = _join(chunks)
    orientation = _find_orientation(chunks)
    try:
        with Image.open(io.BytesIO(plain), formats=["PNG"]) as image:
            image.load()
            # Pillow leaves black the rows that a valid but short stream does not reach. Counting takes as long as
            # decoding, so only an image that may be short is counted.
            last_row = image.crop((0, header.height - 1, header.width, header.height))
            if (header.interlaced or not np.asarray(last_row).any()) and not _is_complete(header, chunks):
                raise ValueError("fewer pixels than its header says")
            if header.colour == 0 and header.depth == 16:
                return turn_upright(_spread(np.asarray(image).astype(np.uint16)), orientation), 0.0
            colour = 0.0 if header.colour in {0, 4} else measure_colour(image)
            grays = np.asarray(image if image.mode == "L" else image.convert("L"))
            if header.depth == 16 and int(grays.max()) < 2**6:
                raise ValueError("16 bits that use at most 14, in colour or with transparency: save it as gray alone")
            return turn_upright(grays, orientation), colour
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow can raise nearly any error for damaged pixels
        raise ValueError(f"damaged: {first_line(error)}") from None


def _find_orientation(chunks: list[tuple[bytes, memoryview]]) -> int:
    """The orientation by the EXIF chunk, else by EXIF in a text as ImageMagick writes it, else by XMP."""
    found: dict[bytes, int] = {}  # only the first of each: many compressed texts would take long
    for kind, chunk in chunks:
        if kind == b"eXIf" and kind not in found:
            found[kind] = read_orientation(bytes(chunk[8:-4]))
        if kind in TEXTS:
            keyword, _, text = bytes(chunk[8 : min(len(chunk) - 4, 8 + MAX_TEXT_BYTES)]).partition(b"\0")
            if keyword == RAW_EXIF and keyword not in found:
                found[keyword] = read_orientation(_read_profile(_unpack(kind, text)))
            if keyword == XMP and keyword not in found:
                found[keyword] = read_xmp_orientation(_unpack(kind, text))
    said = (found.get(source, UNKNOWN) for source in (b"eXIf", RAW_EXIF, XMP))
    return next((orientation for orientation in said if orientation != UNKNOWN), UPRIGHT)


def _unpack(kind: bytes, text: bytes) -> bytes:
    """The unpacked text of a chunk after its keyword, at most ``MAX_TEXT_BYTES``; empty if it is damaged."""
    is_packed = kind == b"zTXt"
    if kind == b"iTXt":
        is_packed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]  # skip language and translated keyword
    if not is_packed:
        return text
    try:
        return zlib.decompressobj().decompress(text[1:] if kind == b"zTXt" else text, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _read_profile(text: bytes) -> bytes:
    """EXIF from a raw profile: a name and a length, then lines of hexadecimal digits."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii")).removeprefix(b"Exif\0\0")
    except ValueError:
        return b""


def _spread(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    top = next(2**bits - 1 for bits in GRAY_BITS if int(values.max()) < 2**bits)
    if top == 2**16 - 1:
        return values
    table = np.rint(np.arange(top + 1) * ((2**16 - 1) / top)).astype(np.uint16)
    for row in values:  # row by row, because indices for all rows at once take 8 bytes per pixel
        row[:] = table[row]
    return values


def _check(content: bytes) -> tuple[PNGHeader, list[tuple[bytes, memoryview]]]:
    header = read_png_header(content)
    chunks = _check_chunks(content)
    if header.colour == 3 and next((kind for kind, _ in chunks if kind in {b"PLTE", b"IDAT"}), b"") != b"PLTE":
        raise ValueError("damaged: no palette")
    return header, chunks


def _join(chunks: list[tuple[bytes, memoryview]]) -> bytes:
    """The same PNG with only header, palette and pixels."""
    return b"".join([SIGNATURE, *(chunk for kind, chunk in chunks if kind in KEPT_CHUNKS), _end_chunk()])


def _check_chunks(content: bytes) -> list[tuple[bytes, memoryview]]:
    """Kind and bytes of each chunk up to the required end, with checksums verified."""
    view = memoryview(content)
    chunks: list[tuple[bytes, memoryview]] = []
    start = len(SIGNATURE)
    while len(chunks) < MAX_CHUNKS:
        head = content[start : start + 8]
        stop = start + 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or stop > len(content):
            raise ValueError("damaged: the end is missing")
        kind = head[4:]
        if zlib.crc32(view[start + 4 : stop - 4]) != int.from_bytes(content[stop - 4 : stop], "big"):
            raise ValueError("damaged: wrong checksum")
        if kind == b"IEND":
            return chunks
        if kind == b"IHDR" and chunks:
            raise ValueError("damaged: two headers")
        if kind[0] & 32 == 0 and kind not in KEPT_CHUNKS:  # the case of the first letter marks a critical chunk
            raise ValueError("damaged: a chunk that no PNG has")
        chunks.append((kind, view[start:stop]))
        start = stop
    raise ValueError("damaged: too many chunks")


def _end_chunk() -> bytes:
    return b"\0\0\0\0IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")


def _is_complete(header: PNGHeader, chunks: list[tuple[bytes, memoryview]]) -> bool:
    missing = header.count_bytes()
    stream = zlib.decompressobj()
    try:
        for piece in _cut_pieces(chunks):
            while piece and missing > 0 and not stream.eof:
                missing -= len(stream.decompress(piece, 2**20))
                piece = stream.unconsumed_tail
            if missing <= 0 or stream.eof:
                break
    except zlib.error:
        return False
    return missing <= 0


def _cut_pieces(chunks: list[tuple[bytes, memoryview]]) -> Iterator[bytes]:
    """The compressed pixels in pieces: zlib copies the rest of a piece each time."""
    for kind, chunk in chunks:
        if kind == b"IDAT":
            for start in range(8, len(chunk) - 4, 2**16):
                yield bytes(chunk[start : min(start + 2**16, len(chunk) - 4)])
