"""The elements of a DICOM file: where each of those that were asked for stands, and nothing of the others.

Written out rather than taken from a DICOM library for two reasons. Names of patients, dates and whatever else a file
says are stepped over and never become values, so that no message, warning or log can hold one. And a file that lies
costs no more than an honest one: sequences are walked without recursion, and no object is made for what is stepped
over.

Source: DICOM PS3.5, chapters 6, 7 and A; PS3.10, chapter 7.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cxrlit.core.errors import first_line

META_START = 132
"""After 128 bytes that mean nothing, and ``DICM``."""
TRANSFER_SYNTAX = 0x0002_0010
PIXEL_DATA = 0x7FE0_0010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
UNDEFINED = 0xFFFF_FFFF
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Explicit value representations whose length has 4 bytes."""
MAX_ELEMENTS = 200_000
MAX_INFLATED_BYTES = 192 * 2**20
"""Of a deflated file. The largest image that is accepted has 128 MiB."""


@dataclass(frozen=True)
class Element:
    """A data element.

    Attributes:
        tag: Group and element, 32 bits.
        vr: Value representation; empty where the file does not say it.
        start: First byte of the value.
        stop: Byte after the value, or None: it reaches up to a delimiter.
        explicit: Whether a nested data set says its value representations.
    """

    tag: int
    vr: bytes
    start: int
    stop: int | None
    explicit: bool


class DataSet:
    """The data set of a DICOM file.

    Attributes:
        content: The bytes that elements point into.
        syntax: UID of the transfer syntax.
        order: ``<`` or ``>``: byte order, as ``struct`` has it.
    """

    def __init__(self, content: bytes) -> None:
        """Read the file's own header, and unpack what follows where it is deflated.

        Raises:
            ValueError: It is damaged or too large.
        """
        self.content = content
        self.order = "<"
        self._n_elements = 0
        start = META_START
        self.syntax = ""
        while content[start : start + 2] == b"\x02\0":
            element = self._read_element(start, len(content), explicit=True)
            if element.stop is None:
                raise ValueError("damaged: a file header without end")
            if element.tag == TRANSFER_SYNTAX:
                self.syntax = content[element.start : element.stop].rstrip(b"\0 ").decode("latin-1")
            start = element.stop
        self._start = start
        self._explicit = self.syntax != "1.2.840.10008.1.2" or _is_vr(content[start + 4 : start + 6])
        if self.syntax == "1.2.840.10008.1.2.2":
            self.order = ">"
        if self.syntax == "1.2.840.10008.1.2.1.99":
            self.content, self._start = _inflate(content[start:]), 0

    def find(self, tags: frozenset[int]) -> dict[int, Element]:
        """Those of some top-level elements that are there, up to the pixels.

        Raises:
            ValueError: The file is damaged, or has more elements than any image has.
        """
        found: dict[int, Element] = {}
        for element in self._walk(self._start, len(self.content), self._explicit):
            if element.tag in tags:
                found.setdefault(element.tag, element)
            if element.tag == PIXEL_DATA:
                break
        return found

    def find_in_item(self, sequence: Element, tags: frozenset[int]) -> dict[int, Element]:
        """Those of some elements that are in the first item of a sequence; nothing where it is empty.

        Raises:
            ValueError: The sequence is damaged.
        """
        if sequence.start == sequence.stop:
            return {}
        stop = len(self.content) if sequence.stop is None else sequence.stop
        item = self._read_element(sequence.start, stop, sequence.explicit)
        if item.tag == SEQUENCE_END:
            return {}
        if item.tag != ITEM:
            raise ValueError("damaged: a sequence that is not one")
        end = stop if item.stop is None else item.stop
        elements = self._walk(item.start, end, sequence.explicit)
        return {element.tag: element for element in elements if element.tag in tags}

    def read_fragments(self, pixels: Element) -> bytes:
        """The compressed image: all fragments as one. The table of offsets in front of them is not needed for it.

        Raises:
            ValueError: The fragments are damaged.
        """
        parts: list[bytes] = []
        position = pixels.start
        while True:
            item = self._read_element(position, len(self.content), explicit=True)
            if item.tag == SEQUENCE_END:
                return b"".join(parts[1:])
            if item.tag != ITEM or item.stop is None:
                raise ValueError("damaged: compressed pixels that are not in fragments")
            parts.append(self.content[item.start : item.stop])
            position = item.stop

    def _walk(self, position: int, stop: int, explicit: bool) -> Iterator[Element]:
        """The elements of one data set, those nested in it stepped over."""
        while stop - position >= 8:
            element = self._read_element(position, stop, explicit)
            if element.tag == ITEM_END:
                return
            yield element
            position = self._step_over(element, stop) if element.stop is None else element.stop

    def _step_over(self, sequence: Element, stop: int) -> int:
        """Byte after a sequence that ends with a delimiter; so may the items in it, and the sequences in those."""
        ends = [SEQUENCE_END]
        explicit = [sequence.explicit]
        position = sequence.start
        while ends:
            element = self._read_element(position, stop, explicit[-1])
            if element.tag == ends[-1]:
                ends.pop()
                explicit.pop()
            elif (ends[-1] == SEQUENCE_END) != (element.tag == ITEM):
                raise ValueError("damaged: a sequence that is not one")
            elif element.stop is None:
                ends.append(ITEM_END if element.tag == ITEM else SEQUENCE_END)
                explicit.append(element.explicit)
            position = element.start if element.stop is None else element.stop
        return position

    def _read_element(self, position: int, stop: int, explicit: bool) -> Element:
        self._n_elements += 1
        if self._n_elements > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS} elements")
        head = self.content[position : position + 12]
        if stop - position < 8 or len(head) < 8:
            raise ValueError("damaged: the end is missing")
        group, number = struct.unpack(f"{self.order}HH", head[:4])
        tag, vr, start = group << 16 | number, b"", position + 8
        if group == 0xFFFE:  # items and delimiters never have one
            (length,) = struct.unpack(f"{self.order}I", head[4:8])
            length = 0 if tag in {ITEM_END, SEQUENCE_END} else length
        elif explicit and head[4:6] in LONG_VRS:
            if stop - position < 12 or len(head) < 12:
                raise ValueError("damaged: the end is missing")
            vr, start = head[4:6], position + 12
            (length,) = struct.unpack(f"{self.order}I", head[8:12])
        elif explicit and _is_vr(head[4:6]):
            vr = head[4:6]
            (length,) = struct.unpack(f"{self.order}H", head[6:8])
        else:  # also in files that should say it: some programs leave it out inside of sequences
            (length,) = struct.unpack(f"{self.order}I", head[4:8])
        if length == UNDEFINED:
            # What is of unknown kind and without length is a sequence, whose items do not say it (PS3.5, 6.2.2).
            return Element(tag, vr, start, None, explicit and vr != b"UN")
        if start + length > stop:
            raise ValueError("damaged: the end is missing")
        return Element(tag, vr, start, start + length, explicit)


def _is_vr(letters: bytes) -> bool:
    return letters.isalpha() and letters.isupper()


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
