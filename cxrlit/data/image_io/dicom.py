"""DICOM: the pixels of one radiograph as they are meant to be seen, and nothing else of the file.

The stored values go through what the file says, in the order of the standard: modality LUT or rescale slope and
intercept; VOI LUT, else the first window, else their range; MONOCHROME1 is inverted. No reason why a file cannot be
used holds a value of the file.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT and window); PS3.5, 8 and A.4.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.data.image_io import dicom_codecs as codestreams
from cxrlit.data.image_io.dicom_elements import PIXEL_DATA, DataSet, Element
from cxrlit.data.image_io.sizes import Pixels, check_size

SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x0028_0002, 0x0028_0004, 0x0028_0008, 0x0028_0010, 0x0028_0011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x0028_0100, 0x0028_0101, 0x0028_0102, 0x0028_0103
PADDING, PADDING_LIMIT = 0x0028_0120, 0x0028_0121
CENTER, WIDTH, INTERCEPT, SLOPE, FUNCTION = 0x0028_1050, 0x0028_1051, 0x0028_1052, 0x0028_1053, 0x0028_1056
VIEW = 0x0018_5101
MODALITY_LUT, VOI_LUT, LUT_DESCRIPTOR, LUT_DATA = 0x0028_3000, 0x0028_3010, 0x0028_3002, 0x0028_3006
LUT_TAGS = frozenset({LUT_DESCRIPTOR, LUT_DATA})
TAGS = frozenset(
    {SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGNED, PADDING, PADDING_LIMIT}
    | {CENTER, WIDTH, INTERCEPT, SLOPE, FUNCTION, MODALITY_LUT, VOI_LUT, PIXEL_DATA, VIEW}
)

UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})
"""Transfer syntaxes: implicit, explicit, deflated; big endian."""
COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "jpeg",  # baseline, 8 bits
    "1.2.840.10008.1.2.4.51": "jpeg",  # extended, 12 bits
    "1.2.840.10008.1.2.4.57": "jpeg",  # lossless
    "1.2.840.10008.1.2.4.70": "jpeg",  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "jpeg_ls",  # lossless
    "1.2.840.10008.1.2.4.81": "jpeg_ls",  # near lossless
    "1.2.840.10008.1.2.4.90": "jpeg_2000",  # lossless
    "1.2.840.10008.1.2.4.91": "jpeg_2000",
    "1.2.840.10008.1.2.5": "rle",
}
READERS = {
    "jpeg": codestreams.read_jpeg,
    "jpeg_ls": codestreams.read_jpeg_ls,
    "jpeg_2000": codestreams.read_jpeg_2000,
}
BLOCK_ROWS = 128
"""Rows that are looked up at once: NumPy makes 8 bytes of each index."""


def decode_dicom(content: bytes) -> Pixels:
    """The gray values of a DICOM image, light for what absorbs (MONOCHROME2).

    Returns:
        (H, W). uint8 as stored where it has 8 bits and the file says no more about them. Otherwise uint16, 0 for the
        lower end of the VOI LUT or window and 65535 for its upper end. Without both the ends are the smallest and
        the largest value of the image: detectors of 10 to 14 bits say 16 in many files, and by the range of those
        bits their radiographs would be nearly black. Padding is black.

    Raises:
        ValueError: It has no pixels, several frames, colour, too many pixels, a compression that is not supported, or
            is damaged.
        ConfigError: imagecodecs is needed and not installed.
    """
    image = _Image(content)
    stored = image.read_stored()
    present = np.zeros(2**image.stored_bits, np.bool_)
    for top in range(0, image.height, BLOCK_ROWS):
        present[stored[top : top + BLOCK_ROWS]] = True
    table = image.make_table(present)
    pixels = np.empty(stored.shape, table.dtype)
    for top in range(0, image.height, BLOCK_ROWS):
        pixels[top : top + BLOCK_ROWS] = table[stored[top : top + BLOCK_ROWS]]
    return pixels


def describe_dicom(content: bytes) -> tuple[int, int, str]:
    """Width, height and kind of a DICOM image, nothing decoded.

    Raises:
        ValueError: It cannot be used, by its header.
    """
    image = _Image(content)
    return image.width, image.height, f"DICOM {image.photometric} {image.stored_bits} bit"


def read_dicom_view(content: bytes) -> str:
    """View position as the file has it, such as ``PA`` or ``LL``; empty where it says none.

    Raises:
        ValueError: The image cannot be used, by its header.
    """
    return _Image(content).view


@dataclass(frozen=True)
class _Lookup:
    """A look-up table.

    Attributes:
        first: The value that has the first entry; smaller ones have it too, and large ones the last.
        entries: What values become.
        top: The largest entry that there could be.
    """

    first: int
    entries: NDArray[np.float64]
    top: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        found: NDArray[np.float64] = self.entries[places.astype(np.intp)]
        return found


class _Image:
    """The image module of a file, checked."""

    def __init__(self, content: bytes) -> None:
        self._data = DataSet(content)
        syntax = self._data.syntax
        if syntax not in UNCOMPRESSED and syntax not in COMPRESSED:
            raise ValueError("a DICOM transfer syntax that is not supported")
        self._elements = self._data.find(TAGS)
        if PIXEL_DATA not in self._elements:
            raise ValueError("DICOM without pixels")
        photometric = self._read_text(PHOTOMETRIC)
        n_frames = self._read_text(FRAMES) or "1"
        if not n_frames.isdecimal() or int(n_frames[:9]) != 1:
            raise ValueError("DICOM with several frames")
        if photometric not in {"MONOCHROME1", "MONOCHROME2"} or self._read_word(SAMPLES, 1) != 1:
            raise ValueError("DICOM that is not gray (MONOCHROME1 or MONOCHROME2) is not supported")
        self.photometric = photometric
        self.width, self.height = self._read_word(COLUMNS), self._read_word(ROWS)
        check_size(self.width, self.height)
        self.allocated_bits = self._read_word(ALLOCATED)
        self.stored_bits = self._read_word(STORED, self.allocated_bits)
        if self.allocated_bits not in {8, 16} or not 1 < self.stored_bits <= self.allocated_bits:
            raise ValueError("DICOM with other than 8 to 16 bits")
        if self._read_word(HIGH_BIT, self.stored_bits - 1) != self.stored_bits - 1:
            raise ValueError("DICOM with pixels in the upper bits is not supported")
        self.signed = self._read_word(SIGNED, 0) == 1

    def read_stored(self) -> NDArray[Any]:
        """(H, W) unsigned: the bits that are stored for each pixel, a sign among them as it is."""
        values: NDArray[Any]
        mask = 2**self.stored_bits - 1
        kind = COMPRESSED.get(self._data.syntax)
        pixels = self._elements[PIXEL_DATA]
        if (kind is None) != (pixels.stop is not None):
            raise ValueError("damaged: the pixels are not what the transfer syntax says")
        if kind is None:
            values = self._read_plain(pixels)
        elif kind == "rle":
            fragments = self._data.read_fragments(pixels)
            values = codestreams.decode_rle(fragments, self.width, self.height, self.allocated_bits // 8)
        else:
            codestream = READERS[kind](self._data.read_fragments(pixels))
            if (codestream.width, codestream.height) != (self.width, self.height):
                raise ValueError("damaged: the compressed pixels have another size than the file says")
            if codestream.precision > self.allocated_bits:
                raise ValueError("damaged: the compressed pixels have more bits than the file says")
            values = codestreams.decode(codestream, kind)
            if codestream.precision > self.stored_bits and not self.signed:
                values = np.minimum(values, values.dtype.type(mask))  # lossy compression goes beyond the largest value
        if self.stored_bits < 8 * values.itemsize:
            values = values & values.dtype.type(mask)
        return values

    def make_table(self, present: NDArray[np.bool_]) -> Pixels:
        """What each stored value becomes.

        Args:
            present: (2 ** stored_bits,) the stored values that the image has.
        """
        codes = np.arange(len(present))
        values = np.where(codes >= len(codes) // 2, codes - len(codes), codes) if self.signed else codes
        padding = self._find_padding(values)
        modality = self._read_lookup(MODALITY_LUT)
        slope, intercept = self._read_number(SLOPE, 1.0), self._read_number(INTERCEPT, 0.0)
        known = modality(values) if modality else values * slope + intercept
        voi = self._read_lookup(VOI_LUT)
        window = None if voi else self._read_window()
        as_stored = self.stored_bits == 8 and not self.signed and (slope, intercept) == (1.0, 0.0)
        as_stored = as_stored and not modality and not voi and not window
        if voi:
            shown = voi(known) / voi.top
        elif window:
            shown = _apply_window(known, *window)
        elif as_stored:
            shown = known / 255
        else:
            inside = known[present & ~padding]
            low, high = (inside.min(), inside.max()) if inside.size else (0.0, 0.0)
            shown = (known - low) / ((high - low) or 1.0)
        shown = np.clip(shown, 0, 1)
        if self.photometric == "MONOCHROME1":
            shown = 1 - shown
        shown[padding] = 0
        return np.rint(shown * 255).astype(np.uint8) if as_stored else np.rint(shown * 65535).astype(np.uint16)

    def _find_padding(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values the file says are no image."""
        tags = [tag for tag in (PADDING, PADDING_LIMIT) if tag in self._elements]
        if PADDING not in tags:
            return np.zeros(len(values), np.bool_)
        ends = values[[self._read_word(tag) % len(values) for tag in tags]]
        outside: NDArray[np.bool_] = (values >= ends.min()) & (values <= ends.max())
        return outside

    def _read_number(self, tag: int, default: float) -> float:
        """The first of a list of decimal numbers."""
        text = self._read_text(tag).split("\\")[0].strip()
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            raise ValueError("damaged: a number that is none") from None
        if not abs(number) < 1e9:
            raise ValueError("damaged: a number that cannot be")
        return number

    def _read_window(self) -> tuple[float, float, str] | None:
        """Centre, width and function of the first window."""
        if not self._read_text(CENTER) or not self._read_text(WIDTH):
            return None
        function = self._read_text(FUNCTION) or "LINEAR"
        if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
            raise ValueError("DICOM with a window of unknown function")
        center, width = self._read_number(CENTER, 0.0), self._read_number(WIDTH, 0.0)
        if width <= 0 or (function == "LINEAR" and width < 1):
            raise ValueError("DICOM with a window without width")
        return center, width, function

    def _read_lookup(self, tag: int) -> "_Lookup | None":
        """The look-up table in a sequence."""
        found = self._data.find_in_item(self._elements[tag], LUT_TAGS) if tag in self._elements else {}
        if not found:
            return None
        if len(found) < len(LUT_TAGS):
            raise ValueError("damaged: a look-up table without entries")
        descriptor, data = (self._read_bytes(found[part]) for part in (LUT_DESCRIPTOR, LUT_DATA))
        order = self._data.order
        if len(descriptor) != 6:
            raise ValueError("damaged: a look-up table without size")
        n_entries, first, n_bits = struct.unpack(f"{order}H{'h' if self.signed else 'H'}H", descriptor)
        n_entries = n_entries or 2**16
        packed = n_bits == 8 and len(data) < 2 * n_entries  # two entries in a word, or one
        if not 8 <= n_bits <= 16 or len(data) < n_entries * (1 if packed else 2):
            raise ValueError("damaged: a look-up table with fewer entries than it says")
        entries = np.frombuffer(data, np.uint8 if packed else f"{order}u2", n_entries)
        return _Lookup(first, entries.astype(np.float64), 2.0**n_bits - 1)

    def _read_plain(self, pixels: Element) -> NDArray[Any]:
        values: NDArray[Any]
        data = self._read_bytes(pixels)
        n_pixels = self.width * self.height
        if len(data) < n_pixels * self.allocated_bits // 8:
            raise ValueError("fewer pixels than its header says")
        if self.allocated_bits == 16:
            values = np.frombuffer(data, f"{self._data.order}u2", n_pixels).astype(np.uint16)
        elif self._data.order == ">" and pixels.vr == b"OW":  # two pixels in a word
            values = np.frombuffer(data[: len(data) // 2 * 2], np.uint16).byteswap().view(np.uint8)[:n_pixels]
        else:
            values = np.frombuffer(data, np.uint8, n_pixels)
        return values.reshape(self.height, self.width)

    @property
    def view(self) -> str:
        return self._read_text(VIEW).upper()

    def _read_bytes(self, element: Element) -> bytes:
        return self._data.content[element.start : element.stop]

    def _read_text(self, tag: int) -> str:
        element = self._elements.get(tag)
        return "" if element is None else self._read_bytes(element).decode("latin-1").strip(" \0")

    def _read_word(self, tag: int, default: int | None = None) -> int:
        element = self._elements.get(tag)
        data = b"" if element is None else self._read_bytes(element)
        if len(data) == 0 and default is not None:
            return default
        if len(data) != 2:
            raise ValueError("damaged: size or bits of the pixels are missing")
        return int(struct.unpack(f"{self._data.order}H", data)[0])


def _apply_window(values: NDArray[Any], center: float, width: float, function: str) -> NDArray[np.float64]:
    """0 to 1 within the window, less or more outside of it."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown = 1 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        shown = (values - center) / width + 0.5
    elif width == 1:
        shown = (values > center - 0.5).astype(np.float64)
    else:
        shown = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.asarray(shown, np.float64)
