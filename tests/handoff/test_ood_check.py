"""The check of inputs: its measures are what they are said to be."""

import numpy as np
import pytest
from bundles import make_images
from scipy.stats import pearsonr, wasserstein_distance

from cxrlit.handoff.ood_check import (
    SHARE,
    accumulate,
    correlate,
    find_oddities,
    make_reference,
    measure_histogram_distance,
    shrink,
)


def test_the_distance_is_that_of_wasserstein() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.integers(low, high, (32, 32), dtype=np.uint8) for low, high in ((0, 200), (90, 256)))
    expected = wasserstein_distance(one.ravel(), other.ravel())
    assert measure_histogram_distance(one, accumulate(other)) == pytest.approx(expected)


def test_the_correlation_is_pearsons() -> None:
    one, other = make_images(2, size=96)
    assert correlate(one, shrink(other)) == pytest.approx(pearsonr(shrink(one).ravel(), shrink(other).ravel())[0])
    assert correlate(np.full((64, 64), 9, np.uint8), shrink(other)) == 0.0


def test_the_limits_are_those_of_validation() -> None:
    """About twice their share of images like those of the training is warned of, and no more."""
    reference = make_reference(make_images(200), make_images(1000, seed=1))
    warned = [bool(find_oddities(image, 32, 32, 0.0, "", reference)) for image in make_images(2000, seed=2)]
    assert np.mean(warned) < 4 * SHARE
    assert reference.n_train == 200
    assert reference.n_val == 1000
