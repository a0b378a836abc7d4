"""DICOM: the pixels of one radiograph as they are meant to be displayed, and nothing else of the file.

The stored values pass through the steps of the standard in order: modality LUT or rescale slope and intercept; VOI
LUT, else the first usable window, else their range; inversion of MONOCHROME1. No error message contains a value of the
file.

A file can contradict itself. One rule applies throughout: the pixels take precedence over the tags.

- Precision: JPEG 2000, JPEG-LS and lossy JPEG state the bits of a sample themselves. That number holds, unless
  BitsStored is smaller and suffices for all values. Samples that are stored verbatim (uncompressed, RLE, lossless JPEG)
  have BitsStored bits, since the bits above may be an overlay, unless the image is much smoother with all bits. Where
  BitsStored is below 6, less than any radiograph has, and the values need more, they have all bits.
- Sign: PixelRepresentation says whether the highest of these bits is a sign, whatever the codestream says, unless
  the pixels are overwhelming evidence of the contrary (``dicom_contradictions.py``), which gives a warning.
- Gray in three channels (RGB, or YBR with neutral colour) is used as stored: no slope, look-up table or window.
  A palette of grays is a look-up table. Colour images are refused.
- Look-up tables: the entries count, not the number and bits that the descriptor states. White is the largest
  entry. The first input value is signed where only that puts values of the image inside the table.
- A slope, modality LUT, VOI LUT or window that leaves one gray value is ignored, and so is a VOI LUT or window that
  leaves more than 90 % of the pixels (without padding) nearly black, or nearly white, where the range of the values
  does not. Then the next window applies, or the range of the values, and there is a warning. A LINEAR window with a
  width below 1 is treated as LINEAR_EXACT; one without width is ignored. Padding that covers the whole image, or lies
  between its values, is ignored.
- An image with a single value, without padding, is refused.
- Rows and Columns always hold: pixels of another size than the file states are refused, even one row too many.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT and window); PS3.5, 8 and A.4.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder

from cxrlit.data.image_io import dicom_codecs as codestreams
from cxrlit.data.image_io import dicom_header as header
from cxrlit.data.image_io.dicom_contradictions import choose_bits, choose_sign, merge_channels, read_sign
from cxrlit.data.image_io.dicom_lookup import look_up, parse_lookup
from cxrlit.data.image_io.dicom_window import FUNCTIONS, apply_window, is_one_gray, misses_image
from cxrlit.data.image_io.sizes import Pixels, check_size

BLOCK_ROWS = 128
"""Rows looked up at once: NumPy uses 8 bytes per index."""
LEAST_BITS = 6
"""Minimum bits of a sample in the DX image module (PS3.3, C.8.11.3)."""
GRAY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
MAX_WINDOWS = 16
"""Maximum number of windows tried per file."""
CHANNELS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decode_dicom(content: bytes) -> tuple[Pixels, list[str]]:
    """The gray values of a DICOM image, light for absorbing tissue (MONOCHROME2), and the tags that were overruled.

    Returns:
        (H, W). uint8 as stored where it has 8 bits and the file says no more about them. Otherwise uint16, from 0 at
        the lower end of the VOI LUT or window to 65535 at its upper end. Without both, the ends are the smallest and
        the largest value of the image: many files state 16 bits for detectors of 10 to 14 bits, and the range of 16
        bits would make their radiographs nearly black. Padding is black. Second, one text per overruled tag.

    Raises:
        ValueError: The image has no pixels, several frames, colour, too many pixels, a single gray value or an
            unsupported compression, or is damaged.
        ConfigError: Decoding needs imagecodecs, which is not installed.
    """
    image = _Image(content)
    stored, n_bits = image.read_stored()
    counts = np.zeros(2**n_bits, np.int64)
    for top in range(0, image.height, BLOCK_ROWS):
        counts += np.bincount(stored[top : top + BLOCK_ROWS].ravel(), minlength=len(counts))
    codes = np.flatnonzero(counts)
    shown = image.show(codes, counts[codes], n_bits)
    table = np.zeros_like(shown, shape=2**n_bits)
    table[codes] = shown
    pixels: Pixels = np.empty_like(table, shape=stored.shape)
    for top in range(0, image.height, BLOCK_ROWS):
        pixels[top : top + BLOCK_ROWS] = table[stored[top : top + BLOCK_ROWS]]
    return pixels, image.warnings


def describe_dicom(content: bytes) -> tuple[int, int, str]:
    """Width, height and kind of a DICOM image, without decoding.

    Raises:
        ValueError: The header shows that the image cannot be used.
    """
    image = _Image(content)
    return image.width, image.height, f"DICOM {image.photometric} {image.stored_bits} bit"


def read_dicom_view(content: bytes) -> str:
    """View position in the file, such as ``PA`` or ``LL``; empty if it has none.

    Raises:
        ValueError: The header shows that the image cannot be used.
    """
    return _Image(content).file.read_text(header.VIEW).upper()


class _Image:
    """The checked image module of a file."""

    def __init__(self, content: bytes) -> None:
        self.file = file = header.DICOMHeader(content)
        n_frames = file.read_text(header.FRAMES) or "1"
        if not n_frames.isdecimal() or int(n_frames[:9]) != 1:
            raise ValueError("DICOM with several frames")
        self.photometric = file.read_text(header.PHOTOMETRIC)
        self.n_channels = file.read_word(header.SAMPLES, 1)
        if self.n_channels != (3 if self.photometric in CHANNELS else 1) or (
            self.photometric not in (*GRAY, PALETTE, *CHANNELS)
        ):
            raise ValueError("DICOM that is neither gray (MONOCHROME1 or MONOCHROME2) nor RGB is not supported")
        self.width, self.height = file.read_word(header.COLUMNS), file.read_word(header.ROWS)
        check_size(self.width, self.height)
        self.allocated_bits = file.read_word(header.ALLOCATED)
        self.stored_bits = file.read_word(header.STORED, self.allocated_bits)
        if self.allocated_bits not in {8, 16} or not 1 < self.stored_bits <= self.allocated_bits:
            raise ValueError("DICOM with other than 8 to 16 bits")
        if file.read_word(header.HIGH_BIT, self.stored_bits - 1) != self.stored_bits - 1:
            raise ValueError("DICOM with pixels in the upper bits is not supported")
        self.signed = file.read_word(header.SIGNED, 0) == 1
        self.warnings = [file.guess] if file.guess else []
        if self.photometric not in GRAY:
            self.warnings.append(f"gray saved as {self.photometric}")

    def read_stored(self) -> tuple[NDArray[Any], int]:
        """Read the stored value of each pixel, and determine its bits and whether the highest is a sign.

        Returns:
            (H, W) unsigned values with any sign bit in place; and the number of bits of a value, 2 to 16.
        """
        values: NDArray[Any]
        kind, n_bits, is_verbatim = header.CODECS.get(self.file.syntax), self.stored_bits, True
        all_bits = self.allocated_bits
        if kind is None:
            values = self._read_plain()
        elif kind == "rle":
            n_bytes = self.allocated_bits // 8
            content = self.file.read_codestream()
            values = codestreams.decode_rle(content, self.width, self.height, n_bytes, self.n_channels)
        else:
            codestream = codestreams.read_codestream(self.file.read_codestream(), kind)
            if (codestream.width, codestream.height) != (self.width, self.height):
                raise ValueError("damaged: the compressed pixels have another size than the file says")
            if not 1 < codestream.precision <= 16:
                raise ValueError("DICOM with other than 8 to 16 bits")
            values = codestreams.decode(codestream, kind)
            all_bits, is_verbatim = codestream.precision, codestream.is_verbatim
            n_bits = min(all_bits, self.stored_bits)
            if not is_verbatim and int(values.max()) >= 2**n_bits:
                n_bits = codestream.precision
        if values.ndim == 3:
            self.signed = False
            return merge_channels(values, n_bits, self.photometric != "RGB", BLOCK_ROWS), n_bits
        if is_verbatim and n_bits < all_bits and int(values.max()) >= 2**n_bits:
            n_bits = all_bits if n_bits < LEAST_BITS else choose_bits(values, n_bits, all_bits, self.signed)
        if n_bits < 8 * values.itemsize:
            values = values & values.dtype.type(2**n_bits - 1)
        n_bits, self.signed, is_doubtful = choose_sign(values, n_bits, said_signed := self.signed)
        if is_doubtful:
            self.warnings.append("a doubtful sign, read as its tags say")
        if self.signed != said_signed or n_bits > self.stored_bits or (self.signed and n_bits != self.stored_bits):
            read, said = _name_bits(n_bits, self.signed), _name_bits(self.stored_bits, said_signed)
            self.warnings.append(f"read as {read}, though its tags say {said}")
        return values, n_bits

    def _read_plain(self) -> NDArray[Any]:
        data = self.file.read_pixels()
        row = self.width * self.n_channels * self.allocated_bits // 8
        if self.photometric == "YBR_FULL_422":
            row = row * 2 // 3
        if len(data) < self.height * row:
            raise ValueError("fewer pixels than its header says")
        excess = bytes(data[self.height * row :])
        column = self.height * self.allocated_bits // 8
        if len(excess) > 1 and len(excess) >= min(row, column) and excess.strip(b"\0"):  # padding is 0
            raise ValueError("damaged: more pixels than its header says")
        options: dict[str, Any] = {
            "rows": self.height, "columns": self.width, "number_of_frames": 1, "samples_per_pixel": self.n_channels,
            "photometric_interpretation": self.photometric, "bits_allocated": self.allocated_bits,
            "bits_stored": self.stored_bits, "pixel_representation": 0, "pixel_keyword": "PixelData",
            "pixel_vr": self.file.pixels_vr, "view_only": True, "correct_unused_bits": False,
            "planar_configuration": self.file.read_word(header.PLANAR, 0),
        }  # fmt: skip
        values, _ = get_decoder(self.file.syntax).as_array(data, raw=True, validate=False, **options)
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def show(self, codes: NDArray[np.intp], counts: NDArray[np.int64], n_bits: int) -> Pixels:
        """The gray value for each stored value of the image.

        Args:
            codes: (N,) the different stored values (``read_stored``), ascending.
            counts: (N,) number of pixels with each value.
            n_bits: Bits of a value.
        """
        values = read_sign(codes, n_bits, self.signed)
        inside = ~self._find_padding(values, n_bits)
        if not inside.any() or (inside[values.argmin()] and inside[values.argmax()]):
            inside[:] = True
        if np.count_nonzero(inside) < 2:
            raise ValueError("one gray value everywhere")
        is_gray = self.photometric in GRAY
        known = self._apply_modality(values) if is_gray else values
        is_plain = known is values and n_bits == 8 and not self.signed and self.photometric != PALETTE
        for kind, shown in self._list_views(known):
            is_plain = False
            if kind == PALETTE and not is_one_gray(shown[inside]):
                break
            if kind != PALETTE and not misses_image(shown[inside], known[inside], counts[inside]):
                break
            self.warnings.append(f"a {kind} that does not show the image, set aside")
        else:
            if np.ptp(known[inside]) == 0:
                known = values
                self.warnings.append("a slope or modality LUT that leaves one gray value, set aside")
            low, high = (0, 255) if is_plain else (known[inside].min(), known[inside].max())
            shown = (known - low) / (high - low)
        shown = np.clip(shown, 0, 1)
        if self.photometric == "MONOCHROME1":
            shown = 1 - shown
        shown[~inside] = 0
        return np.rint(shown * 255).astype(np.uint8) if is_plain else np.rint(shown * 65535).astype(np.uint16)

    def _find_padding(self, values: NDArray[Any], n_bits: int) -> NDArray[np.bool_]:
        """Which values are padding according to the file."""
        if not self.file.read_bytes(header.PADDING):
            return np.zeros(len(values), np.bool_)
        first = self.file.read_word(header.PADDING)
        codes = np.array([first, self.file.read_word(header.PADDING_LIMIT, first)]) % 2**n_bits
        ends = read_sign(codes, n_bits, self.signed)
        outside: NDArray[np.bool_] = (values >= ends.min()) & (values <= ends.max())
        return outside

    def _apply_modality(self, values: NDArray[Any]) -> NDArray[Any]:
        """Apply the modality LUT, or slope and intercept; return ``values`` itself if the file has neither."""
        lookup = self._read_lookup(header.MODALITY_LUT, values)
        if lookup is not None:
            return look_up(values, *lookup)
        slope, intercept = self.file.read_number(header.SLOPE, 1.0), self.file.read_number(header.INTERCEPT, 0.0)
        return values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept

    def _list_views(self, known: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Candidate mappings of values to grays from 0 to 1, with their kind, in order of preference."""
        if self.photometric == PALETTE:
            yield PALETTE, self._apply_palette(known)
        if self.photometric not in GRAY:
            return
        lookup = self._read_lookup(header.VOI_LUT, known)
        if lookup is not None:
            yield "VOI LUT", look_up(known, *lookup) / (lookup[1].max() or 1)
        function = self.file.read_text(header.FUNCTION) or FUNCTIONS[0]
        n_windows = min(self.file.count_values(header.CENTER), self.file.count_values(header.WIDTH), MAX_WINDOWS)
        if n_windows and function not in FUNCTIONS:
            raise ValueError("DICOM with a window of unknown function")
        for place in range(n_windows):
            center, width = (self.file.read_number(tag, 0.0, place) for tag in (header.CENTER, header.WIDTH))
            if width > 0:
                yield "window", apply_window(known, center, width, function, self.photometric)

    def _apply_palette(self, values: NDArray[Any]) -> NDArray[np.float64]:
        tables = [
            parse_lookup(*contents, values, False, self.file.syntax.is_little_endian)
            for contents in zip(
                map(self.file.read_bytes, header.PALETTE_DESCRIPTORS),
                map(self.file.read_bytes, header.PALETTES),
                strict=True,
            )
        ]
        first, entries = tables[0]
        if not all(other[0] == first and np.array_equal(other[1], entries) for other in tables):
            raise ValueError("DICOM in colour is not supported")
        return look_up(values, first, entries) / (255 if entries.max() <= 255 else 65535)

    def _read_lookup(self, tag: int, values: NDArray[Any]) -> tuple[int, NDArray[np.float64]] | None:
        """A look-up table for some values: the first input value, and the entries."""
        item = self.file.read_item(tag)
        data = b"" if item is None else self.file.read_bytes(header.LUT_DATA, item)
        descriptor = b"" if item is None else self.file.read_bytes(header.LUT_DESCRIPTOR, item)
        if item is None or (not data and not descriptor):
            return None
        kind = item.get_item(header.LUT_DESCRIPTOR).VR
        signed = kind == "SS" or (kind != "US" and self.signed)
        return parse_lookup(descriptor, data, values, signed, self.file.syntax.is_little_endian)


def _name_bits(n_bits: int, signed: bool) -> str:
    return f"{'signed' if signed else 'unsigned'} values of {n_bits} bits"
