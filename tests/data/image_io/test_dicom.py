"""DICOM pixels, against pydicom and against the formulas of the standard; and nothing but pixels."""

import contextlib
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicoms import LOSSLESS, PLAIN, SECRET, draw_radiograph, make_dataset, make_dicom, save, set_codestream
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrlit.core.errors import ConfigError
from cxrlit.data.image_io import dicom_codecs as codestreams
from cxrlit.data.image_io.decode import decode_pixels, describe_image
from cxrlit.data.image_io.dicom_header import TAGS, DICOMHeader
from cxrlit.data.image_io.sizes import MAX_SIDE

DEPTHS = [(8, False), (8, True), (10, False), (12, False), (12, True), (14, False), (16, False), (16, True)]


def spread(values: NDArray[Any]) -> NDArray[np.float64]:
    """Smallest to largest value, over 0 to 65535."""
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min()) * 65535


def expect_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        decode_pixels(content)
    assert type(caught.value) is ValueError
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


# Transfer syntaxes


@pytest.mark.parametrize(("n_bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", [*PLAIN, *LOSSLESS], ids=lambda syntax: syntax.name)
def test_lossless_syntaxes_give_the_stored_values(syntax: Any, n_bits: int, signed: bool) -> None:
    stored = draw_radiograph(n_bits=n_bits, signed=signed)
    decoded = decode_pixels(make_dicom(stored, syntax, BitsStored=n_bits))
    if (n_bits, signed) == (8, False):
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, stored)
    else:
        assert decoded.dtype == np.uint16
        np.testing.assert_allclose(decoded, spread(stored), atol=0.5001)


@pytest.mark.parametrize("shape", [(1, 2), (1, 7), (7, 1), (33, 35)])
@pytest.mark.parametrize("syntax", [*PLAIN, *LOSSLESS], ids=lambda syntax: syntax.name)
def test_odd_sizes(syntax: Any, shape: tuple[int, int]) -> None:
    stored = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode_pixels(make_dicom(stored, syntax)), stored)


@pytest.mark.parametrize(
    ("syntax", "n_bits", "encode", "tolerance"),
    [
        (JPEGBaseline8Bit, 8, lambda x: imagecodecs.jpeg8_encode(x, 98), 6),
        (JPEGExtended12Bit, 12, lambda x: imagecodecs.jpeg8_encode(x, 98, bitspersample=12), 90),
        (JPEG2000, 8, lambda x: imagecodecs.jpeg2k_encode(x, 60, codecformat="j2k", reversible=False), 3),
        (JPEG2000, 12, lambda x: imagecodecs.jpeg2k_encode(x, 80, codecformat="j2k", bitspersample=12), 8),
        (JPEG2000, 12, lambda x: imagecodecs.jpeg2k_encode(x, 80, codecformat="jp2", bitspersample=12), 8),
        (JPEGLSNearLossless, 12, lambda x: imagecodecs.jpegls_encode(x, 3), 3),
    ],
)
def test_lossy_syntaxes_come_close(syntax: Any, n_bits: int, encode: Callable[..., Any], tolerance: int) -> None:
    stored = draw_radiograph(n_bits=n_bits)
    window = {"WindowCenter": 2 ** (n_bits - 1), "WindowWidth": 2**n_bits}
    dataset = make_dataset(stored, BitsStored=n_bits, **window)
    exact = decode_pixels(save(dataset)).astype(int)
    dataset.file_meta.TransferSyntaxUID = syntax
    set_codestream(dataset, bytes(encode(stored)))
    scale = 65535 / (2**n_bits - 1)
    differences = np.abs(decode_pixels(save(dataset)).astype(int) - exact)
    assert differences.max() <= tolerance * scale + 1
    assert differences.any() or syntax == JPEG2000


def test_an_image_in_several_fragments_with_and_without_offsets() -> None:
    stored = draw_radiograph()
    dataset = make_dataset(stored, JPEGLosslessSV1, BitsStored=12)
    wanted = decode_pixels(save(dataset))
    codestream = bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=12))
    for offsets in (True, False):
        set_codestream(dataset, codestream[:100], codestream[100:], offsets=offsets)
        np.testing.assert_array_equal(decode_pixels(save(dataset)), wanted)


def test_an_offset_table_of_nonsense_does_not_matter() -> None:
    content = make_dicom(draw_radiograph(), JPEGLSLossless, BitsStored=12)
    table = content.index(b"\xfe\xff\x00\xe0\x04\0\0\0") + 8
    odd = content[:table] + b"\xff\xff\xff\xff" + content[table + 4 :]
    np.testing.assert_array_equal(decode_pixels(odd), decode_pixels(content))


@pytest.mark.parametrize("filler", [b"\0", b"\0\0\0\0", b"\xff"])
def test_what_fills_up_the_last_fragment_does_not_matter(filler: bytes) -> None:
    stored = draw_radiograph(n_bits=8)
    dataset = make_dataset(stored, JPEGLosslessSV1)
    set_codestream(dataset, bytes(imagecodecs.jpeg8_encode(stored, lossless=True)) + filler)
    np.testing.assert_array_equal(decode_pixels(save(dataset)), stored)


# From stored to shown values


def test_a_window_of_the_standard() -> None:
    """The example of PS3.3, C.11.2.1.2.1: centre 2048 and width 4096 are the whole of 12 bits."""
    stored = np.array([[0, 1, 2047, 2048, 4095]], np.uint16)
    decoded = decode_pixels(make_dicom(stored, BitsStored=12, WindowCenter=2048, WindowWidth=4096))
    np.testing.assert_array_equal(decoded, np.rint(stored / 4095 * 65535))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning:pydicom")
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40.5, 400), (100, 1), (-20, 50), (0, 1000)])
@pytest.mark.parametrize("slope", [1, 0.5, -2])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_those_of_pydicom(
    function: str, center: float, width: float, slope: float, photometric: str
) -> None:
    stored = draw_radiograph(n_bits=10)
    intercept = -100 if slope > 0 else 1100
    dataset = make_dataset(
        stored,
        BitsStored=10,
        WindowCenter=[center, 1],
        WindowWidth=[width, 2],
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        PhotometricInterpretation=photometric,
    )
    known = apply_modality_lut(stored, dataset)
    shown = apply_voi_lut(known, dataset)
    ends = [intercept, 1023 * slope + intercept]  # of what the bits can hold: pydicom maps the window onto them
    wanted = (shown - ends[0]) / (ends[1] - ends[0]) * 65535
    if np.ptp(wanted) < 65535 / 255:  # one gray: the window is set aside
        wanted = spread(known)
    decoded = decode_pixels(save(dataset)).astype(float)
    np.testing.assert_allclose(65535 - decoded if photometric == "MONOCHROME1" else decoded, wanted, atol=1)


@pytest.mark.filterwarnings("error")
def test_a_window_of_one_value() -> None:
    """A step: black up to half a value below its centre."""
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    decoded = decode_pixels(make_dicom(stored, WindowCenter=1.5, WindowWidth=1))
    np.testing.assert_array_equal(decoded, [[0, 0, 65535, 65535]])


@pytest.mark.filterwarnings("error")
def test_without_a_window_the_values_of_the_image_are_spread() -> None:
    stored = np.array([[100, 200, 300]], np.uint16)
    np.testing.assert_array_equal(decode_pixels(make_dicom(stored)), [[0, 32768, 65535]])
    turned = decode_pixels(make_dicom(stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(turned, [[65535, 32768, 0]])
    falling = decode_pixels(make_dicom(stored, RescaleSlope=-1, RescaleIntercept=0))
    np.testing.assert_array_equal(falling, [[65535, 32768, 0]])


def test_8_bits_stay_as_they_are_unless_the_file_says_more() -> None:
    stored = np.array([[10, 20, 30]], np.uint8)
    for attributes in ({}, {"RescaleSlope": 1, "RescaleIntercept": 0}, {"WindowCenter": None}):
        decoded = decode_pixels(make_dicom(stored, **attributes))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, stored)
    inverted = decode_pixels(make_dicom(stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, 255 - stored)
    np.testing.assert_array_equal(
        decode_pixels(make_dicom(stored, RescaleSlope=2, RescaleIntercept=0))[0, [0, 2]], [0, 65535]
    )
    wide = decode_pixels(make_dicom(stored.astype(np.uint16), BitsStored=8))
    assert wide.dtype == np.uint8
    np.testing.assert_array_equal(wide, stored)


def test_bits_above_the_stored_ones_do_not_count() -> None:
    stored = draw_radiograph(n_bits=12)
    overlay = stored | np.random.default_rng(0).integers(0, 16, stored.shape, dtype=np.uint16) << 12
    np.testing.assert_array_equal(
        decode_pixels(make_dicom(overlay, BitsStored=12)), decode_pixels(make_dicom(stored, BitsStored=12))
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("dtype", "kind", "low"), [(np.uint16, "US", 0), (np.int16, "SS", -2000)])
def test_padding_is_black_and_not_part_of_the_range(photometric: str, dtype: Any, kind: str, low: int) -> None:
    dataset = make_dataset(np.array([[low, 100, 150, 200, low + 3]], dtype), PhotometricInterpretation=photometric)
    dataset.add_new(0x0028_0120, kind, low)
    inverted = photometric == "MONOCHROME1"
    one = decode_pixels(save(dataset))[0]
    assert one[0] == 0
    assert (one[4], one[3]) == ((65535, 0) if inverted else (0, 65535))
    dataset.add_new(0x0028_0121, kind, low + 5)  # up to here it is padding now
    np.testing.assert_array_equal(
        decode_pixels(save(dataset)), [[0, 65535 * inverted, 32768, 65535 * (not inverted), 0]]
    )


def make_lookup(entries: list[int], first: int, n_bits: int, signed: bool = False, packed: bool = False) -> Sequence:
    item = Dataset()
    item.add_new(0x0028_3002, "SS" if signed else "US", [len(entries) % 2**16, first, n_bits])
    item.add_new(0x0028_3006, "OW", np.array(entries, np.uint8 if packed else "<u2").tobytes())
    return Sequence([item])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_voi_lut_comes_before_a_window(syntax: Any, undefined_length: bool) -> None:
    stored = np.array([[0, 9, 10, 11, 12, 13, 14, 4000]], np.uint16)
    entries = [0, 100, 300, 1023]
    dataset = make_dataset(stored, syntax, BitsStored=12, WindowCenter=1, WindowWidth=1)
    dataset.VOILUTSequence = make_lookup(entries, 10, 10)
    dataset["VOILUTSequence"].is_undefined_length = undefined_length
    dataset.VOILUTSequence[0].is_undefined_length_sequence_item = undefined_length
    wanted = apply_voi_lut(stored, dataset) / 1023 * 65535
    np.testing.assert_array_equal(wanted[0, [0, 2, 5, 7]], [0, 0, 65535, 65535])
    np.testing.assert_allclose(decode_pixels(save(dataset)), wanted, atol=0.5001)


@pytest.mark.parametrize("packed", [False, True])
def test_a_modality_lut_comes_before_rescale_and_window(packed: bool) -> None:
    stored = np.array([[0, 1, 2, 3, 4, 5]], np.uint8)
    dataset = make_dataset(stored, RescaleSlope=100, RescaleIntercept=7, WindowCenter=128, WindowWidth=256)
    dataset.ModalityLUTSequence = make_lookup([255, 10, 20, 200], 1, 8, packed=packed)
    wanted = np.array([[255, 255, 10, 20, 200, 200]]) / 255 * 65535
    np.testing.assert_allclose(decode_pixels(save(dataset)), wanted, atol=0.5001)


def test_a_lookup_table_of_signed_values() -> None:
    stored = np.array([[-30, -20, -19, -18, 30]], np.int16)
    dataset = make_dataset(stored)
    dataset.VOILUTSequence = make_lookup([5, 6, 255], -20, 8, signed=True)
    np.testing.assert_array_equal(decode_pixels(save(dataset)), np.array([[5, 5, 6, 255, 255]]) * 257)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined_length", [False, True])
def test_the_first_of_several_lookup_tables_counts(syntax: Any, undefined_length: bool) -> None:
    dataset = make_dataset(np.array([[0, 1]], np.uint16), syntax)
    dataset.VOILUTSequence = [*make_lookup([0, 255], 0, 8), *make_lookup([255, 0], 0, 8)]
    dataset["VOILUTSequence"].is_undefined_length = undefined_length
    for item in dataset.VOILUTSequence:
        item.is_undefined_length_sequence_item = undefined_length
    np.testing.assert_array_equal(decode_pixels(save(dataset)), [[0, 65535]])


def test_values_between_two_entries_take_the_nearer_one() -> None:
    dataset = make_dataset(np.array([[0, 1, 2, 3]], np.uint16), RescaleSlope=0.7, RescaleIntercept=0)
    dataset.VOILUTSequence = make_lookup([10, 20, 255], 0, 8)
    np.testing.assert_array_equal(decode_pixels(save(dataset)), np.array([[10, 20, 20, 255]]) * 257)


def test_a_lookup_table_of_all_values() -> None:
    """65536 entries are written as 0."""
    stored = np.array([[0, 7, 65535]], np.uint16)
    dataset = make_dataset(stored)
    dataset.VOILUTSequence = make_lookup(list(range(65535, -1, -1)), 0, 16)
    assert dataset.VOILUTSequence[0].LUTDescriptor[0] == 0
    np.testing.assert_array_equal(decode_pixels(save(dataset)), 65535 - stored)


def test_empty_elements_say_nothing() -> None:
    stored = draw_radiograph(n_bits=12)
    wanted = decode_pixels(make_dicom(stored, BitsStored=12))
    empty = {"WindowCenter": "", "WindowWidth": "", "RescaleSlope": "", "RescaleIntercept": "", "VOILUTSequence": []}
    np.testing.assert_array_equal(decode_pixels(make_dicom(stored, BitsStored=12, **empty, NumberOfFrames="")), wanted)


# What is refused

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "several frames": ({"NumberOfFrames": 2}, "several frames"),
    "frames that are no number": ({"NumberOfFrames": 0}, "several frames"),
    "one channel of three": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "fewer pixels than its"),
    "several samples": ({"SamplesPerPixel": 3}, "neither gray"),
    "colour of one sample": ({"PhotometricInterpretation": "RGB"}, "neither gray"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "a look-up table without entries"),
    "no kind of pixels": ({"PhotometricInterpretation": None}, "neither gray"),
    "rows beyond the data": ({"Rows": 400}, "fewer pixels than its header says"),
    "too many rows": ({"Rows": MAX_SIDE + 1}, f"{MAX_SIDE + 1} pixels are too many"),
    "too many columns": ({"Columns": 50_000}, "50000 x 40 pixels are too many"),
    "no rows": ({"Rows": 0}, "an image without pixels"),
    "rows missing": ({"Rows": None}, "damaged"),
    "32 bits": ({"BitsAllocated": 32}, "8 to 16 bits"),
    "12 bits without gaps": ({"BitsAllocated": 12, "BitsStored": 12}, "8 to 16 bits"),
    "more bits than there is room for": ({"BitsStored": 17}, "8 to 16 bits"),
    "upper bits": ({"BitsStored": 12, "HighBit": 15}, "upper bits"),
    "unknown function": ({"WindowCenter": 1, "WindowWidth": 5, "VOILUTFunction": SECRET}, "unknown function"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_with_a_reason(kind: str) -> None:
    attributes, reason = REFUSED[kind]
    expect_refused(make_dicom(draw_radiograph(n_bits=16), **attributes), reason)


@pytest.mark.parametrize("text", [b"nan   ", b"inf   ", b"1e300 ", b"SECRET", b"1,5   "])
def test_numbers_that_are_none_are_refused(text: bytes) -> None:
    content = make_dicom(draw_radiograph(), RescaleSlope="1234.5", RescaleIntercept="0")
    expect_refused(content.replace(b"1234.5", text), "damaged: a number")


def test_no_pixels() -> None:
    dataset = make_dataset(draw_radiograph())
    del dataset.PixelData
    expect_refused(save(dataset), "DICOM without pixels")


@pytest.mark.parametrize("name", ["1.2.840.10008.1.2.4.100", "1.2.3.4", SECRET])
def test_other_transfer_syntaxes_are_refused_without_naming_them(name: str) -> None:
    content = make_dicom(draw_radiograph(), "1.2.840.10008.1.2.1")
    place = content.index(b"1.2.840.10008.1.2.1\0")
    odd = content[:place] + name.encode().ljust(20, b"\0")[:20] + content[place + 20 :]
    expect_refused(odd, "transfer syntax that is not supported")


def split_header(content: bytes) -> tuple[bytes, bytes]:
    """The file's own header, with its length in the first element; and the data set."""
    length = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:length], content[length:]


def test_a_deflate_bomb_is_refused() -> None:
    header, packed = split_header(make_dicom(draw_radiograph(), DeflatedExplicitVRLittleEndian))
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(stream.compress(bytes(2**24)) for _ in range(13)) + stream.flush()
    assert len(bomb) < 2**20
    expect_refused(header + bomb, "deflated, and more than")
    for length in (len(packed) // 2, len(packed.rstrip(b"\0")) - 1):
        expect_refused(header + packed[:length], "damaged: the end is missing")
    expect_refused(header + b"\xff" * 100, "damaged")


def test_a_length_beyond_the_end_of_the_file_is_refused() -> None:
    content = make_dicom(draw_radiograph())
    start = content.index(b"\xe0\x7f\x10\0OW\0\0") + 8
    longer = int.from_bytes(content[start : start + 4], "little") + 100
    expect_refused(content[:start] + longer.to_bytes(4, "little") + content[start + 4 :], "damaged: the end is missing")


def test_elements_that_are_explicit_where_the_file_says_implicit() -> None:
    content = make_dicom(draw_radiograph(), ExplicitVRLittleEndian)
    odd = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    assert odd != content
    np.testing.assert_array_equal(decode_pixels(odd), decode_pixels(content))


def resize_jpeg(codestream: bytes, marker: int, side: int) -> bytes:
    place = codestream.index(bytes([0xFF, marker])) + 5
    return codestream[:place] + side.to_bytes(2, "big") * 2 + codestream[place + 4 :]


def resize_jpeg_2000(codestream: bytes, side: int, tile: int | None = None) -> bytes:
    sides, tiles = (pixels.to_bytes(4, "big") * 2 for pixels in (side, tile or side))
    return codestream[:8] + sides + codestream[16:24] + tiles + codestream[32:]


def move_jpeg_2000(codestream: bytes, by: int) -> bytes:
    """The same size, at another place of the reference grid."""
    corners = [value + by for value in struct.unpack(">4I", codestream[8:24])]
    return codestream[:8] + struct.pack(">4I", *corners) + codestream[24:]


def set_precincts(codestream: bytes, exponents: int) -> bytes:
    place = codestream.index(b"\xff\x52")
    stop = place + 2 + int.from_bytes(codestream[place + 2 : place + 4], "big")
    settings = bytearray(codestream[place:stop])
    settings[4] |= 1
    settings += bytes([exponents]) * (settings[9] + 1)
    settings[2:4] = (len(settings) - 2).to_bytes(2, "big")
    return codestream[:place] + bytes(settings) + codestream[stop:]


def repeat_settings(codestream: bytes) -> bytes:
    """The settings of the image once more, in the header of its tile."""
    start, place = codestream.index(b"\xff\x52"), codestream.index(b"\xff\x93")
    settings = codestream[start : start + 2 + int.from_bytes(codestream[start + 2 : start + 4], "big")]
    return codestream[:place] + settings + codestream[place:]


def make_rle(header: list[int], segments: bytes) -> bytes:
    return np.array(header + [0] * (16 - len(header)), "<u4").tobytes() + segments


def turn_back(codestream: bytes) -> bytes:
    """A tile whose pixels begin after its end: who goes on at its end comes back for ever."""
    place = codestream.index(b"\xff\x90")
    tile = codestream[place : place + 6] + (12).to_bytes(4, "big") + codestream[place + 10 : place + 12]
    return codestream[:place] + tile + b"\xff\x64\0\4\0\1" + codestream[place + 12 :]


def encode(kind: str) -> bytes:
    stored = draw_radiograph()
    return {
        "jpeg": lambda: bytes(imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=12)),
        "jpeg_ls": lambda: bytes(imagecodecs.jpegls_encode(stored)),
        "jpeg_2000": lambda: bytes(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", bitspersample=12)),
    }[kind]()


def encode_colour(kind: str) -> bytes:
    pixels = np.zeros((40, 56, 3), np.uint8)
    pixels[:20, :, 1] = 200
    return bytes(
        imagecodecs.jpeg8_encode(pixels) if kind == "jpeg" else imagecodecs.jpeg2k_encode(pixels, codecformat="j2k")
    )


CODESTREAMS: dict[str, tuple[Any, Callable[[], bytes], str]] = {
    "JPEG bomb": (JPEGLosslessSV1, lambda: resize_jpeg(encode("jpeg"), 0xC3, 50_000), "too many"),
    "JPEG of another size": (JPEGLosslessSV1, lambda: resize_jpeg(encode("jpeg"), 0xC3, 50), "another size"),
    "JPEG cut": (JPEGLosslessSV1, lambda: encode("jpeg")[:1000], "end is missing"),
    "JPEG without header": (JPEGLosslessSV1, lambda: b"\xff\xd8\xff\xd9", "damaged"),
    "JPEG in colour": (JPEGBaseline8Bit, lambda: encode_colour("jpeg"), "colour"),
    "JPEG-LS in JPEG": (JPEGLosslessSV1, lambda: encode("jpeg_ls"), "not what the transfer syntax says"),
    "JPEG-LS bomb": (JPEGLSLossless, lambda: resize_jpeg(encode("jpeg_ls"), 0xF7, 50_000), "too many"),
    "JPEG-LS cut": (JPEGLSLossless, lambda: encode("jpeg_ls")[:-400] + b"\xff\xd9", "cannot be decoded"),
    "JPEG 2000 bomb": (JPEG2000, lambda: resize_jpeg_2000(encode("jpeg_2000"), 50_000), "too many"),
    "JPEG 2000 of another size": (JPEG2000, lambda: resize_jpeg_2000(encode("jpeg_2000"), 50), "another size"),
    "JPEG 2000 cut": (JPEG2000, lambda: encode("jpeg_2000")[:1000], "damaged"),
    "JPEG 2000 in colour": (JPEG2000, lambda: encode_colour("jpeg_2000"), "colour"),
    "JPEG 2000 of precincts": (JPEG2000, lambda: set_precincts(encode("jpeg_2000"), 0x11), "precincts"),
    "JPEG 2000 of low precincts": (JPEG2000, lambda: set_precincts(encode("jpeg_2000"), 0x17), "precincts"),
    "JPEG 2000 of narrow precincts": (JPEG2000, lambda: set_precincts(encode("jpeg_2000"), 0x71), "precincts"),
    "JPEG 2000 of tiles": (JPEG2000, lambda: resize_jpeg_2000(encode("jpeg_2000"), 4000, tile=1), "tiles"),
    "JPEG 2000 far off": (JPEG2000, lambda: move_jpeg_2000(encode("jpeg_2000"), 2**31), "too many"),
    "JPEG 2000 of nothing": (JPEG2000, lambda: resize_jpeg_2000(encode("jpeg_2000"), 0), "without pixels"),
    "JPEG 2000 with settings for a part": (
        JPEG2000,
        lambda: encode("jpeg_2000").replace(b"\xff\x90", b"\xff\x53\0\x0a" + bytes(8) + b"\xff\x90", 1),
        "settings of its own",
    ),
    "JPEG 2000 with settings for a tile": (
        JPEG2000,
        lambda: repeat_settings(encode("jpeg_2000")),
        "settings of its own",
    ),
    "JPEG 2000 of itself": (JPEG2000, lambda: turn_back(encode("jpeg_2000")), "a header that no JPEG 2000 image has"),
    "JPEG 2000 of pixels first": (
        JPEG2000,
        lambda: encode("jpeg_2000").replace(b"\xff\x52", b"\xff\x93", 1),
        "a header that no JPEG 2000 image has",
    ),
    "JPEG in JPEG 2000": (JPEG2000, lambda: encode("jpeg"), "not what the transfer syntax says"),
    "RLE of zeros": (RLELossless, lambda: bytes(1000), "not what the transfer syntax says"),
    "RLE bomb": (RLELossless, lambda: make_rle([2, 64, 64 + 200_000], b"\x81\0" * 200_000), "cannot be decoded"),
    "RLE of other bytes": (RLELossless, lambda: make_rle([3, 64, 64 + 40], b"\x81\0" * 40), "not what the transfer"),
    "RLE backwards": (RLELossless, lambda: make_rle([2, 64 + 40, 64], b"\x81\0" * 40), "not what the transfer syntax"),
    "RLE of its header": (RLELossless, lambda: make_rle([2, 0, 64], b"\x81\0" * 40), "not what the transfer syntax"),
    "RLE with too few pixels": (RLELossless, lambda: make_rle([2, 64, 66], b"\x81\0" * 2), "fewer pixels than"),
    "nothing": (JPEG2000, lambda: bytes(2), "damaged"),
}


@pytest.mark.parametrize("kind", CODESTREAMS)
def test_codestreams_that_lie_are_refused(kind: str) -> None:
    syntax, make, reason = CODESTREAMS[kind]
    dataset = make_dataset(draw_radiograph(), BitsStored=12)
    dataset.file_meta.TransferSyntaxUID = syntax
    set_codestream(dataset, make())
    expect_refused(save(dataset), reason)


def test_pixels_that_are_compressed_or_not_against_the_syntax_are_refused() -> None:
    plain, packed = (make_dicom(draw_radiograph(), syntax) for syntax in (ExplicitVRLittleEndian, JPEGLSLossless))
    names = [name.encode() for name in (ExplicitVRLittleEndian, JPEGLSLossless)]
    for content, old, new in ((plain, *names), (packed, *reversed(names))):
        header, elements = split_header(content)
        place = header.index(old)
        size = int.from_bytes(header[place - 2 : place], "little")
        change = len(new) + len(new) % 2 - size
        odd = header[: place - 2] + (size + change).to_bytes(2, "little") + new.ljust(size + change, b"\0")
        expect_refused(odd + header[place + size :] + elements, "not what the transfer syntax says")


def test_decoders_give_unsigned_values() -> None:
    stored = draw_radiograph(n_bits=16, signed=True)
    content = bytes(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True))
    decoded = codestreams.decode(codestreams.read_codestream(content, "jpeg_2000"), "jpeg_2000")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded.view(np.int16), stored)


def test_precincts_of_a_usual_size_are_fine() -> None:
    stored = draw_radiograph()
    dataset = make_dataset(stored, BitsStored=12)
    wanted = decode_pixels(save(dataset))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    set_codestream(dataset, set_precincts(encode("jpeg_2000"), 0x77))
    np.testing.assert_array_equal(decode_pixels(save(dataset)), wanted)


@pytest.mark.parametrize("length", [0, 4, 8, 200])
def test_compressed_pixels_that_are_cut_off(length: int) -> None:
    content = make_dicom(draw_radiograph(), JPEGLosslessSV1, BitsStored=12)
    start = content.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 12
    expect_refused(content[: start + length], "damaged")


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_a_file_is_cut_off_where_nothing_says_that_the_pixels_end(syntax: Any) -> None:
    expect_refused(make_dicom(draw_radiograph(), syntax, BitsStored=12)[:-8], "damaged: the end is missing")


def nest(depth: int, undefined: bool) -> bytes:
    """Sequences in sequences, implicit."""
    if undefined:
        opening = b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        return opening * depth + (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth
    inner = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = b"\x08\0\x40\x11" + len(item).to_bytes(4, "little") + item
    return inner


def test_deep_sequences_are_stepped_over() -> None:
    content = make_dicom(draw_radiograph(), ImplicitVRLittleEndian)
    header, elements = split_header(content)
    for depth, undefined in ((10_000, False), (50, True)):
        nested = header + nest(depth, undefined) + elements
        np.testing.assert_array_equal(decode_pixels(nested), decode_pixels(content))
    expect_refused(header + nest(10_000, undefined=True) + elements, "damaged: its elements cannot be read")


def test_a_sequence_of_unknown_kind_is_implicit() -> None:
    """PS3.5, 6.2.2: its elements have no representation."""
    header, elements = split_header(make_dicom(draw_radiograph(), ExplicitVRLittleEndian))
    inner = b"\x09\0\x02\x10" + b"\4\0\0\0" + bytes(4)
    items = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    np.testing.assert_array_equal(decode_pixels(header + unknown + elements), decode_pixels(header + elements))


def test_a_sequence_without_items_does_not_matter() -> None:
    header, elements = split_header(make_dicom(draw_radiograph(), ImplicitVRLittleEndian))
    odd = b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\x08\0\x41\x11\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    np.testing.assert_array_equal(decode_pixels(header + odd + elements), decode_pixels(header + elements))


def test_endless_elements_are_refused() -> None:
    header, elements = split_header(make_dicom(draw_radiograph(), ImplicitVRLittleEndian))
    reason = "damaged: more elements than any image has"
    expect_refused(header + b"\x08\0\x40\x11\0\0\0\0" * 50_001 + elements, reason)
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 50_001 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    expect_refused(header + b"\x08\0\x40\x11\xff\xff\xff\xff" + items + elements, reason)


def test_nested_elements_are_not_those_of_the_image() -> None:
    """An icon in the file has rows and columns too, and pixels."""
    stored = draw_radiograph()
    dataset = make_dataset(stored)
    wanted = decode_pixels(save(dataset))
    icon = make_dataset(draw_radiograph(8, 8, 8))
    del icon.file_meta
    for undefined in (False, True):
        dataset.IconImageSequence = Sequence([icon])
        dataset["IconImageSequence"].is_undefined_length = undefined
        dataset.IconImageSequence[0].is_undefined_length_sequence_item = undefined
        np.testing.assert_array_equal(decode_pixels(save(dataset)), wanted)


# Nothing but pixels


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_every_place_of_a_flipped_byte_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """No warning, no output, no name of a patient in a reason, whatever byte of the header is wrong."""
    stored = draw_radiograph(8, 8)
    errors: list[ValueError] = []
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless):
        content = make_dicom(
            stored, syntax, BitsStored=12, WindowCenter="40", WindowWidth="400", InstitutionAddress=SECRET
        )
        rng = np.random.default_rng(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for place in range(132, len(content)):
                odd = bytearray(content)
                odd[place] = rng.integers(0, 256)
                try:
                    decode_pixels(bytes(odd))
                except ValueError as error:
                    errors.append(error)
    assert len(errors) > 200
    assert {type(error) for error in errors} == {ValueError}
    assert not [error for error in errors if "SECRET" in str(error) or "NAME" in str(error)]
    assert capfd.readouterr() == ("", "")


def test_no_object_holds_a_value_of_another_element() -> None:
    header = DICOMHeader(make_dicom(draw_radiograph(), WindowCenter="40", SpecificCharacterSet="ISO_IR 100"))
    assert 0x0028_1050 in header._elements
    assert set(header._elements.keys()) <= {*TAGS, 0x0008_0005}


@pytest.mark.filterwarnings("ignore:::pydicom")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_pydicom_says_nothing_of_a_file(syntax: str, caplog: pytest.LogCaptureFixture) -> None:
    """It quotes an unknown character set, and more, in warnings and in its log."""
    content = make_dicom(draw_radiograph(), syntax, BitsStored=12, SpecificCharacterSet=SECRET)
    odd = content.replace(syntax.encode(), syntax.encode()[:-2] + b"\0\0", 1)  # damaged, or another one
    with warnings.catch_warnings(record=True) as heard, caplog.at_level(0):
        warnings.simplefilter("always")
        caplog.clear()
        for _ in range(2):
            for one in (content, odd):
                with contextlib.suppress(ValueError):
                    decode_pixels(one)
    assert ([str(warning.message) for warning in heard], caplog.text) == ([], "")


def test_compressed_images_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = draw_radiograph(n_bits=8)
    contents = [make_dicom(stored, syntax) for syntax in LOSSLESS]
    monkeypatch.setitem(sys.modules, "imagecodecs", None)  # what an import finds that is not there
    np.testing.assert_array_equal(decode_pixels(make_dicom(stored)), stored)
    for content in contents:
        with pytest.raises(ConfigError, match=r"pip install 'cxrlit\[dicom\]'"):
            decode_pixels(content)
        assert describe_image(content)[2] == "DICOM MONOCHROME2 8 bit"


def test_describe_reads_headers_alone() -> None:
    stored = draw_radiograph(30, 20)
    dataset = make_dataset(stored, JPEG2000Lossless, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    set_codestream(dataset, b"no codestream")
    assert describe_image(save(dataset)) == (20, 30, "DICOM MONOCHROME1 12 bit")


def test_many_threads_give_the_same_pixels() -> None:
    contents = [
        make_dicom(draw_radiograph(n_bits=12, seed=seed), syntax, BitsStored=12)
        for seed in range(4)
        for syntax in [*PLAIN, *LOSSLESS]
    ]
    wanted = [decode_pixels(content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for decoded, alone in zip(pool.map(decode_pixels, contents), wanted, strict=True):
                np.testing.assert_array_equal(decoded, alone)
