"""Pixels as they are in the file, or a reason why not; a store that is whole, or none."""

import io
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from cxrlit.data.sources.nih import read_nih
from cxrlit.data.store import MAX_SIDE, Resize, Store, _create_images, decode_image, open_store, resize_square
from cxrlit.errors import DataError

SIDE = 32
Pixels = NDArray[Any]


def make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of chunks with good checksums, whatever is in them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [make_chunk(kind, data) for kind, data in ((b"IHDR", header), *chunks, (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def draw_noise(side: int = SIDE, seed: int = 0, channels: int | None = None) -> NDArray[np.uint8]:
    shape = (side, side) if channels is None else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode(content: bytes, folder: Path, size: int = SIDE, resize: Resize = "pad") -> NDArray[np.uint8]:
    path = folder / "image.png"
    path.write_bytes(content)
    return decode_image(path, size, resize)


def write_images(folder: Path, n_images: int = 6, side: int = SIDE) -> pd.DataFrame:
    """The columns of an index that a store needs, of images of noise."""
    folder.mkdir()
    for number in range(n_images):
        Image.fromarray(draw_noise(side, seed=number)).save(folder / f"{number}.png")
    return read_folder(folder)


def read_folder(folder: Path) -> pd.DataFrame:
    paths = sorted(folder.iterdir())
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    return pd.DataFrame({"image": [path.name for path in paths], "path": [str(path) for path in paths]}).assign(
        n_bytes=sizes
    )


def open_small(index: pd.DataFrame, cache: Path, size: int = SIDE, resize: Resize = "pad", workers: int = 2) -> Store:
    return open_store(index, "small", size, resize, cache, workers)


def list_folders(cache: Path) -> list[Path]:
    return [path for path in (cache / "store").iterdir() if path.is_dir()]


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
    return encode(Image.fromarray(values)), np.round(values / 257)


KINDS = [
    keep_as_is,
    add_alpha,
    repeat_in_rgb,
    repeat_in_rgba,
    mix_colours,
    look_up_in_palette,
    make_one_colour_transparent,
    keep_one_bit,
    keep_four_bits,
    keep_sixteen_bits,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("error")
def test_every_kind_of_png_has_the_right_gray(tmp_path: Path, kind: Callable[[], tuple[bytes, Pixels]]) -> None:
    content, wanted = kind()
    decoded = decode(content, tmp_path)
    assert decoded.dtype == np.uint8
    tolerance = 1 if kind is mix_colours else 0
    np.testing.assert_allclose(decoded.astype(int), wanted.astype(int), atol=tolerance)


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
    return encode(image, pnginfo=text, dpi=(72, 72), **options)


def make_small(mode: str) -> bytes:
    image = Image.fromarray(draw_noise(8, channels=4)).convert("RGB" if mode in {"P", "I;16"} else mode)
    if mode == "I;16":
        image = Image.fromarray(draw_noise(8).astype(np.uint16) * 200)
    if mode == "P":
        return encode_with_text(image.quantize(8), transparency=b"\x00\x80")
    return encode_with_text(image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_no_flipped_bit_changes_a_pixel(tmp_path: Path, mode: str) -> None:
    content = make_small(mode)
    wanted = decode(content, tmp_path, 8)
    for place, bit in enumerate(np.random.default_rng(0).integers(0, 8, len(content))):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(bit)
        try:
            decoded = decode(bytes(flipped), tmp_path, 8)
        except ValueError:
            continue
        assert place >= len(content) - 12, f"the byte at {place} is in no checksum"
        np.testing.assert_array_equal(decoded, wanted)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_no_cut_changes_a_pixel(tmp_path: Path, mode: str) -> None:
    content = make_small(mode)
    wanted = decode(content, tmp_path, 8)
    for length in range(len(content)):
        try:
            decoded = decode(content[:length], tmp_path, 8)
        except ValueError:
            continue
        assert length > len(content) - 12
        np.testing.assert_array_equal(decoded, wanted)


@pytest.mark.filterwarnings("ignore:Invalid APNG")
@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt"])
    | st.sampled_from([b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IHDR", b"abcd"]),
    data=st.binary(max_size=40),
    place=st.integers(0, 2),
    colour=st.sampled_from([0, 2, 3, 4, 6]),
)
def test_odd_chunks_give_pixels_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, kind: bytes, data: bytes, place: int, colour: int
) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    chunks = [(b"PLTE", bytes(range(6)))] if colour == 3 else []
    chunks.append((b"IDAT", zlib.compress((b"\0" + b"\1" * 4 * channels) * 4)))
    header_is_safe = kind != b"IHDR" or len(data) < 13  # a whole one may ask for gigabytes
    if header_is_safe:
        chunks.insert(min(place, len(chunks)), (kind, data))
    content = make_png(4, 4, *chunks, colour=colour)
    try:
        decoded = decode(content, tmp_path_factory.getbasetemp(), 4)
    except ValueError:
        return
    assert decoded.shape == (4, 4)


def write_truncated(path: Path) -> None:
    content = encode(Image.fromarray(draw_noise()))
    path.write_bytes(content[: len(content) // 2])


def write_flipped(path: Path) -> None:
    content = bytearray(encode(Image.fromarray(draw_noise())))
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def write_thin(path: Path) -> None:
    height = MAX_SIDE + 1
    path.write_bytes(make_png(1, height, (b"IDAT", zlib.compress(b"\0\1" * height))))


def write_link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def write_unreadable(path: Path) -> None:
    path.write_bytes(encode(Image.fromarray(draw_noise())))
    path.chmod(0)


GOOD_DATA = (b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4))
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "^empty file$"),
    "text": (lambda path: path.write_text("no image"), "^not a PNG image$"),
    "jpeg": (lambda path: path.write_bytes(encode(Image.fromarray(draw_noise()), "JPEG")), "^not a PNG image$"),
    "truncated": (write_truncated, "damaged"),
    "flipped": (write_flipped, "damaged"),
    "signature alone": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "not a PNG image|damaged"),
    "no pixels": (lambda path: path.write_bytes(make_png(4, 4)), "damaged"),
    "odd chunk at the end": (
        lambda path: path.write_bytes(make_png(4, 4, GOOD_DATA, (b"iCCP", b""))),
        "damaged",
    ),
    "bomb": (lambda path: path.write_bytes(make_png(50_000, 50_000, GOOD_DATA)), "too many pixels"),
    "large": (lambda path: path.write_bytes(make_png(9_000, 9_000, GOOD_DATA)), "9000 x 9000 pixels are too many"),
    "thin": (write_thin, f"1 x {MAX_SIDE + 1} pixels are too many"),
    "text bomb": (
        lambda path: path.write_bytes(
            make_png(4, 4, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8))), GOOD_DATA)
        ),
        "too large",
    ),
}
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "cannot be read: Is a directory"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file or directory"),
    "link loop": (write_link_loop, "cannot be read: Too many levels"),
    "unreadable": (write_unreadable, "cannot be read: Permission denied"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_now_is_not_put_down_to_the_data(tmp_path: Path, kind: str) -> None:
    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("the superuser can read everything")
    make, reason = UNREADABLE[kind]
    write_images(tmp_path / "images")
    bad = tmp_path / "images" / "2bad.png"
    make(bad)
    index = read_folder(tmp_path / "images")
    with pytest.raises(DataError, match=f"2bad.png: {reason}"):
        open_small(index, tmp_path)
    assert not list(tmp_path.glob("store/*"))


def test_a_store_whose_names_are_in_another_order_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    index = read_folder(tmp_path / "images")
    open_small(index, tmp_path)
    names = next(tmp_path.glob("store/*/images.csv"))
    header, *rows = names.read_text().split()
    names.write_text("\n".join([header, *reversed(rows)]) + "\n")
    with pytest.raises(DataError, match="not those of the index"):
        open_small(index, tmp_path)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_dropped_and_the_others_keep_their_names(tmp_path: Path, kind: str) -> None:
    make, reason = BAD[kind]
    write_images(tmp_path / "images")
    make(tmp_path / "images" / "2bad.png")
    make(tmp_path / "images" / "5bad.png")
    store = open_small(read_folder(tmp_path / "images"), tmp_path)
    assert store.dropped["image"].tolist() == ["2bad.png", "5bad.png"]
    assert store.dropped["path"].tolist() == [str(tmp_path / "images" / name) for name in store.dropped["image"]]
    assert store.dropped["reason"].str.contains(reason).all(), store.dropped["reason"].tolist()
    assert store.rows.index.tolist() == [f"{number}.png" for number in range(6)]
    assert store.images.shape == (6, SIDE, SIDE)
    for number in range(6):
        np.testing.assert_array_equal(store.images[store.rows[f"{number}.png"]], draw_noise(seed=number))


def test_each_bad_image_has_its_own_reason(tmp_path: Path) -> None:
    write_images(tmp_path / "images", n_images=1)
    (tmp_path / "images" / "b.png").touch()
    (tmp_path / "images" / "a.png").write_text("text")
    store = open_small(read_folder(tmp_path / "images"), tmp_path)
    assert dict(zip(store.dropped["image"], store.dropped["reason"], strict=True)) == {
        "a.png": "not a PNG image",
        "b.png": "empty file",
    }


# The folder


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    index = write_images(tmp_path / "images", n_images=30)
    (tmp_path / "images" / "7.png").write_text("text")
    for workers in (1, 5):
        open_small(index, tmp_path / str(workers), workers=workers)
    one, five = (list_folders(tmp_path / name)[0] for name in ("1", "5"))
    assert one.name == five.name
    for path in one.iterdir():
        assert path.read_bytes() == (five / path.name).read_bytes()


def test_a_store_is_built_once(tmp_path: Path) -> None:
    index = write_images(tmp_path / "images")
    (tmp_path / "images" / "3.png").write_text("text")
    first = open_small(index, tmp_path)
    shutil.rmtree(tmp_path / "images")
    moved = index.assign(path=[path.replace("images", "elsewhere") for path in index["path"]])
    for again in (open_small(index, tmp_path), open_small(moved, tmp_path)):
        np.testing.assert_array_equal(again.images, first.images)
        pd.testing.assert_series_equal(again.rows, first.rows)
        pd.testing.assert_frame_equal(again.dropped, first.dropped)
    assert len(list_folders(tmp_path)) == 1


def test_other_pixels_have_another_folder(tmp_path: Path) -> None:
    index = write_images(tmp_path / "images")
    stores = [
        open_small(index, tmp_path),
        open_small(index, tmp_path, size=16),
        open_small(index, tmp_path, resize="stretch"),
        open_small(index[1:].reset_index(drop=True), tmp_path),
    ]
    Image.fromarray(draw_noise(16)).save(tmp_path / "images" / "0.png")
    stores.append(open_small(read_folder(tmp_path / "images"), tmp_path))
    assert len(list_folders(tmp_path)) == len(stores)
    assert [store.images.shape[0] for store in stores] == [6, 6, 6, 5, 6]
    assert (stores[0].images[0] != stores[-1].images[0]).any()


def test_a_store_cannot_be_changed_by_its_readers(tmp_path: Path) -> None:
    store = open_small(write_images(tmp_path / "images"), tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_nothing_is_left_where_no_image_can_be_decoded(tmp_path: Path) -> None:
    index = write_images(tmp_path / "images")
    for path in index["path"]:
        Path(path).write_text("text")
    with pytest.raises(DataError, match=r"small: none of the 6 images can be decoded; 0\.png: not a PNG image"):
        open_small(index, tmp_path)
    assert list_folders(tmp_path) == []


def test_nothing_is_left_where_there_is_no_space(tmp_path: Path) -> None:
    index = write_images(tmp_path / "images", n_images=30)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError, match=r"too large; the store needs 2 MiB"):
            open_small(index, tmp_path, size=256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list_folders(tmp_path) == []
    assert open_small(index, tmp_path, size=256).images.shape == (30, 256, 256)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_space_is_taken_before_the_work(tmp_path: Path) -> None:
    _create_images(tmp_path / "images.npy", 100, 64)
    assert 512 * (tmp_path / "images.npy").stat().st_blocks >= 100 * 64**2


def cut_images(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as file:
        file.truncate(1000)


def replace_images(folder: Path) -> None:
    np.save(folder / "images.npy", np.zeros((6, SIDE, SIDE), np.float32))


def lose_a_name(folder: Path) -> None:
    lines = (folder / "images.csv").read_text().splitlines()
    (folder / "images.csv").write_text("\n".join(lines[:-1]) + "\n")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "images cut": cut_images,
    "images empty": lambda folder: (folder / "images.npy").write_bytes(b""),
    "images of another type": replace_images,
    "images gone": lambda folder: (folder / "images.npy").unlink(),
    "a name lost": lose_a_name,
    "names empty": lambda folder: (folder / "images.csv").write_bytes(b""),
    "names without header": lambda folder: (folder / "images.csv").write_text("1\n2\n3\n"),
    "dropped gone": lambda folder: (folder / "dropped.csv").unlink(),
    "dropped empty": lambda folder: (folder / "dropped.csv").write_text("image,path,reason\n"),
    "manifest cut": lambda folder: (folder / "manifest.json").write_text("{"),
    "manifest of another kind": lambda folder: (folder / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_store_says_what_to_do(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path / "images")
    (tmp_path / "images" / "bad.png").touch()
    index = read_folder(tmp_path / "images")
    wanted = np.array(open_small(index, tmp_path).images)
    [folder] = list_folders(tmp_path)
    DAMAGE[kind](folder)
    with pytest.raises(DataError, match=r"remove the folder, it is built anew") as caught:
        open_small(index, tmp_path)
    assert str(folder) in str(caught.value)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(open_small(index, tmp_path).images, wanted)


def test_the_real_sample_decodes(nih_sample: Path, tmp_path: Path) -> None:
    index = read_nih(nih_sample).index
    store = open_store(index, "nih", 64, "pad", tmp_path)
    assert store.dropped.empty
    assert store.images.shape == (1000, 64, 64)
    assert store.rows.index.tolist() == index["image"].tolist()
    spread = np.asarray(store.images).reshape(1000, -1).std(axis=1)
    assert spread.min() > 5
    for image, path in index[["image", "path"]].iloc[::100].itertuples(index=False):
        with Image.open(path) as original:
            gray = np.asarray(original.convert("RGB"))[..., 0].astype(float)
        scale = len(gray) // 64
        wanted = gray.reshape(64, scale, 64, scale).mean(axis=(1, 3))
        np.testing.assert_allclose(store.images[store.rows[image]], wanted, atol=0.51)
