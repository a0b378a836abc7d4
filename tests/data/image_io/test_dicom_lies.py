"""Files that lie about their pixels: the true picture comes out, or a reason; gray in colour channels is gray."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicoms import draw_radiograph, make_dataset, save, set_codestream
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lying import LIES, check_lies, tell_lies
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrlit.data.image_io.decode import decode_image, decode_pixels, describe_image
from cxrlit.data.image_io.dicom_contradictions import choose_bits, choose_sign

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**9), lies=st.lists(st.sampled_from(LIES), min_size=1, max_size=2, unique=True))
@example(3082, ["samples", "colour"])
def test_tags_that_lie_leave_the_true_picture_or_a_reason(seed: int, lies: list[str]) -> None:
    check_lies(*tell_lies(np.random.default_rng(seed), *lies))


@pytest.mark.parametrize("lie", ["bits stored", "sign", "bits and sign", "voi lut", "modality lut", "padding"])
def test_lies_that_the_pixels_refute_exclude_nothing(lie: str) -> None:
    rng = np.random.default_rng(0)
    assert all(check_lies(*tell_lies(rng, lie)) for _ in range(25))


@pytest.mark.parametrize("signed", [False, True])
def test_an_honest_file_is_believed(signed: bool) -> None:
    """Noise, letters of white on black and an overlay look no smoother in another reading."""
    smooth = draw_radiograph(n_bits=11).astype(np.uint16)
    lettered = smooth.copy()
    lettered[5:9, ::6] = 4095
    noise = np.random.default_rng(0).integers(0, 4096, (40, 50), dtype=np.uint16)
    for image in (smooth, lettered, noise, np.eye(30, dtype=np.uint16) * 4095, smooth[:1], smooth[:, :1]):
        assert choose_sign(image, 12, signed) == (12, signed, False)
    for overlay in (smooth & 0x0F00 << 3, np.eye(*smooth.shape, dtype=np.uint16) << 12):
        assert choose_bits(smooth | overlay, 12, 16, signed) == 12


def draw_chest(low: float, high: float) -> NDArray[np.float64]:
    """Light in the middle, with noise."""
    down, across = np.mgrid[-1:1:256j, -1:1:256j]
    noise = np.random.default_rng(0).normal(0, 4, (256, 256))
    chest: NDArray[np.float64] = low + (high - low) * np.clip(1.2 - 0.9 * np.hypot(down, across), 0, 1) + noise
    return chest


def draw_letters(image: NDArray[np.float64], gray: float) -> NDArray[np.float64]:
    image = image.copy()
    for column in range(8, 200, 6):
        image[8:40, column : column + 3] = gray
    image[0, 0] = 4095
    return image


def draw_shutters(image: NDArray[np.float64], gray: float) -> NDArray[np.float64]:
    image = image.copy()
    is_shutter = np.ones(image.shape, np.bool_)
    is_shutter[20:-20, 30:-30] = False
    image[is_shutter] = np.random.default_rng(1).normal(gray, 6, image.shape)[is_shutter]
    return image


@pytest.mark.parametrize("draw", [draw_letters, draw_shutters])
@pytest.mark.parametrize("gray", [3200, 3900, 4030, 4060])
@pytest.mark.parametrize("high", [600, 1900, 3000])
def test_what_is_nearly_white_has_no_sign(draw: Callable[..., NDArray[np.float64]], gray: float, high: float) -> None:
    """Letters and shutters on a dark radiograph are nearer to black where the highest bit is read as a sign."""
    image = np.rint(np.clip(draw(draw_chest(20, high), gray), 0, 4095)).astype(np.uint16)
    assert choose_sign(image, 12, False)[:2] == (12, False)
    assert choose_sign((image - 2048) & 4095, 12, True)[:2] == (12, True)
    decoded = decode_image(save(make_dataset(image, BitsStored=12)))
    assert np.corrcoef(decoded.pixels.ravel(), image.ravel())[0, 1] > 0.999
    assert [text for text in decoded.read_otherwise if "doubtful" not in text] == []


def test_lines_that_alternate_have_no_sign() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (256, 256))
    lines = np.rint(np.where(np.arange(256) // 6 % 2, 4030, 60) + noise).astype(np.uint16)
    assert choose_sign(lines, 12, False)[:2] == (12, False)


@pytest.mark.parametrize("said", [0, 1])
def test_a_sign_that_is_not_believed_has_a_warning(said: int) -> None:
    chest = np.rint(draw_chest(100, 3900)).astype(np.int16)
    true = chest if said else chest - 2048
    dataset = make_dataset(true & 4095, BitsStored=12, PixelRepresentation=said)
    decoded = decode_image(save(dataset))
    assert np.corrcoef(decoded.pixels.ravel(), true.ravel())[0, 1] > 0.999
    read, tags = ("unsigned", "signed") if said else ("signed", "unsigned")
    assert decoded.read_otherwise == [f"read as {read} values of 12 bits, though its tags say {tags} values of 12 bits"]


def test_bits_that_are_not_believed_have_a_warning() -> None:
    chest = np.rint(draw_chest(100, 3900)).astype(np.uint16)
    decoded = decode_image(save(make_dataset(chest, BitsStored=10)))
    assert np.corrcoef(decoded.pixels.ravel(), chest.ravel())[0, 1] > 0.999
    [text] = decoded.read_otherwise
    assert text == "read as unsigned values of 16 bits, though its tags say unsigned values of 10 bits"


def test_a_sign_that_cannot_be_told_has_a_warning() -> None:
    """Wide shutters, which have too few gray levels for a sign that the tags deny."""
    image = np.rint(draw_shutters(draw_chest(20, 600), 4060)).astype(np.uint16)
    assert decode_image(save(make_dataset(image, BitsStored=12))).read_otherwise == [
        "a doubtful sign, read as its tags say"
    ]


def make_colour(
    channels: NDArray[Any], photometric: str = "RGB", syntax: str = ExplicitVRLittleEndian, planar: int = 0
) -> Dataset:
    """A data set of (H, W, 3) samples, as they are."""
    dataset = make_dataset(channels[..., 0], ExplicitVRLittleEndian)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, photometric, planar
    samples = np.moveaxis(channels, 2, 0) if planar else channels
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    if order == ">" and samples.itemsize == 1:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW" if samples.itemsize == 2 or order == ">" else "OB"
    return dataset


GRAY = draw_radiograph(n_bits=8)
DEEP = GRAY.astype(np.uint16) * 250
RGB = np.repeat(GRAY[..., None], 3, axis=2)
YBR = np.stack([GRAY, np.full_like(GRAY, 128), np.full_like(GRAY, 128)], axis=2)


def pack(syntax: str, codestream: bytes, photometric: str = "RGB", channels: NDArray[Any] = RGB) -> Dataset:
    dataset = make_colour(channels, photometric, syntax)
    set_codestream(dataset, codestream)
    return dataset


def pack_rle(channels: NDArray[Any]) -> bytes:
    segments = [bytes(imagecodecs.packbits_encode(channels[..., number].tobytes())) for number in range(3)]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0], header[1:4] = 3, starts
    return header.tobytes() + b"".join(segments)


def subsample(ybr: NDArray[np.uint8]) -> Dataset:
    """YBR_FULL_422: two luminances, and one of each colour."""
    dataset = make_colour(ybr, "YBR_FULL_422")
    pairs = ybr.reshape(len(ybr), -1, 2, 3)
    dataset.PixelData = np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], 2).tobytes()
    return dataset


def paint(entries: NDArray[np.uint16], n_bits: int) -> Dataset:
    dataset = make_dataset(GRAY, PhotometricInterpretation="PALETTE COLOR")
    for place in range(3):
        dataset.add_new(0x0028_1101 + place, "US", [len(entries) % 2**16, 0, n_bits])
        dataset.add_new(0x0028_1201 + place, "OW", entries.astype("<u2").tobytes())
    return dataset


GRAYS: dict[str, Callable[[], Dataset]] = {
    "RGB": lambda: make_colour(RGB),
    "RGB, a channel after the other": lambda: make_colour(RGB, planar=1),
    "RGB, big endian": lambda: make_colour(RGB, syntax=ExplicitVRBigEndian),
    "YBR that is RGB": lambda: make_colour(RGB, "YBR_FULL"),
    "YBR": lambda: make_colour(YBR, "YBR_FULL"),
    "YBR, subsampled": lambda: subsample(YBR),
    "RLE": lambda: pack(RLELossless, pack_rle(RGB)),
    "RLE of YBR": lambda: pack(RLELossless, pack_rle(YBR), "YBR_FULL"),
    "JPEG 2000": lambda: pack(
        JPEG2000Lossless, bytes(imagecodecs.jpeg2k_encode(RGB, codecformat="j2k", reversible=True)), "YBR_RCT"
    ),
    "JPEG 2000 of one channel": lambda: pack(
        JPEG2000Lossless, bytes(imagecodecs.jpeg2k_encode(GRAY, codecformat="j2k", reversible=True)), "YBR_RCT"
    ),
    "JPEG-LS": lambda: pack(JPEGLSLossless, bytes(imagecodecs.jpegls_encode(RGB))),
    "lossless JPEG": lambda: pack(JPEGLosslessSV1, bytes(imagecodecs.jpeg8_encode(RGB, lossless=True))),
    "JPEG": lambda: pack(JPEGBaseline8Bit, bytes(imagecodecs.jpeg8_encode(RGB, 100)), "YBR_FULL_422"),
    "RGB with a window, which is for gray": lambda: _change(make_colour(RGB), WindowCenter=9, WindowWidth=3),
    "a sign that is none": lambda: _change(make_colour(RGB), PixelRepresentation=1),
    "RGB of 16 bits": lambda: make_colour(np.repeat(GRAY[..., None].astype(np.uint16) * 257, 3, axis=2)),
    "RGB of 16 bits, nearly gray": lambda: make_colour(np.stack([DEEP, DEEP, DEEP + 200], axis=2)),
    "a palette of 8 bits": lambda: paint(np.arange(256, dtype=np.uint16), 8),
    "a palette of 16 bits": lambda: paint(np.arange(256, dtype=np.uint16) * 257, 16),
}


def _change(dataset: Dataset, **tags: Any) -> Dataset:
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("kind", GRAYS)
def test_gray_in_colour_channels_is_gray_with_a_warning(kind: str) -> None:
    dataset = GRAYS[kind]()
    content = save(dataset)
    decoded = decode_pixels(content)
    scale = 1 if decoded.dtype == np.uint8 else 257
    np.testing.assert_allclose(decoded / scale, GRAY, atol=3 if kind == "JPEG" else 0.01)
    photometric = dataset.PhotometricInterpretation
    assert decode_image(content).read_otherwise == [f"gray saved as {photometric}"]
    assert describe_image(content)[2].startswith(f"DICOM {photometric} ")


COLOURS: dict[str, Callable[[], Dataset]] = {
    "RGB": lambda: make_colour(np.stack([GRAY, GRAY // 2, GRAY], axis=2)),
    "YBR": lambda: make_colour(np.stack([GRAY, np.full_like(GRAY, 90), np.full_like(GRAY, 128)], axis=2), "YBR_FULL"),
    "RGB that would be gray as YBR": lambda: make_colour(YBR),
    "RLE": lambda: pack(RLELossless, pack_rle(np.stack([GRAY, GRAY // 2, GRAY], axis=2))),
    "JPEG": lambda: pack(
        JPEGBaseline8Bit, bytes(imagecodecs.jpeg8_encode(np.stack([GRAY, 255 - GRAY, GRAY], axis=2), 95)), "YBR_FULL"
    ),
    "a palette": lambda: _tint(paint(np.arange(256, dtype=np.uint16), 8)),
}


def _tint(dataset: Dataset) -> Dataset:
    dataset[0x0028_1202].value = np.arange(255, -1, -1).astype("<u2").tobytes()
    return dataset


@pytest.mark.parametrize("kind", COLOURS)
def test_colour_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^DICOM in colour is not supported$"):
        decode_pixels(save(COLOURS[kind]()))


def test_a_file_that_does_not_say_what_it_is_has_a_warning() -> None:
    content = save(make_dataset(GRAY))
    meta_stop = 144 + int.from_bytes(content[140:144], "little")
    unnamed = content.replace(b"\2\0\x10\0UI", b"\2\0\x11\0UI", 1)
    assert decode_image(content).read_otherwise == []
    start = "without the 132 bytes that a DICOM file begins with"
    assert decode_image(content[132:]).read_otherwise == [start]
    [said] = decode_image(content[meta_stop:]).read_otherwise
    assert said == f"{start} and without a transfer syntax, read as Implicit VR Little Endian"
    assert decode_image(unnamed).read_otherwise == ["without a transfer syntax, read as Implicit VR Little Endian"]


STORED = np.array([[-30, -20, -10, -5, 7]], np.int16)


@pytest.mark.parametrize("kind", ["US", "SS"])
@pytest.mark.parametrize("representation", [0, 1])
def test_the_first_value_of_a_lookup_table_may_be_negative(kind: str, representation: int) -> None:
    """Whatever the file says of signs, which may come from the intercept alone."""
    dataset = make_dataset(STORED) if representation else make_dataset((STORED + 100).astype(np.uint16))
    if not representation:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -100
    item = Dataset()
    item.add_new(0x0028_3002, kind, [38, -30 if kind == "SS" else -30 % 2**16, 16])
    item.add_new(0x0028_3006, "OW", np.arange(38, dtype="<u2").tobytes())
    dataset.VOILUTSequence = Sequence([item])
    wanted = np.rint((STORED[0] + 30) / 37 * 65535)
    np.testing.assert_allclose(decode_pixels(save(dataset))[0], wanted, atol=1)


def test_entries_of_8_bits_with_a_descriptor_of_16() -> None:
    dataset = make_dataset(np.array([[0, 1, 2, 3, 4, 5]], np.uint16))
    item = Dataset()
    item.add_new(0x0028_3002, "US", [6, 0, 16])
    item.add_new(0x0028_3006, "OW", bytes([0, 51, 102, 153, 204, 255]))
    dataset.VOILUTSequence = Sequence([item])
    assert decode_pixels(save(dataset))[0].tolist() == [0, 13107, 26214, 39321, 52428, 65535]


@pytest.mark.parametrize(
    "tags", [{"Rows": 39}, {"Columns": 55}, {"Rows": 20}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_more_pixels_than_a_file_says_are_refused(tags: dict[str, int], syntax: str) -> None:
    dataset = make_dataset(draw_radiograph(), syntax, BitsStored=12)
    with pytest.raises(ValueError, match=r"more pixels than its header says|not what the transfer syntax says"):
        decode_pixels(save(_change(dataset, **tags)))
