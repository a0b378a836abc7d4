"""The DICOM tags that decoding needs, read with pydicom.

pydicom reads ``TAGS`` and skips the rest, so that patient names, dates and other contents never become values. The
elements of ``TAGS`` stay bytes, because pydicom's warnings quote values that it cannot convert.

A malicious file costs no more than an honest one: pydicom creates an object for each element of a sequence, and
``MAX_READS`` limits their number.

Source: DICOM PS3.5, chapter 7 and annex A; PS3.10, chapter 7.
"""

import io
import logging
import re
import warnings
import zlib
from collections.abc import Callable
from typing import TypeVar

from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_dataset, read_preamble, read_sequence_item

from cxrlit.core.errors import first_line

TRANSFER_SYNTAX = 0x0002_0010
VIEW = 0x0018_5101
SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x0028_0002, 0x0028_0004, 0x0028_0008, 0x0028_0010, 0x0028_0011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x0028_0100, 0x0028_0101, 0x0028_0102, 0x0028_0103
PADDING, PADDING_LIMIT = 0x0028_0120, 0x0028_0121
CENTER, WIDTH, INTERCEPT, SLOPE, FUNCTION = 0x0028_1050, 0x0028_1051, 0x0028_1052, 0x0028_1053, 0x0028_1056
MODALITY_LUT, VOI_LUT, LUT_DESCRIPTOR, LUT_DATA = 0x0028_3000, 0x0028_3010, 0x0028_3002, 0x0028_3006
PLANAR = 0x0028_0006
PALETTE_DESCRIPTORS, PALETTES = (0x0028_1101, 0x0028_1102, 0x0028_1103), (0x0028_1201, 0x0028_1202, 0x0028_1203)
PIXEL_DATA = 0x7FE0_0010
TAGS = [VIEW, SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGNED, PADDING, PADDING_LIMIT]
TAGS += [CENTER, WIDTH, INTERCEPT, SLOPE, FUNCTION, MODALITY_LUT, VOI_LUT, PLANAR, *PALETTE_DESCRIPTORS, *PALETTES]

CODECS = {
    **dict.fromkeys(uid.JPEGTransferSyntaxes, "jpeg"),
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, "jpeg_ls"),
    uid.JPEG2000Lossless: "jpeg_2000",
    uid.JPEG2000: "jpeg_2000",
    uid.RLELossless: "rle",
}
"""Compression by transfer syntax."""
UNCOMPRESSED = {
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian
}  # fmt: skip

MAX_READS = 50_000
"""Maximum reads of a file; an element takes one to three. Single-frame images have some hundred elements."""
MAX_INFLATED_BYTES = 192 * 2**20
"""Maximum unpacked size of a deflated file. The largest accepted image has 128 MiB."""
UNDEFINED = 0xFFFF_FFFF
SEQUENCE_END = b"\xfe\xff\xdd\xe0"

T = TypeVar("T")

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its log quotes values of the file


class DICOMHeader:
    """The tags of a file, and the position of its pixels.

    Attributes:
        syntax: The transfer syntax, one of ``UNCOMPRESSED`` or ``CODECS``.
        pixels_vr: Value representation of the pixels; empty if the file does not state it.
        guess: Properties that the file omits, and how they are assumed; empty if it states all.
    """

    def __init__(self, content: bytes) -> None:
        """Read a file up to its pixels.

        Raises:
            ValueError: The file is damaged, has no pixels or an unsupported transfer syntax, or would take too much
                memory.
        """
        _silence_warnings()
        file = _BoundedFile(content)
        read_preamble(file, force=True)
        meta = _read(
            file, lambda: read_dataset(file, False, True, stop_when=_is_past_meta, specific_tags=[TRANSFER_SYNTAX])
        )
        named = _to_text(_take_bytes(meta, TRANSFER_SYNTAX))
        self.syntax = _find_syntax(named, content[file.tell() : file.tell() + 1])
        faults = [] if content[128:132] == b"DICM" else ["without the 132 bytes that a DICOM file begins with"]
        faults += [] if named else [f"without a transfer syntax, read as {self.syntax.name}"]
        self.guess = " and ".join(faults)
        if self.syntax == uid.DeflatedExplicitVRLittleEndian:
            content = _inflate(content[file.tell() :])
            file = _BoundedFile(content)
        self._content, self._start, self._length = content, -1, 0
        self.pixels_vr = ""

        def note_pixels(tag: int, vr: str | None, length: int) -> bool:
            if tag == PIXEL_DATA:
                self.pixels_vr, self._start, self._length = vr or "", file.tell(), length
            return tag == PIXEL_DATA

        is_little, is_implicit = self.syntax.is_little_endian, self.syntax.is_implicit_VR
        self._elements = _read(
            file, lambda: read_dataset(file, is_implicit, is_little, stop_when=note_pixels, specific_tags=[*TAGS])
        )
        if self._start < 0:
            raise ValueError("DICOM without pixels, or cut off before them")
        if (self._length == UNDEFINED) != (self.syntax in CODECS):
            raise ValueError("damaged: the pixels are not what the transfer syntax says")

    def read_pixels(self) -> memoryview:
        """The bytes of uncompressed pixels.

        Raises:
            ValueError: The file is cut off.
        """
        pixels = memoryview(self._content)[self._start : self._start + self._length]
        if len(pixels) < self._length:
            raise ValueError("damaged: the end is missing")
        return pixels

    def read_codestream(self) -> bytes:
        """The compressed image: all fragments joined. The offset table before them is not needed.

        Raises:
            ValueError: The fragments are damaged, or the file is cut off.
        """
        file = _BoundedFile(self._content)
        file.seek(self._start)
        parts = _read(file, lambda: list(generate_fragments(file)))
        if self._content[file.tell() - 4 : file.tell()] != SEQUENCE_END:
            raise ValueError("damaged: the end is missing")
        return b"".join(parts[1:])

    def read_item(self, tag: int) -> Dataset | None:
        """The first data set of a sequence; None if the tag is missing or empty.

        Raises:
            ValueError: The sequence is damaged.
        """
        found = self._elements.get_item(tag)
        if isinstance(found, DataElement):  # a sequence of undefined length is already parsed
            return found.value[0] if found.VR == "SQ" and found.value else None
        if found is None or not found.value:
            return None
        file = _BoundedFile(found.value)
        return _read(file, lambda: read_sequence_item(file, found.is_implicit_VR, found.is_little_endian, "iso8859"))

    def read_bytes(self, tag: int, item: Dataset | None = None) -> bytes:
        """The raw value of an element; empty if there is none."""
        return _take_bytes(self._elements if item is None else item, tag)

    def read_text(self, tag: int) -> str:
        """The value of an element as text, without surrounding blanks."""
        return _to_text(self.read_bytes(tag))

    def read_word(self, tag: int, default: int | None = None) -> int:
        """The value of a 16-bit element.

        Raises:
            ValueError: The value has another size, or is missing without a default.
        """
        value = self.read_bytes(tag)
        if not value and default is not None:
            return default
        if len(value) != 2:
            raise ValueError("damaged: size or bits of the pixels are missing")
        return int.from_bytes(value, "little" if self.syntax.is_little_endian else "big")

    def count_values(self, tag: int) -> int:
        """Number of values of a text element; 0 if it is missing or empty."""
        text = self.read_text(tag)
        return text.count("\\") + 1 if text else 0

    def read_number(self, tag: int, default: float, place: int = 0) -> float:
        """One of the decimal numbers of an element, or the default if it is missing.

        Raises:
            ValueError: The value is no number.
        """
        text = self.read_text(tag).split("\\")[place].strip()
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            raise ValueError("damaged: a number that is none") from None
        if not abs(number) < 1e9:
            raise ValueError("damaged: a number that cannot be")
        return number


class _BoundedFile(io.BytesIO):
    """A file that refuses further reads after ``MAX_READS``."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)  # shares the memory of the bytes
        self.n_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.n_reads += 1
        if self.n_reads > MAX_READS:
            raise ValueError
        return super().read(size)


def _read(file: _BoundedFile, function: Callable[[], T]) -> T:
    """Call a reader of pydicom, and hide its error messages, which quote the file."""
    try:
        return function()
    except MemoryError:
        raise
    except Exception:  # including RecursionError
        reason = "more elements than any image has" if file.n_reads > MAX_READS else "its elements cannot be read"
        raise ValueError(f"damaged: {reason}") from None


def _silence_warnings() -> None:
    """Ignore pydicom's warnings: they quote values of a file.

    Repeated for each file, since leaving ``warnings.catch_warnings`` elsewhere removes the filter.
    """
    ours = ("ignore", None, Warning, re.compile(r"pydicom\b"), 0)
    if ours not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"pydicom\b")


def _is_past_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _find_syntax(name: str, first_byte: bytes) -> uid.UID:
    """The transfer syntax; if the file omits it, by the first byte of its data set, whose group is 8."""
    if not name:  # pydicom detects implicit or explicit value representations itself
        return uid.ExplicitVRBigEndian if first_byte == b"\0" else uid.ImplicitVRLittleEndian
    for syntax in (*UNCOMPRESSED, *CODECS):
        if syntax == name:
            return syntax
    raise ValueError("a DICOM transfer syntax that is not supported")


def _take_bytes(dataset: Dataset, tag: int) -> bytes:
    value = getattr(dataset.get_item(tag), "value", None)
    return value if isinstance(value, bytes) else b""


def _to_text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _inflate(packed: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(packed, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise ValueError(f"damaged: {first_line(error)}") from None
    if len(content) == MAX_INFLATED_BYTES:
        raise ValueError(f"deflated, and more than {MAX_INFLATED_BYTES // 2**20} MiB unpacked")
    if not stream.eof:
        raise ValueError("damaged: the end is missing")
    return content
