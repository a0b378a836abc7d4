"""Augmentation is what the config says, and a function of the image and the seed."""

import pickle
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from augmenting import CHOICES, FLIP, SEEDS, draw_noise, make_augment, read_choice, write_config
from numpy.typing import NDArray

from cxrlit.config import AugmentConfig
from cxrlit.data.augment import Augment, build_augment, key_names, seed_of


def draw_bar(height: int, width: int, side: int = 128) -> NDArray[np.uint8]:
    """A white bar in the middle of black."""
    image = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    image[top : top + height, left : left + width] = 255
    return image


def measure_angle(image: NDArray[np.uint8]) -> float:
    """Degrees between a bar and the vertical."""
    rows, columns = np.nonzero(image > 127)
    return float(np.degrees(np.arctan(np.polyfit(rows, columns, 1)[0])))


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "none"])
@pytest.mark.parametrize("side", [32, 33, 224])
def test_shape_type_and_input_are_kept(name: str, side: int) -> None:
    image = draw_noise(side)
    augment = Augment(read_choice(name), side)
    for seed in range(5):
        augmented = augment(image, seed)
        assert augmented.shape == (side, side)
        assert augmented.dtype == np.uint8
    np.testing.assert_array_equal(image, draw_noise(side))


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "none"])
def test_the_seed_decides(name: str) -> None:
    augment, image = Augment(read_choice(name), 64), draw_noise()
    first = [augment(image, seed) for seed in SEEDS]
    again = [augment(image, seed) for seed in reversed(SEEDS)][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({augmented.tobytes() for augmented in first}) > 0.7 * len(SEEDS)  # crops of 64 px have few places


def test_nothing_else_decides() -> None:
    image = draw_noise()
    wanted = Augment(read_choice("strong"), 64)(image, 5)
    states: list[Any] = [np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()]  # noqa: NPY002
    other = Augment(read_choice("strong"), 64)
    other(image[::-1], 17)
    np.testing.assert_array_equal(other(image, 5), wanted)
    assert [np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()] == states  # noqa: NPY002


def test_a_copy_in_another_process_does_the_same() -> None:
    augment, image = Augment(read_choice("strong"), 64), draw_noise()
    sent = pickle.dumps(augment)
    assert b"albumentations.core" not in sent  # it builds its own
    other = pickle.loads(sent)
    for seed in SEEDS:
        np.testing.assert_array_equal(other(image, seed), augment(image, seed))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_of_32_bits_will_do(seed: int) -> None:
    assert Augment(read_choice("default"), 64)(draw_noise(), seed).shape == (64, 64)


def test_two_flips_are_independent() -> None:
    augment = make_augment(8, across=FLIP, down={**FLIP, "_target_": "VerticalFlip"})
    image = np.zeros((8, 8), np.uint8)
    image[0, 0] = 255
    corners = [np.unravel_index(augment(image, seed).argmax(), image.shape) for seed in range(2000)]
    for corner in product((0, 7), repeat=2):
        assert corners.count(corner) == pytest.approx(500, abs=80)


def test_a_parameter_does_not_depend_on_a_flip_before_it() -> None:
    turn = {"_target_": "Affine", "rotate": [-7, 7], "p": 1}
    augment, bar = make_augment(64, down={**FLIP, "_target_": "VerticalFlip"}, turn=turn), draw_bar(50, 4, side=64)
    bar[32:] = bar[32:] // 255 * 200
    images = [augment(bar, seed) for seed in range(600)]
    flips = np.array([image[32:].max() > 220 for image in images])
    angles = np.array([measure_angle(image) for image in images])
    assert flips.mean() == pytest.approx(0.5, abs=0.08)
    assert abs(np.corrcoef(flips, angles)[0, 1]) < 0.15
    assert {angle > 0 for angle in angles[flips]} == {angle > 0 for angle in angles[~flips]} == {True, False}


def test_a_flip_mirrors_and_does_nothing_else() -> None:
    image = draw_noise()
    np.testing.assert_array_equal(make_augment(flip={**FLIP, "p": 1})(image, 0), image[:, ::-1])


def test_a_flip_comes_as_often_as_the_config_says() -> None:
    augment, image = make_augment(8, flip={**FLIP, "p": 0.25}), draw_noise(8)
    flips = [not np.array_equal(augment(image, seed_of(0, 0, row)), image) for row in range(1000)]
    assert np.mean(flips) == pytest.approx(0.25, abs=0.05)


def test_transforms_are_applied_in_their_order() -> None:
    image = draw_noise()
    flip, turn = {**FLIP, "p": 1}, {"_target_": "Transpose", "p": 1}
    np.testing.assert_array_equal(make_augment(flip=flip, turn=turn)(image, 0), image[:, ::-1].T)
    np.testing.assert_array_equal(make_augment(turn=turn, flip=flip)(image, 0), image.T[:, ::-1])


def keep(name: str, *kept: str) -> AugmentConfig:
    """Some of the transforms of a choice."""
    transforms = read_choice(name).transforms
    return AugmentConfig(transforms={part: transforms[part] for part in kept})


def test_the_default_turns_in_degrees_and_both_ways() -> None:
    config = AugmentConfig(transforms={"affine": {**read_choice("default").transforms["affine"], "scale": 1}})
    augment, bar = Augment(config, 128), draw_bar(100, 6)
    angles = [measure_angle(augment(bar, seed)) for seed in SEEDS]
    assert 6 < max(angles) < 7.3
    assert -7.3 < min(angles) < -6


def test_the_default_zooms_both_ways() -> None:
    augment, bar = Augment(keep("default", "affine"), 128), draw_bar(60, 60)
    scales = [np.sqrt(augment(bar, seed).sum() / bar.sum()) for seed in SEEDS]
    assert 1.07 < max(scales) < 1.12
    assert 0.88 < min(scales) < 0.93


def test_the_contrast_of_the_default_multiplies_the_gray_values() -> None:
    augment, image = Augment(keep("default", "contrast"), 64), draw_noise()
    factors = []
    for seed in SEEDS:
        changed = augment(image, seed)
        factors.append(changed.std() / image.std())
        np.testing.assert_allclose(changed, image * factors[-1], atol=2)
    assert 1.12 < max(factors) < 1.16
    assert 0.84 < min(factors) < 0.88


@pytest.mark.parametrize(("name", "part"), [("default", "affine"), ("strong", "affine"), ("crop", "crop")])
def test_no_choice_stretches_width_and_height_apart(name: str, part: str) -> None:
    augment, side = Augment(keep(name, part), 128), np.arange(128) - 63.5
    disc = np.where(np.add.outer(side**2, side**2) < 30**2, 255, 0).astype(np.uint8)
    sizes = []
    for seed in SEEDS:
        rows, columns = np.nonzero(augment(disc, seed) > 127)
        assert columns.std() / rows.std() == pytest.approx(1, abs=0.02)
        sizes.append(len(rows))
    assert max(sizes) > 1.1 * min(sizes)


def test_what_comes_in_from_outside_is_black() -> None:
    turn = {**read_choice("default").transforms["affine"], "rotate": [40, 45]}
    assert make_augment(turn=turn)(np.full((64, 64), 255, np.uint8), 3)[0, 0] == 0


def test_no_transform_is_no_augmentation() -> None:
    assert build_augment(read_choice("none"), 64) is None
    assert build_augment(write_config(flip=None), 64) is None
    assert build_augment(write_config(flip=FLIP, affine=None), 64) is not None


def test_each_image_in_each_epoch_has_a_seed_of_its_own() -> None:
    keys = key_names(f"{row}.png" for row in range(100)).tolist()
    settings = product((0, 1), range(10), keys, (0, 1))
    seeds = [seed_of(*setting) for setting in settings]
    assert len(set(seeds)) == len(seeds) == 2 * 10 * 100 * 2
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine() -> None:
    (key,) = key_names(["00000001_000.png"]).tolist()
    assert (key, seed_of(0, 0, key)) == (9_092_785_023_711_875_664, 3_245_463_221)
