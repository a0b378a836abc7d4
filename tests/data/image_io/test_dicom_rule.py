"""DICOM files as they are out there: what pydicom's makers collected, and tags that contradict the pixels."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pydicom.data
import pydicom.pixels
import pytest
from dicoms import SECRET, draw_radiograph, make_dataset, make_dicom, save, set_codestream
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrlit.data.image_io.decode import decode_image, decode_pixels, read_view

FOLDER = Path(pydicom.data.__file__).parent / "test_files"
FILES = [pytest.param(path, id=path.name) for path in sorted(FOLDER.rglob("*")) if path.is_file()]
if (more := importlib.util.find_spec("data_store")) is not None:  # the package pydicom-data
    paths = sorted((Path(str(more.origin)).parent / "data").rglob("*.dcm"))
    FILES += [pytest.param(path, id=path.name, marks=pytest.mark.slow) for path in paths]
DAMAGED = {
    "MR_truncated.dcm",  # cut off
    "JPEG2000-embedded-sequence-delimiter.dcm",  # no codestream of an image
}


def spread(values: NDArray[Any]) -> NDArray[np.float64]:
    """Smallest to largest value, over 0 to 65535."""
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min()) * 65535


def read_gray(path: Path) -> NDArray[np.float64] | None:
    """The luminance of an image in three channels, by pydicom; None where it has colour, or pydicom cannot read it."""
    try:
        channels = pydicom.pixels.pixel_array(path, index=0, force=True).astype(np.float64)
    except Exception:
        return None
    if channels.ndim != 3 or channels.shape[2] != 3 or np.ptp(channels, axis=2).mean() > 2 * channels.max() / 255:
        return None
    luminance: NDArray[np.float64] = channels @ [0.299, 0.587, 0.114]
    return luminance


def is_usable(path: Path) -> bool:
    """Whether a file has one gray image of at most 16 bits, by pydicom."""
    try:
        dataset = pydicom.dcmread(path, force=True)
    except Exception:
        return False
    return (
        "PixelData" in dataset
        and dataset.get("PhotometricInterpretation", "").startswith("MONOCHROME")
        and dataset.get("NumberOfFrames", 1) in {1, None}
        and dataset.BitsAllocated in {8, 16}
        and path.name not in DAMAGED
    )


@pytest.mark.parametrize("path", FILES)
@pytest.mark.filterwarnings("ignore:::pydicom")
def test_the_files_that_pydicom_is_tested_with(path: Path) -> None:
    """The pixels are pydicom's, within 1 in 65535, or there is a reason."""
    content = path.read_bytes()
    try:
        decoded, _, read_otherwise = decode_image(content)
    except ValueError:
        decoded, read_otherwise = None, []
    if decoded is not None and any(text.startswith("gray saved as") for text in read_otherwise):
        grays = read_gray(path)
        assert grays is not None
        np.testing.assert_allclose(decoded, grays if decoded.dtype == np.uint8 else spread(grays), atol=3)
        return
    assert is_usable(path) == (decoded is not None)
    if decoded is None:
        return
    dataset = pydicom.dcmread(path, force=True)
    try:
        stored = dataset.pixel_array
    except (RuntimeError, AttributeError, NotImplementedError):  # pydicom alone lacks some decoders
        return
    known = apply_modality_lut(stored, dataset)
    if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
        shown = apply_voi_lut(known, dataset)
        low, high = apply_voi_lut(np.array([[-1e9, 1e9]]), dataset)[0]
        wanted = (shown - low) / (high - low) * 65535
        if any(text.endswith("set aside") for text in read_otherwise):
            wanted = spread(known)
    else:
        wanted = known if decoded.dtype == np.uint8 else spread(known)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        wanted = 65535 - wanted
    np.testing.assert_allclose(decoded, wanted, atol=1)


# The pixels are believed over the tags


def encode_j2k(values: NDArray[Any], n_bits: int) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, bitspersample=n_bits))


def compress(codestream: bytes, syntax: str, stored: NDArray[Any], **attributes: Any) -> bytes:
    """A file of one codestream and of tags that know nothing of it."""
    dataset = make_dataset(stored, **attributes)
    dataset.file_meta.TransferSyntaxUID = syntax
    set_codestream(dataset, codestream)
    return save(dataset)


UNSIGNED, SIGNED = draw_radiograph(), draw_radiograph(signed=True)
OVERLAID = UNSIGNED | (np.arange(UNSIGNED.shape[1]) % 2 << 13).astype(np.uint16)
CODESTREAMS: dict[str, tuple[NDArray[Any], Callable[[], bytes], str, dict[str, Any]]] = {
    "more bits than are stored": (
        draw_radiograph(n_bits=16), lambda: encode_j2k(draw_radiograph(n_bits=16), 16), JPEG2000Lossless,
        {"BitsStored": 12},
    ),
    "fewer bits than are stored, of signed values without a sign": (
        SIGNED, lambda: encode_j2k((SIGNED & 4095).astype(np.uint16), 12), JPEG2000Lossless,
        {"BitsStored": 16, "PixelRepresentation": 1},
    ),
    "a sign that is none": (
        UNSIGNED, lambda: encode_j2k((UNSIGNED << 4).view(np.int16) >> 4, 12), JPEG2000Lossless, {"BitsStored": 12},
    ),
    "more bits than are allocated": (
        UNSIGNED, lambda: bytes(imagecodecs.jpegls_encode(UNSIGNED)), JPEGLSLossless,
        {"BitsStored": 8, "BitsAllocated": 8},
    ),
    "words of a lossless JPEG with something above the bits": (
        UNSIGNED, lambda: bytes(imagecodecs.jpeg8_encode(OVERLAID, lossless=True, bitspersample=16)),
        JPEGLosslessSV1, {"BitsStored": 12},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CODESTREAMS)
def test_a_codestream_is_believed(kind: str) -> None:
    stored, encode, syntax, tags = CODESTREAMS[kind]
    content = compress(encode(), syntax, stored.astype(np.uint16), **tags)
    np.testing.assert_allclose(decode_pixels(content), spread(stored), atol=0.5001)


def test_lossy_values_beyond_the_stored_bits_do_not_begin_anew() -> None:
    stored = np.where(draw_radiograph(n_bits=10) > 500, 1023, 0).astype(np.uint16)  # an edge, which overshoots
    content = bytes(imagecodecs.jpeg8_encode(stored, 60, bitspersample=12))
    assert imagecodecs.jpeg8_decode(content).max() > 1023
    decoded = decode_pixels(compress(content, JPEGExtended12Bit, stored, BitsStored=10))
    assert np.corrcoef(decoded.ravel(), stored.ravel())[0, 1] > 0.98


STORED = np.array([[0, 1, 2, 3, 9]], np.uint16)


def show(stored: NDArray[Any] = STORED, lookup: tuple[list[int], bytes] | None = None, **attributes: Any) -> list[int]:
    """The first row of what a file looks like, with a VOI LUT of a descriptor and entries."""
    dataset = make_dataset(stored, **attributes)
    if lookup is not None:
        item = Dataset()
        item.add_new(0x0028_3002, "US", lookup[0])
        item.add_new(0x0028_3006, "OW", lookup[1])
        dataset.VOILUTSequence = Sequence([item])
    row: list[int] = decode_pixels(save(dataset))[0].tolist()
    return row


def to_words(*entries: int) -> bytes:
    return np.array(entries, "<u2").tobytes()


RANGE = np.rint(spread(STORED))[0].astype(int).tolist()
LOOKED_UP = [0, 6554, 32768, 65535, 65535]


@pytest.mark.parametrize(
    ("descriptor", "entries", "wanted"),
    [
        ([4, 0, 16], to_words(0, 100, 500, 1000), LOOKED_UP),  # 16 bits are said, 10 are used
        ([4, 0, 8], to_words(0, 100, 500, 1000), LOOKED_UP),
        ([4, 0, 77], to_words(0, 100, 500, 1000), LOOKED_UP),
        ([400, 0, 16], to_words(0, 100, 500, 1000), LOOKED_UP),  # more entries are said than there are
        ([2, 0, 16], to_words(0, 100, 500, 1000), LOOKED_UP),
        ([3, 1, 8], bytes([0, 51, 255, 0]), [0, 0, 13107, 65535, 65535]),  # an odd number of bytes, filled up
        ([4, 0, 16], to_words(7, 7, 7, 7), RANGE),
        ([4, 0, 16], to_words(0, 0, 0, 0), RANGE),
        ([4, 60_000, 16], to_words(0, 100, 500, 1000), RANGE),  # of values that the image has not
    ],
)
def test_the_entries_of_a_lookup_table_are_believed(descriptor: list[int], entries: bytes, wanted: list[int]) -> None:
    assert show(lookup=(descriptor, entries)) == wanted


def test_without_a_usable_lookup_table_the_window_counts() -> None:
    assert show(lookup=([2, 0, 16], to_words(5, 5)), WindowCenter=2, WindowWidth=3) == [0, 16384, 49151, 65535, 65535]


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, RANGE),
        ({"RescaleSlope": 0, "RescaleIntercept": 5, "WindowCenter": 2, "WindowWidth": 3}, RANGE),
        ({"WindowCenter": 900, "WindowWidth": 100}, RANGE),
        ({"WindowCenter": -900, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}, RANGE),
        ({"WindowCenter": 1, "WindowWidth": 0}, RANGE),
        ({"WindowCenter": 1, "WindowWidth": -5}, RANGE),
        ({"WindowCenter": 2, "WindowWidth": 0.5}, [0, 0, 32768, 65535, 65535]),
    ],
)
def test_what_leaves_one_gray_is_set_aside(attributes: dict[str, Any], wanted: list[int]) -> None:
    assert show(**attributes) == wanted


CHEST = np.rint(np.linspace(100, 3900, 4000)).reshape(50, 80).astype(np.uint16)
MARKED = CHEST * 3 // 4
MARKED[0, 0] = 4095
SET_ASIDE = "a window that does not show the image, set aside"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("stored", "center", "width"),
    [(CHEST, 127, 255), (CHEST, 4000, 50), (CHEST, 3_000_000, 5_999_999), (MARKED, 4090, 20), (MARKED, 4095, 2)],
)
def test_a_window_that_misses_the_pixels_is_set_aside(
    stored: NDArray[np.uint16], center: float, width: float, photometric: str
) -> None:
    """One pixel that it shows does not help."""
    tags: dict[str, Any] = {"BitsStored": 12, "PhotometricInterpretation": photometric}
    content = make_dicom(stored, WindowCenter=center, WindowWidth=width, **tags)
    decoded = decode_image(content)
    wanted = spread(stored)
    np.testing.assert_allclose(decoded.pixels, 65535 - wanted if photometric == "MONOCHROME1" else wanted, atol=1)
    assert decoded.read_otherwise == [SET_ASIDE]
    following = make_dicom(stored, WindowCenter=[center, 2048], WindowWidth=[width, 1000], **tags)
    only = make_dicom(stored, WindowCenter=2048, WindowWidth=1000, **tags)
    np.testing.assert_array_equal(decode_pixels(following), decode_pixels(only))


@pytest.mark.parametrize(("center", "width"), [(400, 600), (3600, 500), (2000, 50), (2000, 4096)])
def test_a_narrow_window_stays(center: float, width: float) -> None:
    decoded = decode_image(make_dicom(CHEST, BitsStored=12, WindowCenter=center, WindowWidth=width))
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    np.testing.assert_allclose(decoded.pixels, np.clip((CHEST - low) / (high - low), 0, 1) * 65535, atol=1)
    assert decoded.read_otherwise == []


def test_a_window_is_not_to_blame_for_what_is_black() -> None:
    """Shutters over most of the image."""
    stored = CHEST.copy()
    stored[:, 5:] = 0
    decoded = decode_image(make_dicom(stored, BitsStored=12, WindowCenter=2000, WindowWidth=3000))
    assert decoded.read_otherwise == []
    assert len(np.unique(decoded.pixels[:, :5])) > 100


def test_a_slope_that_is_set_aside_has_a_warning() -> None:
    decoded = decode_image(make_dicom(STORED, RescaleSlope=0, RescaleIntercept=5))
    assert decoded.read_otherwise == ["a slope or modality LUT that leaves one gray value, set aside"]


def test_a_width_below_1_is_exact() -> None:
    """As it is with values that a small slope has brought below 1."""
    row = show(RescaleSlope=0.1, RescaleIntercept=0, WindowCenter=0.45, WindowWidth=0.9)
    np.testing.assert_allclose(row, STORED[0] / 9 * 65535, atol=1)


def test_padding_of_everything_is_none() -> None:
    dataset = make_dataset(STORED)
    dataset.add_new(0x0028_0120, "US", 0)
    dataset.add_new(0x0028_0121, "US", 1000)
    assert decode_pixels(save(dataset))[0].tolist() == RANGE


def test_an_image_of_one_value_is_refused() -> None:
    flat = np.full((3, 4), 7, np.uint16)
    padded = flat.copy()
    padded[0, 0] = 0
    dataset = make_dataset(padded)
    dataset.add_new(0x0028_0120, "US", 0)
    for content in (make_dicom(flat), make_dicom(flat.astype(np.uint8)), save(dataset)):
        with pytest.raises(ValueError, match=r"^one gray value everywhere$"):
            decode_pixels(content)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_its_beginning(syntax: str) -> None:
    dataset = make_dataset(UNSIGNED, syntax, BitsStored=12, ViewPosition="LL")
    content = save(dataset)
    wanted = decode_pixels(content)
    meta_stop = 144 + int.from_bytes(content[140:144], "little")
    unnamed = content.replace(b"\2\0\x10\0UI", b"\2\0\x11\0UI", 1)
    for odd in (content[132:], content[meta_stop:], unnamed):
        assert odd != content
        np.testing.assert_array_equal(decode_pixels(odd), wanted)
        assert read_view(odd) == "LL"


# Tags that lie


@settings(max_examples=50, deadline=None)
@given(n_bits=st.integers(2, 16), allocated=st.sampled_from([8, 16]), lossless=st.booleans())
def test_bits_that_lie_change_nothing(n_bits: int, allocated: int, lossless: bool) -> None:
    codestream = encode_j2k(UNSIGNED, 12)
    tags = {"BitsAllocated": allocated, "BitsStored": min(n_bits, allocated)}
    content = compress(codestream, JPEG2000Lossless if lossless else JPEG2000, UNSIGNED, **tags)
    np.testing.assert_allclose(decode_pixels(content), spread(UNSIGNED), atol=0.5001)


NUMBERS = st.floats(-1e12, 1e12) | st.integers(-3, 3) | st.sampled_from(["", "nan", "1\\2", "0", "-1", SECRET])
WORDS = st.integers(0, 65535) | st.integers(0, 17)
TAGS_THAT_LIE = st.fixed_dictionaries(
    {},
    optional={
        "BitsStored": WORDS,
        "HighBit": WORDS,
        "PixelRepresentation": st.integers(0, 2),
        "WindowCenter": NUMBERS,
        "WindowWidth": NUMBERS,
        "RescaleSlope": NUMBERS,
        "RescaleIntercept": NUMBERS,
        "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", SECRET]),
        "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
        "SpecificCharacterSet": st.just(SECRET),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    tags=TAGS_THAT_LIE,
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless]),
    padding=st.none() | st.tuples(WORDS, WORDS),
    lookup=st.none() | st.tuples(st.lists(WORDS, min_size=3, max_size=3), st.binary(max_size=40)),
)
@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore:::pydicom")
def test_whatever_the_tags_say_there_are_pixels_or_a_reason(
    tags: dict[str, Any],
    syntax: str,
    padding: tuple[int, int] | None,
    lookup: tuple[list[int], bytes] | None,
) -> None:
    """And the picture is never of one gray, and no reason holds a value of the file."""
    stored = draw_radiograph(9, 11)
    dataset = make_dataset(stored, syntax, BitsStored=12)
    for name, value in tags.items():
        kind = "DS" if name.startswith(("Window", "Rescale")) else pydicom.datadict.dictionary_VR(name)
        text = str(value)[:16] if kind == "DS" else value
        dataset[name] = pydicom.DataElement(name, kind, text, validation_mode=0, already_converted=kind == "DS")
    if padding is not None:
        for tag, value in zip((0x0028_0120, 0x0028_0121), padding, strict=True):
            dataset.add_new(tag, "US", value)
    if lookup is not None:
        item = Dataset()
        item.add_new(0x0028_3002, "US", lookup[0])
        item.add_new(0x0028_3006, "OW", lookup[1] + b"\0" * (len(lookup[1]) % 2))
        dataset.VOILUTSequence = Sequence([item])
    try:
        decoded = decode_pixels(save(dataset))
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017
        assert "SECRET" not in str(error)  # noqa: PT017
        return
    assert decoded.shape == stored.shape
    assert np.ptp(decoded.astype(int)) >= (1 if decoded.dtype == np.uint8 else 255)
