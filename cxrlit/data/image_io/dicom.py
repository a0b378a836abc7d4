"""DICOM: the pixels of one radiograph as they are meant to be seen, and nothing else of the file.

The stored values go through what the file says, in the order of the standard: modality LUT or rescale slope and
intercept; VOI LUT, else the first window, else their range; MONOCHROME1 is inverted. No reason why a file cannot be
used holds a value of the file.

A file can contradict itself. One rule holds for all: the pixels are believed over the tags.

- Precision: JPEG 2000, JPEG-LS and lossy JPEG say the bits of a sample themselves. They are believed, unless BitsStored
  says fewer and those hold all values. PixelRepresentation says whether the highest of these bits is a sign, whatever
  the codestream says of signs, as pydicom has it. Samples that are stored as they are (uncompressed, RLE, lossless
  JPEG) have the bits of BitsStored: those above may be an overlay.
- Look-up tables: the entries count, not the number and the bits that the descriptor says. White is the largest entry.
- A slope, modality LUT, VOI LUT or window that leaves one gray value is set aside; the last resort is the range of the
  values. A window of LINEAR with a width below 1 is LINEAR_EXACT, one without width is none. Padding that covers the
  whole image is none.
- An image of one value, padding not counted, is refused.
- Rows and Columns are not set aside: pixels of another size than the file says are refused.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT and window); PS3.5, 8 and A.4.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_windowing

from cxrlit.data.image_io import dicom_codecs as codestreams
from cxrlit.data.image_io import dicom_header as header
from cxrlit.data.image_io.sizes import Pixels, check_size

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
        ValueError: It has no pixels, several frames, colour, too many pixels, one gray value alone, a compression that
            is not supported, or is damaged.
        ConfigError: imagecodecs is needed and not installed.
    """
    image = _Image(content)
    stored, n_bits = image.read_stored()
    present = np.zeros(2**n_bits, np.bool_)
    for top in range(0, image.height, BLOCK_ROWS):
        present[stored[top : top + BLOCK_ROWS]] = True
    codes = np.flatnonzero(present)
    shown = image.show(codes, n_bits)
    table = np.zeros_like(shown, shape=2**n_bits)
    table[codes] = shown
    pixels: Pixels = np.empty_like(table, shape=stored.shape)
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
    return _Image(content).file.read_text(header.VIEW).upper()


class _Image:
    """The image module of a file, checked."""

    def __init__(self, content: bytes) -> None:
        self.file = file = header.DICOMHeader(content)
        n_frames = file.read_text(header.FRAMES) or "1"
        if not n_frames.isdecimal() or int(n_frames[:9]) != 1:
            raise ValueError("DICOM with several frames")
        self.photometric = file.read_text(header.PHOTOMETRIC)
        if self.photometric not in {"MONOCHROME1", "MONOCHROME2"} or file.read_word(header.SAMPLES, 1) != 1:
            raise ValueError("DICOM that is not gray (MONOCHROME1 or MONOCHROME2) is not supported")
        self.width, self.height = file.read_word(header.COLUMNS), file.read_word(header.ROWS)
        check_size(self.width, self.height)
        self.allocated_bits = file.read_word(header.ALLOCATED)
        self.stored_bits = file.read_word(header.STORED, self.allocated_bits)
        if self.allocated_bits not in {8, 16} or not 1 < self.stored_bits <= self.allocated_bits:
            raise ValueError("DICOM with other than 8 to 16 bits")
        if file.read_word(header.HIGH_BIT, self.stored_bits - 1) != self.stored_bits - 1:
            raise ValueError("DICOM with pixels in the upper bits is not supported")
        self.signed = file.read_word(header.SIGNED, 0) == 1

    def read_stored(self) -> tuple[NDArray[Any], int]:
        """Read the stored value of each pixel.

        Returns:
            (H, W) unsigned, a sign among the bits as it is; and how many bits a value has, 2 to 16.
        """
        values: NDArray[Any]
        kind, n_bits = header.CODECS.get(self.file.syntax), self.stored_bits
        if kind is None:
            values = self._read_plain()
        elif kind == "rle":
            content = self.file.read_codestream()
            values = codestreams.decode_rle(content, self.width, self.height, self.allocated_bits // 8)
        else:
            codestream = codestreams.read_codestream(self.file.read_codestream(), kind)
            if (codestream.width, codestream.height) != (self.width, self.height):
                raise ValueError("damaged: the compressed pixels have another size than the file says")
            if not 1 < codestream.precision <= 16:
                raise ValueError("DICOM with other than 8 to 16 bits")
            values = codestreams.decode(codestream, kind)
            n_bits = min(codestream.precision, self.stored_bits)
            if not codestream.is_verbatim and int(values.max()) >= 2**n_bits:
                n_bits = codestream.precision
        if n_bits < 8 * values.itemsize:
            values = values & values.dtype.type(2**n_bits - 1)
        return values, n_bits

    def _read_plain(self) -> NDArray[Any]:
        data = self.file.read_pixels()
        if len(data) < self.width * self.height * self.allocated_bits // 8:
            raise ValueError("fewer pixels than its header says")
        options: dict[str, Any] = {
            "rows": self.height, "columns": self.width, "number_of_frames": 1, "samples_per_pixel": 1,
            "photometric_interpretation": self.photometric, "bits_allocated": self.allocated_bits,
            "bits_stored": self.stored_bits, "pixel_representation": 0, "pixel_keyword": "PixelData",
            "pixel_vr": self.file.pixels_vr, "view_only": True, "correct_unused_bits": False,
        }  # fmt: skip
        values, _ = get_decoder(self.file.syntax).as_array(data, raw=True, validate=False, **options)
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def show(self, codes: NDArray[np.intp], n_bits: int) -> Pixels:
        """What each stored value of the image becomes.

        Args:
            codes: (N,) the values that occur in it, as ``read_stored`` has them, ascending.
            n_bits: Bits of a value.
        """
        values = np.where(codes >= 2 ** (n_bits - 1), codes - 2**n_bits, codes) if self.signed else codes
        inside = ~self._find_padding(values, n_bits)
        if not inside.any():
            inside[:] = True
        if np.count_nonzero(inside) < 2:
            raise ValueError("one gray value everywhere")
        known = self._apply_modality(values)
        is_plain = known is values and n_bits == 8 and not self.signed
        for view in (self._apply_voi_lut, self._apply_window):
            shown = view(known)
            is_plain = is_plain and shown is None
            if shown is not None and np.ptp(np.rint(np.clip(shown[inside], 0, 1) * 255)) > 0:
                break
        else:
            if np.ptp(known[inside]) == 0:
                known = values
            low, high = (0, 255) if is_plain else (known[inside].min(), known[inside].max())
            shown = (known - low) / (high - low)
        shown = np.clip(shown, 0, 1)
        if self.photometric == "MONOCHROME1":
            shown = 1 - shown
        shown[~inside] = 0
        return np.rint(shown * 255).astype(np.uint8) if is_plain else np.rint(shown * 65535).astype(np.uint16)

    def _find_padding(self, values: NDArray[Any], n_bits: int) -> NDArray[np.bool_]:
        """Which values the file says are no image."""
        if not self.file.read_bytes(header.PADDING):
            return np.zeros(len(values), np.bool_)
        first = self.file.read_word(header.PADDING)
        codes = np.array([first, self.file.read_word(header.PADDING_LIMIT, first)]) % 2**n_bits
        ends = np.where(codes >= 2 ** (n_bits - 1), codes - 2**n_bits, codes) if self.signed else codes
        outside: NDArray[np.bool_] = (values >= ends.min()) & (values <= ends.max())
        return outside

    def _apply_modality(self, values: NDArray[Any]) -> NDArray[Any]:
        """Apply the modality LUT, or slope and intercept; where the file has neither, ``values`` itself."""
        lookup = self._read_lookup(header.MODALITY_LUT)
        if lookup is not None:
            return _look_up(values, *lookup)
        slope, intercept = self._read_number(header.SLOPE, 1.0), self._read_number(header.INTERCEPT, 0.0)
        return values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept

    def _apply_voi_lut(self, known: NDArray[Any]) -> NDArray[np.float64] | None:
        lookup = self._read_lookup(header.VOI_LUT)
        return None if lookup is None else _look_up(known, *lookup) / (lookup[1].max() or 1)

    def _apply_window(self, known: NDArray[Any]) -> NDArray[np.float64] | None:
        """0 to 1 by the first window."""
        if not self.file.read_text(header.CENTER) or not self.file.read_text(header.WIDTH):
            return None
        function = self.file.read_text(header.FUNCTION) or "LINEAR"
        if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
            raise ValueError("DICOM with a window of unknown function")
        center, width = self._read_number(header.CENTER, 0.0), self._read_number(header.WIDTH, 0.0)
        if width <= 0:
            return None
        window = Dataset()  # of the file's values, as numbers, and with ends that are 0 and 65535
        window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = self.photometric, 16, 0
        window.VOILUTFunction = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
        window.add_new(header.CENTER, "FD", center)
        window.add_new(header.WIDTH, "FD", width)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return np.asarray(apply_windowing(known, window) / 65535)

    def _read_number(self, tag: int, default: float) -> float:
        """The first of a list of decimal numbers."""
        text = self.file.read_text(tag).split("\\")[0].strip()
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            raise ValueError("damaged: a number that is none") from None
        if not abs(number) < 1e9:
            raise ValueError("damaged: a number that cannot be")
        return number

    def _read_lookup(self, tag: int) -> tuple[int, NDArray[np.float64]] | None:
        """A look-up table: the value that has the first entry, and what values become."""
        item = self.file.read_item(tag)
        data = b"" if item is None else self.file.read_bytes(header.LUT_DATA, item)
        descriptor = b"" if item is None else self.file.read_bytes(header.LUT_DESCRIPTOR, item)
        if item is None or (not data and not descriptor):
            return None
        if len(descriptor) != 6 or len(data) < 2:
            raise ValueError("damaged: a look-up table without entries or size")
        order = "<" if self.file.syntax.is_little_endian else ">"
        n_entries, _, n_bits = (int(word) for word in np.frombuffer(descriptor, f"{order}u2"))
        kind = item.get_item(header.LUT_DESCRIPTOR).VR
        signed = kind == "SS" or (kind != "US" and self.signed)
        first = int(np.frombuffer(descriptor, f"{order}{'i' if signed else 'u'}2")[1])
        # Entries of 8 bits may stand two in a word, and an odd number of them is filled up.
        is_packed = n_bits == 8 and len(data) in {n_entries, n_entries + 1}
        entries = np.frombuffer(
            data[: n_entries if is_packed else len(data) // 2 * 2], "u1" if is_packed else f"{order}u2"
        )
        return first, entries.astype(np.float64)


def _look_up(values: NDArray[Any], first: int, entries: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entry of each value; smaller ones than ``first`` have its entry, and large ones the last."""
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1)
    found: NDArray[np.float64] = entries[places.astype(np.intp)]
    return found
