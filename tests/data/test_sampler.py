"""Every epoch's draws are a function of the seed and the epoch, and as many of each image as the rule says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.config import SamplerConfig
from cxrlit.data.sampler import BatchShares, EpochSampler, count_repeats, draw_epoch

LABELS = ("Mass", "Nodule", "Pneumonia")
OVERSAMPLE = SamplerConfig(name="oversample", labels=["Nodule", "Pneumonia"], prevalence=0.1)


def make_targets(n_images: int = 1000) -> np.ndarray:
    """Mass in every 100th image, Nodule in every 40th, Pneumonia in every 400th."""
    rows = np.arange(n_images)
    return np.column_stack([rows % 100 == 1, rows % 40 == 2, rows % 400 == 2]).astype(np.float32)


def test_a_plain_epoch_has_each_image_once() -> None:
    sampler = EpochSampler(np.ones(50), seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler) == 50
        assert {(draw.epoch, draw.copy) for draw in draws} == {(epoch, 0)}
        assert sorted(draw.row for draw in draws) == list(range(50))
        orders.append([draw.row for draw in draws])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert list(EpochSampler(np.ones(50), seed=4)) != list(EpochSampler(np.ones(50), seed=3))


def test_an_order_that_was_begun_keeps_its_epoch() -> None:
    sampler = EpochSampler(np.full(10, 1.5), seed=0)
    wanted = list(sampler)
    begun = iter(sampler)
    started = [next(begun)]
    sampler.set_epoch(1)
    assert started + list(begun) == wanted


@pytest.mark.parametrize("repeats", [np.ones(50), np.full(40, 1.3)])
def test_an_epoch_that_goes_on_leaves_out_what_is_behind(repeats: np.ndarray) -> None:
    whole, rest = EpochSampler(repeats, 5), EpochSampler(repeats, 5, first_epoch=2, n_done=7)
    whole.set_epoch(2)
    assert list(rest) == list(whole)[7:]  # before anybody told it the epoch
    assert len(rest) == len(whole)
    for epoch in (2, 3, 2):
        whole.set_epoch(epoch)
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[7 if epoch == 2 else 0 :]
    assert list(EpochSampler(repeats, 5, first_epoch=1, n_done=10_000)) == []


def test_rare_positives_are_repeated_by_the_rule() -> None:
    targets = make_targets()
    repeats = count_repeats(targets, LABELS, OVERSAMPLE)
    nodule, pneumonia = np.sqrt(0.1 / 0.025), np.sqrt(0.1 / 0.003)
    np.testing.assert_allclose(repeats[targets[:, 2] == 1], pneumonia)  # the rarer of its two labels
    np.testing.assert_allclose(repeats[(targets[:, 1] == 1) & (targets[:, 2] == 0)], nodule)
    np.testing.assert_array_equal(repeats[(targets[:, 1:] == 0).all(axis=1)], 1.0)  # Mass is not in the rule


def test_prevalence_is_over_the_known_targets() -> None:
    targets = make_targets()
    targets[targets[:, 1] == 0, 1] = np.nan
    assert (count_repeats(targets, LABELS, OVERSAMPLE)[targets[:, 2] == 0] == 1).all()


def test_shuffle_and_common_labels_repeat_nothing() -> None:
    shuffle = SamplerConfig(name="shuffle", labels=None, prevalence=None)
    assert (count_repeats(make_targets(), LABELS, shuffle) == 1).all()
    common = SamplerConfig(name="oversample", labels=["Nodule"], prevalence=0.02)
    assert (count_repeats(make_targets(), LABELS, common) == 1).all()


@settings(max_examples=200, deadline=None)
@given(
    repeats=st.lists(st.floats(1, 9), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
)
def test_each_row_is_drawn_its_repeats_up_or_down(repeats: list[float], seed: int, epoch: int) -> None:
    wanted = np.array(repeats)
    rows, copies = draw_epoch(wanted, seed, epoch)
    assert len(rows) == round(wanted.sum())
    times = np.bincount(rows, minlength=len(wanted))
    scaled = wanted * len(rows) / wanted.sum()
    assert (times >= np.floor(scaled - 1e-6)).all()
    assert (times <= np.ceil(scaled + 1e-6)).all()
    pairs = set(zip(rows.tolist(), copies.tolist(), strict=True))
    assert pairs == {(row, copy) for row, count in enumerate(times) for copy in range(count)}


def test_over_the_epochs_the_mean_is_the_repeats() -> None:
    repeats = np.array([1.0, 1.3, 2.5, 4.75, 1.0, 1.45])
    times = [np.bincount(draw_epoch(repeats, 0, epoch)[0], minlength=6) for epoch in range(3000)]
    np.testing.assert_allclose(np.mean(times, axis=0), repeats, atol=0.05)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("n_items", [1001, 1000, 33])  # the last batch has 9 items, 8, 1
def test_devices_share_every_global_batch(n_items: int, n_ranks: int) -> None:
    batches = list(BatchShares(range(n_items), 32))
    assert [item for batch in batches for item in batch] == list(range(n_items))
    shares = [list(BatchShares(range(n_items), 32, rank, n_ranks)) for rank in range(n_ranks)]
    assert len(batches) == len(BatchShares(range(n_items), 32))
    for number, whole in enumerate(batches):
        parts = [share[number] for share in shares]
        assert sorted(item for part in parts for item in part) == whole
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {len(share) for share in shares} == {len(batches)}


def test_the_draws_are_the_same_on_every_machine() -> None:
    repeats = np.array([1.0, 2.5, 1.25, 3.0])
    rows, copies = draw_epoch(repeats, seed=1, epoch=2)
    assert list(zip(rows.tolist(), copies.tolist(), strict=True)) == [
        (2, 0),
        (3, 1),
        (3, 0),
        (2, 1),
        (1, 0),
        (1, 1),
        (3, 2),
        (0, 0),
    ]
