"""The pictures: what is transparent, where the boxes are, what the captions say, and no file of another evaluation."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from cxrlit.evaluation.localisation.overlays import (
    BOX_COLOR,
    GAP_PX,
    MAX_ALPHA,
    Shown,
    color_heatmap,
    compose_pair,
    describe_overlay,
    draw_overlays,
)
from cxrlit.evaluation.localisation.shown_images import ShownImage


def make_example(label: str = "Mass", kind: str = "true_positive", rank: int = 1, **changes: object) -> ShownImage:
    return ShownImage(label, kind, rank, "00000001_000.png", 0.8, 0.25, 1.0)._replace(**changes)


def make_shown(boxes: object = (), heatmap: NDArray[np.float32] | None = None) -> Shown:
    pixels = np.full((64, 64), 100, np.uint8)
    return Shown(
        pixels, np.zeros((4, 4), np.float32) if heatmap is None else heatmap, np.array(boxes, float).reshape(-1, 4)
    )


def test_zero_is_transparent_and_one_the_most_opaque() -> None:
    colors = color_heatmap(np.array([[0, 0.5], [1, 0]], np.float32))
    assert colors[..., 3].tolist() == [[0, pytest.approx(MAX_ALPHA / 2)], [pytest.approx(MAX_ALPHA), 0]]
    brightness = color_heatmap(np.linspace(0, 1, 50, dtype=np.float32)[None])[0, :, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()  # the order of strengths is seen in gray too


def test_pictures_and_sheets(tmp_path: Path) -> None:
    hot = np.zeros((4, 4), np.float32)
    hot[0, 0] = 1
    shown = {
        make_example(): make_shown([[16, 16, 48, 40]], hot),
        make_example(rank=2, image="b.png"): make_shown(),
        make_example(kind="false_negative", prob=0.01): make_shown(),
        make_example(label="Pleural Thickening", kind="false_positive", target=0.0): make_shown(),
    }
    pictures, sheets = draw_overlays(shown, tmp_path / "heatmaps")
    assert [picture.path.name for picture in pictures] == [
        "Mass-true-positive-1.png",
        "Mass-true-positive-2.png",
        "Mass-false-negative-1.png",
        "Pleural_Thickening-false-positive-1.png",
    ]
    assert [picture.path.name for picture in sheets] == ["Mass.png", "Pleural_Thickening.png"]
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == {
        picture.path.name for picture in (*pictures, *sheets)
    }
    with_box, plain = (imread(picture.path)[..., :3] for picture in pictures[:2])
    color = np.array(BOX_COLOR) / 255
    assert (np.abs(with_box - color).max(axis=2) < 0.01).sum() > 200
    assert not (np.abs(plain - color).max(axis=2) < 0.01).any()
    # Where the map is 0 the radiograph shows as it is: both panels are gray, and only in the other picture is colour.
    assert np.ptp(plain, axis=2).max() == 0
    assert np.ptp(with_box, axis=2).max() > 0.2

    draw_overlays({make_example(): make_shown()}, tmp_path / "heatmaps")
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == {"Mass-true-positive-1.png", "Mass.png"}


def test_radiograph_and_box_are_in_their_place() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[16:32, 32:64] = 200
    pair = compose_pair(Shown(pixels, np.zeros((2, 2), np.float32), np.array([[8.0, 40, 24, 56]])), 128)
    assert pair.shape == (128, 2 * 128 + GAP_PX, 3)
    left, right = pair[:, :128], pair[:, -128:]
    np.testing.assert_array_equal(left, right)
    assert (left[40:56, 72:120] == 200).all()
    is_box = (left == BOX_COLOR).all(axis=2)
    rows, columns = np.flatnonzero(is_box.any(axis=1)), np.flatnonzero(is_box.any(axis=0))
    assert np.abs([columns[0] - 16, rows[0] - 80, columns[-1] - 47, rows[-1] - 111]).max() <= 1
    assert not is_box[84:108, 20:44].any()  # an outline


def test_heat_is_in_its_place() -> None:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[1, 2] = 1
    pair = compose_pair(Shown(np.full((64, 64), 100, np.uint8), heatmap, np.empty((0, 4))), 128).astype(int)
    assert (pair[:, :128] == 100).all()
    change = np.abs(pair[:, -128:] - 100).sum(axis=2)
    assert change[48, 80] == change.max() > 100
    assert not change[:, :32].any()


def test_nothing_to_show(tmp_path: Path) -> None:
    assert draw_overlays({}, tmp_path / "heatmaps") == ([], [])


def test_captions_say_what_was_decided() -> None:
    assert describe_overlay(make_example(), make_shown()) == (
        "Mass, found: 00000001_000.png, probability 0.800 (threshold 0.250), label present"
    )
    assert (
        describe_overlay(
            make_example(kind="with_box", threshold=float("nan"), target=float("nan")),
            make_shown([[0, 0, 5, 5], [9, 9, 12, 12]]),
        )
        == "Mass, with a box: 00000001_000.png, probability 0.800 (no threshold), label unknown, 2 boxes drawn"
    )
