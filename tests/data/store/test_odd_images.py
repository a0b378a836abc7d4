"""Images that are read otherwise than their file says are counted, named and listed, and used all the same."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stores import prepare
from tiny import write_tree

from cxrlit.commands.cli import main
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.image_io.decode import decode_image, decode_pixels

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
ODD = {
    "rgb.png": (np.repeat(NOISE[..., None], 3, axis=2), "gray saved as RGB"),
    "rgba.png": (np.dstack([*[NOISE] * 3, np.full_like(NOISE, 255)]), "gray saved as RGBA"),
    "colour.png": (np.dstack([NOISE, NOISE // 2, NOISE]), "colour, read as its luminance"),
    "rgb.jpg": (np.repeat(NOISE[..., None], 3, axis=2), "gray saved as RGB"),
    "flat-rgb.png": (np.full((32, 32, 3), 7, np.uint8), "gray saved as RGB"),
}
PLAIN = {"gray.png": NOISE, "la.png": np.dstack([NOISE, NOISE]), "deep.png": NOISE.astype(np.uint16) * 257}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in (PLAIN | {name: pixels for name, (pixels, _) in ODD.items()}).items():
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_what_is_odd_stays_with_the_store(images: Path, tmp_path: Path) -> None:
    [built] = prepare(images, tmp_path / "cache")
    [again] = prepare(images, tmp_path / "cache")
    wanted = {name: warning for name, (_, warning) in ODD.items()}
    names = sorted(path.name for path in images.iterdir())
    for store in (built, again):
        assert dict(zip(names, store.warnings, strict=True)) == {name: wanted.get(name, "") for name in names}
        assert store.dropped.empty
    (images / "rgb.png").unlink()
    [fewer] = prepare(images, tmp_path / "cache")
    assert np.count_nonzero(fewer.warnings) == len(ODD) - 1


def test_gray_in_channels_is_the_same_gray(images: Path) -> None:
    for name in ("rgb.png", "rgba.png"):
        np.testing.assert_array_equal(decode_pixels((images / name).read_bytes()), NOISE)
    assert [decode_image((images / name).read_bytes()).read_otherwise for name in PLAIN] == [[], [], []]


def test_prepare_and_training_count_them_with_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "nih")
    for number in (3, 8):
        path = tree / "images" / f"{number:04d}.png"
        Image.open(path).convert("RGB").save(path)
    line = "2 images are gray saved as RGB: 0003.png, 0008.png"
    main(["prepare", "data=nih", f"data.root={tree}", f"cache_dir={tmp_path}", "sizes=[32]"])
    assert " ".join(capsys.readouterr().out.split()).count(line) == 1
    module = CXRDataModule.from_nih(tree, img_size=32, cache_dir=tmp_path)
    module.setup()
    assert " ".join(capsys.readouterr().out.split()).count(line) == 1
    [listed] = (tmp_path / "noticed").glob("nih-*.csv")
    table = pd.read_csv(listed)
    assert table["image"].tolist() == ["0003.png", "0008.png"]
    assert set(table["reason"]) == {"gray saved as RGB"}
