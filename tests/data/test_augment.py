"""Augmentation is what the config says, and a function of the image and the seed."""

import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from cxrlit.config import AugmentConfig
from cxrlit.data.augment import Augment, build_augment, key_names, seed_of

CONF = Path(__file__).parents[2] / "conf" / "augment"
SEEDS = range(60)


def read_choice(name: str) -> AugmentConfig:
    return AugmentConfig.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")))


def make_augment(**changes: float) -> Augment:
    return Augment(AugmentConfig(**{"flip": 0.0, "rotate": 0.0, "zoom": 0.0, "contrast": 0.0, **changes}))


def draw_noise(side: int = 64) -> NDArray[np.uint8]:
    image = np.random.default_rng(0).integers(60, 190, (side, side), dtype=np.uint8)
    image.flags.writeable = False  # as the store's are
    return image


def draw_bar(height: int, width: int, side: int = 128) -> NDArray[np.uint8]:
    """A white bar in the middle of black."""
    image = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    image[top : top + height, left : left + width] = 255
    return image


@pytest.mark.parametrize("side", [32, 33, 224])
def test_shape_type_and_input_are_kept(side: int) -> None:
    image = draw_noise(side)
    augmented = Augment(read_choice("default"))(image, 1)
    assert augmented.shape == (side, side)
    assert augmented.dtype == np.uint8
    np.testing.assert_array_equal(image, draw_noise(side))


@pytest.mark.parametrize("changes", [{"rotate": 7.0}, {"zoom": 0.1}, {"contrast": 0.15}, None], ids=str)
def test_the_seed_decides(changes: dict[str, float] | None) -> None:
    augment = make_augment(**changes) if changes else Augment(read_choice("default"))
    image = draw_noise()
    first = [augment(image, seed) for seed in SEEDS]
    again = [augment(image, seed) for seed in reversed(SEEDS)][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({augmented.tobytes() for augmented in first}) > 0.8 * len(SEEDS)


def test_nothing_else_decides() -> None:
    image = draw_noise()
    wanted = Augment(read_choice("default"))(image, 5)
    states: list[Any] = [np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()]  # noqa: NPY002
    other = Augment(read_choice("default"))
    other(draw_noise(33), 17)
    np.testing.assert_array_equal(other(image, 5), wanted)
    assert [np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()] == states  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_of_32_bits_will_do(seed: int) -> None:
    assert Augment(read_choice("default"))(draw_noise(), seed).shape == (64, 64)


def test_a_flip_mirrors_and_does_nothing_else() -> None:
    image = draw_noise()
    np.testing.assert_array_equal(make_augment(flip=1.0)(image, 0), image[:, ::-1])


def test_a_flip_comes_as_often_as_the_config_says() -> None:
    augment, image = make_augment(flip=0.25), draw_noise(8)
    flips = [not np.array_equal(augment(image, seed_of(0, 0, row)), image) for row in range(1000)]
    assert np.mean(flips) == pytest.approx(0.25, abs=0.05)


def test_a_rotation_is_in_degrees_and_both_ways() -> None:
    augment, bar = make_augment(rotate=7.0), draw_bar(100, 6)
    angles = []
    for seed in SEEDS:
        rows, columns = np.nonzero(augment(bar, seed) > 127)
        angles.append(np.degrees(np.arctan(np.polyfit(rows, columns, 1)[0])))
    assert 6 < max(angles) < 7.3
    assert -7.3 < min(angles) < -6


def test_a_zoom_is_a_fraction_and_both_ways() -> None:
    augment, bar = make_augment(zoom=0.1), draw_bar(60, 60)
    scales = [np.sqrt(augment(bar, seed).sum() / bar.sum()) for seed in SEEDS]
    assert 1.07 < max(scales) < 1.12
    assert 0.88 < min(scales) < 0.93


def test_contrast_is_about_the_mean() -> None:
    augment, image = make_augment(contrast=0.15), draw_noise()
    augmented = [augment(image, seed) for seed in SEEDS]
    spreads = [changed.std() / image.std() for changed in augmented]
    assert 1.12 < max(spreads) < 1.16
    assert 0.84 < min(spreads) < 0.88
    assert max(abs(changed.mean() - image.mean()) for changed in augmented) < 1


def test_what_comes_in_from_outside_is_black() -> None:
    corner = make_augment(rotate=45.0)(np.full((64, 64), 255, np.uint8), 3)[0, 0]
    assert corner == 0


def test_no_change_is_no_augmentation() -> None:
    assert build_augment(read_choice("none")) is None


@pytest.mark.parametrize("name", ["flip", "rotate", "zoom", "contrast"])
def test_one_change_is_augmentation(name: str) -> None:
    assert build_augment(read_choice("none").model_copy(update={name: 0.1})) is not None


def test_each_image_in_each_epoch_has_a_seed_of_its_own() -> None:
    keys = key_names(f"{row}.png" for row in range(100)).tolist()
    settings = product((0, 1), range(10), keys, (0, 1))
    seeds = [seed_of(*setting) for setting in settings]
    assert len(set(seeds)) == len(seeds) == 2 * 10 * 100 * 2
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine() -> None:
    (key,) = key_names(["00000001_000.png"]).tolist()
    assert (key, seed_of(0, 0, key)) == (9_092_785_023_711_875_664, 3_245_463_221)
