"""From a file to a square of gray values: the right pixels, or a reason why not."""

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from cxrlit.core.errors import DataError
from cxrlit.data.image_io.decode import (
    MAX_FILE_BYTES,
    Resize,
    decode_pixels,
    describe_image,
    read_file,
    resize_square,
)
from cxrlit.data.image_io.sizes import MAX_SIDE

SIDE = 32
Pixels = NDArray[Any]


def make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 0, interlacing: int = 0
) -> bytes:
    """A PNG of chunks with good checksums, whatever is in them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlacing)
    parts = [make_chunk(kind, data) for kind, data in ((b"IHDR", header), *chunks, (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def draw_noise(side: int = SIDE, seed: int = 0, channels: int | None = None) -> NDArray[np.uint8]:
    shape = (side, side) if channels is None else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode_with_pillow(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("L"))


def expect_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        decode_pixels(content)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


# Kinds of PNG


def keep_as_is() -> tuple[bytes, Pixels]:
    return encode(Image.fromarray(draw_noise())), draw_noise()


def add_alpha() -> tuple[bytes, Pixels]:
    return encode(Image.fromarray(draw_noise(channels=2), "LA")), draw_noise(channels=2)[..., 0]


def repeat_in_rgb() -> tuple[bytes, Pixels]:
    return encode(Image.fromarray(np.repeat(draw_noise()[..., None], 3, axis=2))), draw_noise()


def repeat_in_rgba() -> tuple[bytes, Pixels]:
    alpha = draw_noise(seed=1)[..., None]
    return encode(Image.fromarray(np.concatenate([np.repeat(draw_noise()[..., None], 3, axis=2), alpha], 2))), (
        draw_noise()
    )


def mix_colours() -> tuple[bytes, Pixels]:
    pixels = draw_noise(channels=3)
    return encode(Image.fromarray(pixels)), np.round(pixels @ [0.299, 0.587, 0.114])


def look_up_in_palette() -> tuple[bytes, Pixels]:
    grays = np.random.default_rng(1).permutation(256).astype(np.uint8)
    image = Image.fromarray(draw_noise())
    image.putpalette(np.repeat(grays, 3).tobytes())
    return encode(image, transparency=bytes(range(200))), grays[draw_noise()]


def make_one_colour_transparent() -> tuple[bytes, Pixels]:
    return encode(Image.fromarray(draw_noise()), transparency=7), draw_noise()


def keep_one_bit() -> tuple[bytes, Pixels]:
    bits = draw_noise() > 127
    return encode(Image.fromarray(bits)), 255 * bits


def keep_four_bits() -> tuple[bytes, Pixels]:
    values = draw_noise() // 16
    rows = np.pad(values[:, ::2] * 16 + values[:, 1::2], ((0, 0), (1, 0)))  # each row after its filter type
    return make_png(SIDE, SIDE, (b"IDAT", zlib.compress(rows.tobytes())), depth=4), 17 * values


def keep_sixteen_bits() -> tuple[bytes, Pixels]:
    values = np.random.default_rng(0).integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)
    values[0, :3] = 0, 2**16 - 1, 257
    return encode(Image.fromarray(values)), values


def reduce_sixteen_bits_of_colour() -> tuple[bytes, Pixels]:
    values = np.repeat(draw_noise()[..., None], 6, axis=2).reshape(SIDE, -1)
    rows = np.pad(values, ((0, 0), (1, 0)))
    return make_png(SIDE, SIDE, (b"IDAT", zlib.compress(rows.tobytes())), depth=16, colour=2), draw_noise()


def interlace() -> tuple[bytes, Pixels]:
    return make_interlaced(draw_noise()), draw_noise()


def animate() -> tuple[bytes, Pixels]:
    frames = [Image.fromarray(draw_noise(seed=seed)) for seed in range(3)]
    return encode(frames[0], save_all=True, append_images=frames[1:]), draw_noise()


def make_interlaced(pixels: NDArray[np.uint8]) -> bytes:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[top::step_y, left::step_x] for top, left, step_y, step_x in passes]
    data = b"".join(np.pad(part, ((0, 0), (1, 0))).tobytes() for part in parts if part.size)
    height, width = pixels.shape
    return make_png(width, height, (b"IDAT", zlib.compress(data)), interlacing=1)


KINDS: dict[str, tuple[Callable[[], tuple[bytes, Pixels]], str]] = {
    "gray": (keep_as_is, "L"),
    "gray and alpha": (add_alpha, "LA"),
    "gray in RGB": (repeat_in_rgb, "RGB"),
    "gray in RGBA": (repeat_in_rgba, "RGBA"),
    "colours": (mix_colours, "RGB"),
    "palette": (look_up_in_palette, "P"),
    "transparent": (make_one_colour_transparent, "L"),
    "1 bit": (keep_one_bit, "1"),
    "4 bits": (keep_four_bits, "L"),
    "16 bits": (keep_sixteen_bits, "I;16"),
    "16 bits of colour": (reduce_sixteen_bits_of_colour, "RGB 16 bit"),
    "interlaced": (interlace, "L"),
    "animated": (animate, "L"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error")
def test_every_kind_of_png_has_the_right_gray(kind: str) -> None:
    make, mode = KINDS[kind]
    content, wanted = make()
    decoded = decode_pixels(content)
    assert decoded.dtype == (np.uint16 if kind == "16 bits" else np.uint8)
    np.testing.assert_allclose(decoded.astype(int), wanted.astype(int), atol=1 if kind == "colours" else 0)
    assert describe_image(content) == (SIDE, SIDE, mode)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 5), (8, 8), (13, 21)])
def test_interlaced_images_of_odd_sizes(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode_pixels(make_interlaced(pixels)), pixels)


def test_the_name_of_a_file_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encode(Image.fromarray(draw_noise())))
    np.testing.assert_array_equal(decode_pixels(read_file(path)), draw_noise())


def test_16_bits_become_8_by_their_full_range() -> None:
    content, values = keep_sixteen_bits()
    np.testing.assert_array_equal(resize_square(decode_pixels(content), SIDE, "pad"), np.round(values / 257))


@pytest.mark.parametrize(("largest", "top"), [
    (0, 255), (200, 255), (255, 255), (256, 1023), (1023, 1023), (3000, 4095), (4095, 4095), (4096, 16383),
    (16383, 16383), (16384, 65535), (65535, 65535),
])  # fmt: skip
def test_16_bits_are_spread_by_those_that_are_used(largest: int, top: int) -> None:
    values = np.linspace(0, largest, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    decoded = decode_pixels(encode(Image.fromarray(values)))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, np.rint(values * (65535 / top)))
    np.testing.assert_array_equal(resize_square(decoded, SIDE, "pad"), np.round(np.rint(values * (65535 / top)) / 257))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_of_16_bits_is_not_black_in_silence(colour: int, channels: int) -> None:
    values = np.full((SIDE, SIDE, channels), 4095, ">u2")
    rows = np.pad(values.view(np.uint8).reshape(SIDE, -1), ((0, 0), (1, 0)))
    content = make_png(SIDE, SIDE, (b"IDAT", zlib.compress(rows.tobytes())), depth=16, colour=colour)
    expect_refused(content, "^16 bits that use at most 14, in colour or with transparency: save it as gray alone$")


# Kinds of JPEG


def draw_smooth(height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    return np.outer(np.linspace(0, 255, height), np.linspace(1, 0.3, width)).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(mode: str, options: dict[str, Any]) -> None:
    content = encode(Image.fromarray(draw_smooth()).convert(mode), "JPEG", **options)
    decoded = decode_pixels(content)
    np.testing.assert_array_equal(decoded, decode_with_pillow(content))
    np.testing.assert_allclose(decoded.astype(int), draw_smooth(), atol=12)
    assert describe_image(content) == (56, 40, mode)


def test_a_jpeg_is_rgb_where_adobe_says_so() -> None:
    """Its components are called 1, 2 and 3, as those of YCbCr are."""
    colour = np.dstack([draw_smooth(), draw_smooth()[::-1], draw_smooth()[:, ::-1]])
    content = encode(Image.fromarray(colour), "JPEG", keep_rgb=True)
    for names in (b"R\x11\0G\x11\0B\x11\0", b"R\0G\0B\0"):
        assert content.count(names) == 1
        content = content.replace(names, names.translate(bytes.maketrans(b"RGB", b"\1\2\3")))
    np.testing.assert_array_equal(decode_pixels(content), decode_with_pillow(content))
    np.testing.assert_allclose(decode_pixels(content), Image.fromarray(colour).convert("L"), atol=12)


def make_exif(orientation: int, order: str = "<") -> bytes:
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    entries = [(0x0100, 4, 1, 56), (0x0112, 3, 1, orientation if order == "<" else orientation << 16)]
    body = struct.pack(f"{order}H", 2) + b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + bytes(4)
    return start + body


def make_xmp(orientation: int, is_attribute: bool) -> bytes:
    inside = (
        f'tiff:Orientation="{orientation}"/>'
        if is_attribute
        else (f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>")
    )
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description {inside}</rdf:RDF></x:xmpmeta>'.encode()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt", "JPEG"])
def test_a_profile_in_texts_turns_an_image(orientation: int, kind: str) -> None:
    """EXIF as ImageMagick writes it, and XMP; EXIF counts before XMP."""
    image = Image.fromarray(draw_noise()[:20])
    contents = []
    for is_attribute in (False, True):
        xmp = make_xmp(orientation, is_attribute)
        if kind == "JPEG":
            contents.append(encode(image, "JPEG", xmp=xmp))
            contents.append(
                encode(image, "JPEG", xmp=make_xmp(5, is_attribute), exif=b"Exif\0\0" + make_exif(orientation))
            )
            continue
        texts = PngImagePlugin.PngInfo()
        if kind.endswith("iTXt"):
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=kind.startswith("packed"))
        else:
            exif = make_exif(orientation)
            profile = f"\nexif\n{len(exif):8d}\n{exif[:36].hex()}\n{exif[36:].hex()}\n"
            texts.add_text("Raw profile type exif", profile, zip=kind == "zTXt")
            texts.add_itxt("XML:com.adobe.xmp", make_xmp(5, is_attribute).decode())
        contents.append(encode(image, pnginfo=texts))
    for content in contents:
        np.testing.assert_array_equal(decode_pixels(content), decode_with_pillow(content))
        assert (decode_pixels(content).shape == (32, 20)) == (orientation >= 5)


@pytest.mark.parametrize("text", [b"", b"\nexif\n 6\nzz\n", b"\nexif\n", b"\xff\xfe exif 6 00"])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_damaged_profile_turns_nothing(text: bytes, kind: bytes) -> None:
    content = encode(Image.fromarray(draw_noise()))
    for keyword in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        odd = content[:33] + make_chunk(kind, keyword + b"\0" + text) + content[33:]
        np.testing.assert_array_equal(decode_pixels(odd), draw_noise())


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_image_is_turned_upright(orientation: int, order: str) -> None:
    exif = make_exif(orientation, order)
    jpeg, other = encode(Image.fromarray(draw_smooth()), "JPEG"), b"http://ns.adobe.com/xap/1.0/\0" + make_xmp(5, True)
    bodies = (other, b"Exif\0\0" + exif, other)
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies)
    png, chunk = encode(Image.fromarray(draw_smooth())), make_chunk(b"eXIf", exif)
    for content in (jpeg[:2] + segments + jpeg[2:], png[:33] + chunk + png[33:], png[:-12] + chunk + png[-12:]):
        np.testing.assert_array_equal(decode_pixels(content), decode_with_pillow(content))
        assert (decode_pixels(content).shape == (56, 40)) == (5 <= orientation <= 8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_png_is_turned_upright(kind: str) -> None:
    content = KINDS[kind][0]()[0]
    turned = decode_pixels(content[:33] + make_chunk(b"eXIf", make_exif(6)) + content[33:])
    np.testing.assert_array_equal(turned, np.rot90(decode_pixels(content), -1))


def test_16_bits_are_turned_upright() -> None:
    values = draw_smooth().astype(np.uint16) * 257
    png = encode(Image.fromarray(values))
    turned = decode_pixels(png[:33] + make_chunk(b"eXIf", make_exif(6)) + png[33:])
    np.testing.assert_array_equal(turned, np.rot90(values, -1))


@pytest.mark.filterwarnings("error")
def test_what_cameras_add_does_not_matter() -> None:
    thumbnail = encode(Image.fromarray(draw_noise()), "JPEG")
    plain = encode(Image.fromarray(draw_smooth()), "JPEG")
    segments = [
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (0xE1, b"Exif\0\0" + thumbnail),
        (0xE2, b"ICC_PROFILE\0\1\1x"),
    ]
    segments += [(0xE2, b"MPF\0nonsense"), (0xED, b"Photoshop 3.0\0x"), (0xFE, b"a comment"), (0xE0, b"")]
    added = b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    between = b"\xff\0\x12\xff\xff"  # what no segment begins with
    np.testing.assert_array_equal(decode_pixels(plain[:2] + between + added + plain[2:]), decode_pixels(plain))


def make_twelve_bits() -> bytes:
    content = bytearray(encode(Image.fromarray(draw_smooth()), "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12
    return bytes(content)


def resize_jpeg(width: int, height: int) -> bytes:
    content = bytearray(encode(Image.fromarray(draw_smooth()), "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def repeat_scans(n_scans: int) -> bytes:
    content = encode(Image.fromarray(draw_smooth()), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * n_scans + b"\xff\xd9"


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


JPEG = encode(Image.fromarray(draw_noise()), "JPEG")
BAD_JPEG: dict[str, tuple[bytes, str]] = {
    "cut in the pixels": (cut(JPEG, 0.8), "damaged: image file is truncated"),
    "cut in the header": (JPEG[:100], "damaged: the end is missing"),
    "cut after the signature": (JPEG[:3], "damaged"),
    "no frame": (b"\xff\xd8" + JPEG[JPEG.index(b"\xff\xda") :], "damaged: no header"),
    "two frames": (JPEG.replace(b"\xff\xc0", JPEG[JPEG.index(b"\xff\xc0") :][:13] + b"\xff\xc0"), "two headers"),
    "print colours": (encode(Image.new("CMYK", (9, 9)), "JPEG"), "CMYK"),
    "12 bits": (make_twelve_bits(), "12 bits is not supported"),
    "lossless": (JPEG.replace(b"\xff\xc0", b"\xff\xc3"), "process 3 with 8 bits is not supported"),
    "bomb": (resize_jpeg(50_000, 50_000), "50000 x 50000 pixels are too many"),
    "thin": (resize_jpeg(1, MAX_SIDE + 1), "too many"),
    "no rows": (resize_jpeg(40, 0), "an image without pixels"),
    "endless scans": (repeat_scans(200), "more than 100 scans"),
    "endless filling": (JPEG[:2] + b"\xff" * 10**8, "damaged: no pixels"),
    "endless segments": (JPEG[:2] + b"\xff\xfe\0\2" * 20_000 + JPEG[2:], "too many segments"),
}


@pytest.mark.parametrize("kind", BAD_JPEG)
@pytest.mark.filterwarnings("error")
def test_bad_jpegs_are_refused(kind: str) -> None:
    expect_refused(*BAD_JPEG[kind])


def test_no_cut_of_a_jpeg_gives_other_pixels() -> None:
    wanted = decode_pixels(JPEG)
    for length in range(len(JPEG)):
        try:
            decoded = decode_pixels(JPEG[:length])
        except ValueError:
            continue
        assert length > len(JPEG) - 8
        np.testing.assert_array_equal(decoded, wanted)


# Squares


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (39, 40), (40, 39), (1, 40)])
def test_padding_keeps_the_image_in_the_middle(height: int, width: int, dtype: Any) -> None:
    square = resize_square(np.full((height, width), np.iinfo(dtype).max, dtype), 40, "pad")
    top, left = (40 - height) // 2, (40 - width) // 2
    wanted = np.zeros((40, 40), np.uint8)
    wanted[top : top + height, left : left + width] = 255
    np.testing.assert_array_equal(square, wanted)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (21, 40), (40, 21)])
def test_cropping_keeps_the_centre(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    np.testing.assert_array_equal(resize_square(pixels, side, "crop"), pixels[top : top + side, left : left + side])


def test_stretching_keeps_everything() -> None:
    pixels = np.repeat(draw_noise(20), 2, axis=1)
    np.testing.assert_array_equal(resize_square(pixels, 20, "stretch"), draw_noise(20))


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_smaller_is_the_mean_of_what_was_there(resize: Resize, scale: int) -> None:
    pixels = draw_noise(16 * scale)
    wanted = pixels.reshape(16, scale, 16, scale).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_square(pixels, 16, resize), wanted, atol=0.51)


@pytest.mark.parametrize("side", [1, 2, 31])
def test_larger_keeps_the_range(side: int) -> None:
    pixels = draw_noise(side)
    larger = resize_square(pixels, 64, "pad")
    assert larger.shape == (64, 64)
    assert pixels.min() <= larger.min() <= larger.max() <= pixels.max()


# Damage


def encode_with_text(image: Image.Image, **options: Any) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a radiograph", zip=True)
    return encode(image, pnginfo=text, dpi=(72, 72), exif=make_exif(6), **options)


def make_small(mode: str) -> bytes:
    image = Image.fromarray(draw_noise(8, channels=4)).convert("RGB" if mode in {"P", "I;16"} else mode)
    if mode == "I;16":
        image = Image.fromarray(draw_noise(8).astype(np.uint16) * 200)
    if mode == "P":
        return encode_with_text(image.quantize(8), transparency=b"\x00\x80")
    return encode_with_text(image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_no_flipped_bit_changes_a_pixel(mode: str) -> None:
    content = make_small(mode)
    for place, bit in enumerate(np.random.default_rng(0).integers(0, 8, len(content))):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(bit)
        expect_refused(bytes(flipped), "damaged|not a PNG|too many|without pixels")


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_no_cut_png_is_taken(mode: str) -> None:
    content = make_small(mode)
    expect_refused(b"", "^empty file$")
    for length in range(1, len(content)):
        expect_refused(content[:length], "damaged|not a PNG")


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt"])
    | st.sampled_from([b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IHDR", b"abcd", b"ABCD"]),
    data=st.binary(max_size=40),
    place=st.integers(0, 2),
    colour=st.sampled_from([0, 2, 3, 4, 6]),
)
def test_odd_chunks_give_pixels_or_a_reason(kind: bytes, data: bytes, place: int, colour: int) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    chunks = [(b"PLTE", bytes(range(6)))] if colour == 3 else []
    chunks.append((b"IDAT", zlib.compress((b"\0" + b"\1" * 4 * channels) * 4)))
    plain = decode_pixels(make_png(4, 4, *chunks, colour=colour))
    chunks.insert(min(place, len(chunks)), (kind, data))
    try:
        decoded = decode_pixels(make_png(4, 4, *chunks, colour=colour))
    except ValueError as error:
        assert kind in {b"PLTE", b"IDAT", b"IHDR", b"ABCD"}, error  # noqa: PT017
        return
    if kind not in {b"PLTE", b"IDAT"}:
        np.testing.assert_array_equal(decoded, plain)


def make_rows(n_rows: int, width: int = 4, last: int = 1) -> bytes:
    return b"".join(b"\0" + bytes([last if row == n_rows - 1 else 7]) * width for row in range(n_rows))


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3])
def test_fewer_rows_than_the_header_says_are_refused(n_rows: int) -> None:
    content = make_png(4, 4, (b"IDAT", zlib.compress(make_rows(n_rows))))
    expect_refused(content, "fewer pixels than its header says|damaged")
    expect_refused(make_png(4, 4, (b"IDAT", zlib.compress(make_rows(n_rows) + b"\0\7\7"))), "fewer pixels|damaged")


def test_a_black_last_row_is_no_damage() -> None:
    rows = zlib.compress(make_rows(4, last=0))
    whole = decode_pixels(make_png(4, 4, (b"IDAT", rows[:5]), (b"IDAT", b""), (b"IDAT", rows[5:])))
    np.testing.assert_array_equal(whole, [[7] * 4] * 3 + [[0] * 4])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 17), (41, 5), (5, 41)])
@pytest.mark.parametrize("n_rows", [1, 2])
def test_fewer_pixels_of_an_interlaced_image_are_refused(height: int, width: int, n_rows: int) -> None:
    """The last pass has every second row: without it the last row of an image of odd height is still there."""
    content = make_interlaced(draw_noise(41)[:height, :width])
    start = content.index(b"IDAT") + 4
    data = zlib.decompress(content[start:-16])[: -n_rows * (width + 1)]
    expect_refused(make_png(width, height, (b"IDAT", zlib.compress(data)), interlacing=1), "fewer pixels than")


GOOD_DATA = (b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4))
BAD_PNG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "^empty file$"),
    "text": (b"no image", "^not a PNG, JPEG or DICOM image$"),
    "another format": (encode(Image.fromarray(draw_noise()), "BMP"), "^not a PNG, JPEG or DICOM image$"),
    "signature alone": (b"\x89PNG\r\n\x1a\n", "damaged: no header"),
    "no pixels": (make_png(4, 4), "damaged"),
    "no palette": (make_png(4, 4, GOOD_DATA, colour=3), "damaged: no palette"),
    "late palette": (make_png(4, 4, GOOD_DATA, (b"PLTE", bytes(6)), colour=3), "damaged: no palette"),
    "odd depth": (make_png(4, 4, GOOD_DATA, depth=3), "a header that no PNG has"),
    "odd colour": (make_png(4, 4, GOOD_DATA, colour=5), "a header that no PNG has"),
    "two headers": (make_png(4, 4, (b"IHDR", make_png(4, 4)[16:29]), GOOD_DATA), "damaged: two headers"),
    "unknown and needed": (make_png(4, 4, (b"ABCD", b""), GOOD_DATA), "a chunk that no PNG has"),
    "no columns": (make_png(0, 4, GOOD_DATA), "an image without pixels"),
    "bomb": (make_png(50_000, 50_000, GOOD_DATA), "^50000 x 50000 pixels are too many$"),
    "thin": (make_png(1, MAX_SIDE + 1, GOOD_DATA), f"^1 x {MAX_SIDE + 1} pixels are too many$"),
    "endless chunks": (make_png(4, 4, *[(b"tEXt", b"")] * 100_001, GOOD_DATA), "too many chunks"),
}


@pytest.mark.parametrize("kind", BAD_PNG)
def test_bad_pngs_are_refused(kind: str) -> None:
    expect_refused(*BAD_PNG[kind])


@pytest.mark.parametrize("kind", ["bomb", "thin", "no columns", "signature alone", "text"])
def test_describe_refuses_by_the_header(kind: str) -> None:
    content, reason = BAD_PNG[kind]
    with pytest.raises(ValueError, match=reason):
        describe_image(content)


@pytest.mark.parametrize("place", range(16, 33))
def test_describe_verifies_the_header(place: int) -> None:
    content = bytearray(encode(Image.fromarray(draw_noise())))
    content[place] ^= 1
    with pytest.raises(ValueError, match="damaged: wrong checksum in IHDR"):
        describe_image(bytes(content))


@pytest.mark.parametrize("keyword", [b"Comment", b"Raw profile type exif", b"XML:com.adobe.xmp"])
def test_texts_take_little_memory(keyword: bytes) -> None:
    bomb = (b"zTXt", keyword + b"\0\0" + zlib.compress(bytes(10**8)))
    content, wanted = make_png(4, 4, bomb, (b"tEXt", bytes(10**6)), GOOD_DATA), decode_pixels(make_png(4, 4, GOOD_DATA))
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(decode_pixels(content), wanted)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


# Files


def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(ValueError, match=r"^not a file$"):
            read_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"^not a file$"):
        read_file(Path("/dev/zero"))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.touch()
    os.truncate(path, MAX_FILE_BYTES + 1)  # takes no space
    with pytest.raises(ValueError, match=r"^larger than 192 MiB$"):
        read_file(path)


def test_what_cannot_be_read_now_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    for name in ("loop.png", "dangling.png", "absent.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read: .*; mend that"):
            read_file(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(Image.fromarray(draw_noise())))
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_file(path)


def test_files_are_closed(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"x")
    n_open = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(20):
        assert read_file(tmp_path / "image.png") == b"x"
        with pytest.raises(ValueError):
            read_file(tmp_path)
    if n_open:
        assert len(os.listdir("/proc/self/fd")) == n_open


def test_many_threads_give_the_same_pixels() -> None:
    contents = [make()[0] for make, _ in KINDS.values()] + [JPEG]
    wanted = [decode_pixels(content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for decoded, alone in zip(pool.map(decode_pixels, contents), wanted, strict=True):
                np.testing.assert_array_equal(decoded, alone)
