"""Training on what the frozen part of a network made of the images, kept on disk; and on a compiled network."""

import errno
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lab import Lab, read_times

from cxrlit.config import PhaseConfig
from cxrlit.core.errors import ConfigError
from cxrlit.data.sampler import Draw
from cxrlit.data.torch_datasets import Features, pack, restore
from cxrlit.model.checkpoint import read_checkpoint
from cxrlit.model.densenet import build_network, count_frozen_units, unfreeze_last
from cxrlit.training.callbacks import FreezeBatchNorm
from cxrlit.training.feature_cache import Pass, _compute, _create, _open, find_along
from cxrlit.training.freezing import Freezing
from cxrlit.training.plan import PlannedPhase

CACHED = ("cache_features=true",)
N_UNITS = {0: 66, 2: 66, 10: 64, 50: 58, 100: 51, 200: 36, 424: 4, 427: 0}
"""Units that nothing trains in, by the number of layers that train."""


@pytest.mark.parametrize("n_unfreeze", [0, 2, 10, 50, 100, 200, 424])
def test_the_two_parts_of_a_network_are_the_network(n_unfreeze: int) -> None:
    network = build_network("none", "imagenet", 8, seed=0).eval()
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    unfreeze_last(network, n_unfreeze)
    FreezeBatchNorm().freeze(network)
    trained = {one for one in network.parameters() if one.requires_grad}
    n_units = count_frozen_units(network.units)
    assert n_units == N_UNITS[n_unfreeze]
    [made] = network.forward_frozen(images, [n_units])
    assert not made.requires_grad
    assert not trained & {weight for unit in network.units[:n_units] for weight in unit.parameters()}
    if n_units < len(network.units):
        assert trained & set(network.units[n_units].parameters())
    else:
        made = network.forward_trainable(made, n_units).mean(dim=(2, 3))
    kept = restore(pack(made))
    assert torch.equal(network.forward_from_features(kept, n_units), network(images))


def test_what_is_kept_has_its_bits() -> None:
    maps = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    for features in (
        maps,
        maps.bfloat16(),
        maps.contiguous(memory_format=torch.channels_last).bfloat16(),
        maps[..., 0, 0],
    ):
        assert torch.equal(restore(pack(features)), features)
        assert restore(pack(features)).dtype == features.dtype


def test_an_epoch_reads_its_view_and_a_copy_the_next() -> None:
    views = [np.full((3, 2), view, np.float32) for view in range(3)]
    features = Features(66, views, views[0])
    draws = [Draw(0, 1, 0), Draw(4, 0, 0), Draw(4, 0, 1), Draw(5, 2, 1)]
    assert features.take_train(draws)[:, 0].tolist() == [0, 1, 2, 0]


def plan(n_unfreeze: int, n_views: int = 2, img_size: int = 32, adapts: bool = False) -> PlannedPhase:
    config = PhaseConfig(
        img_size=img_size, batch_size=8, n_unfreeze=n_unfreeze, n_unfreeze_schedule=None, batch_norm="frozen", lr=1e-3,
        max_epochs=2, scheduler=None, require_improvement=False, callbacks={},
    )  # fmt: skip
    n_units = N_UNITS[n_unfreeze]
    freezing = Freezing(n_units, 0, 1, batch_norm_trains=False, batch_norm_frozen=True, adapts=adapts)
    return PlannedPhase("frozen", config, freezing, "id", Path(), "run", n_cached_units=n_units, n_views=n_views)


@pytest.mark.parametrize(
    ("later", "along"),
    [
        ([plan(100)], {51: 2}),
        ([plan(100, n_views=1)], {51: 1}),
        ([plan(427, n_views=0)], {}),
        ([plan(100, img_size=64)], {}),
        ([plan(50), plan(100)], {58: 2, 51: 2}),
        ([plan(100), plan(50)], {51: 2}),  # what it takes as it is, the first trains
        ([plan(100, img_size=64), plan(50)], {}),
        ([plan(0)], {}),
        ([plan(100, adapts=True), plan(200)], {}),  # its statistics, and those that it hands on, are others
    ],
)
def test_what_lies_on_the_way(later: list[PlannedPhase], along: dict[int, int]) -> None:
    assert find_along(plan(0), later) == along


def test_a_disk_without_room_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> list[None]:
        raise AssertionError("it was computed")

    network = build_network("none", "imagenet", 8, seed=0).eval()
    paths = {66: tmp_path / "a" / "val.npy", 51: tmp_path / "b" / "val.npy"}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    row = (1024 + 576) * 4
    with pytest.raises(ConfigError, match=rf"take {100_000 * row / 2**20:,.0f} MiB and 1 are free: set another"):
        _compute(network, [Pass(load, 100_000, paths)], 32, "cpu", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, start: int, n_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=r"No space left on device: .*val.npy"):
        _create(tmp_path / "val.npy", 10, np.zeros((2, 3), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["phase=frozen"], ["phase=finetune", "n_unfreeze=100"]], ids=["frozen", "finetune"]
)
def test_with_a_view_an_epoch_it_is_the_training_without(lab: Lab, tmp_path: Path, arguments: list[str]) -> None:
    arguments = [*arguments, "max_epochs=2"]
    plain = lab.train_well(*arguments)
    cached = lab.train_well(*arguments, "cache_features=true", "feature_views=2")
    assert plain.name != cached.name
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in (plain, cached))
    pd.testing.assert_frame_equal(one, two, rtol=2e-3, atol=2e-3)
    weights = [read_checkpoint(folder).weights for folder in (plain, cached)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_they_are_computed_once_and_serve_what_has_the_same(lab: Lab, tmp_path: Path) -> None:
    lab.cache = tmp_path / "cache"
    first = lab.train("phase=finetune", "n_unfreeze=50", "max_epochs=3", *CACHED)
    assert "1 view of each training image, 0 MiB" in first.out  # the frozen phase has one epoch
    assert "2 of 2 files computed" in first.out
    assert "2 views of each training image" in first.out
    assert "1 of 3 files computed" in first.out  # the others lie on the way of what the frozen phase needs
    folder = lab.cache / "features"
    for name in folder.glob("*/train-1.npy"):  # only the second phase has a second view
        name.write_bytes(name.read_bytes()[:-1000])
        damaged = name
    again = lab.train("phase=finetune", "n_unfreeze=50", "max_epochs=3", "lr=2e-3", *CACHED)
    assert "1 of 3 files computed" in again.out
    assert _open(damaged, len(pd.read_csv(lab.tree / "Data_Entry_2017_v2020.csv"))) is None  # another number of rows
    before = read_times(folder)
    second = lab.train("phase=finetune", "n_unfreeze=50", "max_epochs=3", "lr=1e-3", *CACHED)
    assert second.code == 0
    assert "0 of 3 files computed" in second.out
    assert {path: time for path, time in read_times(folder).items() if path.suffix == ".npy"} == {
        path: time for path, time in before.items() if path.suffix == ".npy"
    }


@pytest.mark.slow
def test_what_is_kept_on_the_way_is_what_the_later_phase_would_compute(lab: Lab, tmp_path: Path) -> None:
    settings = (
        "phases.finetune.n_unfreeze=50",
        "phases.finetune.max_epochs=2",
        "phases.highres.n_unfreeze=200",
        *CACHED,
    )
    lab.cache = tmp_path / "at once"
    at_once = lab.train("phase=highres", *settings)
    assert re.findall(r"(\d) of (\d) files computed", at_once.out) == [("2", "2"), ("1", "3"), ("0", "2")]
    lab.cache, lab.runs = tmp_path / "one by one", tmp_path / "runs of it"
    for phase in ("frozen", "finetune", "highres"):
        alone = lab.train(f"phase={phase}", *settings)
    assert re.findall(r"(\d) of (\d) files computed", alone.out) == [("2", "2")]
    kept = [
        {path.relative_to(folder): path.read_bytes() for path in (folder / "features").glob("*/*.npy")}
        for folder in (tmp_path / "at once", tmp_path / "one by one")
    ]
    assert len(kept[0]) == 2 + 3 + 2
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_what_an_earlier_phase_trains_is_not_kept_on_the_way(lab: Lab, tmp_path: Path) -> None:
    lab.cache = tmp_path / "cache"
    trained = lab.train("phase=highres", "phases.finetune.n_unfreeze=100", "phases.highres.n_unfreeze=50", *CACHED)
    assert re.findall(r"(\d) of (\d) files computed", trained.out) == [("2", "2"), ("0", "2"), ("2", "2")]


@pytest.mark.slow
def test_a_phase_that_adapts_computes_its_features_after_it(lab: Lab) -> None:
    plain = lab.train_well("phase=finetune", "n_unfreeze=10", "batch_norm=adapt", "augment=none")
    cached = lab.train_well("phase=finetune", "n_unfreeze=10", "batch_norm=adapt", "augment=none", *CACHED)
    weights = [read_checkpoint(folder).weights for folder in (plain, cached)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_compiled_part_is_that_part() -> None:
    network = build_network("none", "imagenet", 8, seed=0).eval()
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    [plain] = network.forward_frozen(images, [5])
    network.compile_parts()
    assert torch.allclose(network.forward_frozen(images, [5])[0], plain, atol=1e-5)
    assert list(network.state_dict()) == list(build_network("none", "imagenet", 8, seed=0).state_dict())
