"""Batches: each image once, beside its own target, in an order and with pixels that the seed and the epoch decide."""

import multiprocessing
import threading
from collections.abc import Iterable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from augmenting import FLIP, read_choice, write_config
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from cxrlit.config import AugmentConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.augment import build_augment
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.index import read_targets
from cxrlit.data.sampler import BatchShares, EpochSampler
from cxrlit.data.torch_datasets import Batch

SIZE = 48  # that of the tree's images: a batch holds the pixels of the files
PARTS = ("train", "val", "test")


@pytest.fixture
def data(nih_tree: Path, make_nih_config: Any) -> SplitData:
    return load_data(make_nih_config(nih_tree), LABELS, nih_tree)


@pytest.fixture
def augment() -> AugmentConfig:
    return read_choice("default")


def make_datamodule(
    data: SplitData, cache_dir: Path, augment: AugmentConfig | None = None, **changes: Any
) -> CXRDataModule:
    options = {"img_size": SIZE, "batch_size": 8, "resize": "pad", "num_workers": 0, "seed": 0, **changes}
    built = augment and build_augment(augment, options["img_size"])
    datamodule = CXRDataModule(data, cache_dir=cache_dir, augment=built, **options)
    datamodule.setup()
    return datamodule


def join(batches: Iterable[Batch]) -> Batch:
    whole = list(batches)
    return {key: torch.cat([batch[key] for batch in whole]) for key in ("image", "target", "row")}  # type: ignore


def read_epoch(loader: DataLoader[Batch], epoch: int) -> Batch:
    assert isinstance(loader.batch_sampler, BatchShares)
    assert isinstance(loader.batch_sampler.sampler, EpochSampler)
    loader.batch_sampler.sampler.set_epoch(epoch)
    return join(loader)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "target", "row"))  # type: ignore


def check_rows(batch: Batch, part: pd.DataFrame) -> None:
    """Every row of a batch has the pixels of its file and the targets of its image."""
    targets = read_targets(part, LABELS)
    for image, target, row in zip(batch["image"], batch["target"], batch["row"].tolist(), strict=True):
        with Image.open(part["path"][row]) as original:
            np.testing.assert_array_equal(image[0], np.asarray(original))
        np.testing.assert_array_equal(target, targets[row])


def test_batches_keep_their_contract(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    datamodule = make_datamodule(data, tmp_path, augment=augment, img_size=32)
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.plain_dataloader("test")):
        batches = list(loader)
        sizes = [len(batch["row"]) for batch in batches]
        assert sizes[:-1] == [8] * (len(sizes) - 1)
        for batch, size in zip(batches, sizes, strict=True):
            assert set(batch) == {"image", "target", "row"}
            assert (batch["image"].shape, batch["image"].dtype) == ((size, 1, 32, 32), torch.uint8)
            assert (batch["target"].shape, batch["target"].dtype) == ((size, 8), torch.float32)
            assert (batch["row"].shape, batch["row"].dtype) == ((size,), torch.int64)


def test_the_parts_are_those_of_the_split(data: SplitData, tmp_path: Path) -> None:
    datamodule = make_datamodule(data, tmp_path)
    assert tuple(datamodule.parts) == PARTS
    for name, part in datamodule.parts.items():
        split = data.split[data.split["split"] == name]
        assert part["image"].tolist() == split["image"].tolist()
        assert part["patient"].tolist() == split["patient"].tolist()


@pytest.mark.parametrize("part", PARTS)
def test_plain_batches_are_the_files_in_the_order_of_the_table(data: SplitData, tmp_path: Path, part: str) -> None:
    datamodule = make_datamodule(data, tmp_path, augment=write_config(flip={**FLIP, "p": 1}))
    batch = join(datamodule.plain_dataloader(part))
    assert batch["row"].tolist() == list(range(len(datamodule.parts[part])))
    check_rows(batch, datamodule.parts[part])


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_devices_share_the_rows_of_a_part(data: SplitData, tmp_path: Path, n_ranks: int) -> None:
    datamodule = make_datamodule(data, tmp_path)
    shares = [join(datamodule.plain_dataloader("test", rank, n_ranks)) for rank in range(n_ranks)]
    assert [share["row"].tolist() for share in shares] == [
        list(range(rank, len(datamodule.parts["test"]), n_ranks)) for rank in range(n_ranks)
    ]
    for share in shares:
        check_rows(share, datamodule.parts["test"])


def test_a_device_whose_share_of_a_batch_is_empty_has_the_batch_all_the_same(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_images = len(make_datamodule(data, tmp_path).parts["train"])
    monkeypatch.setattr("cxrlit.data.datamodule.n_ranks", lambda: 2)
    monkeypatch.setattr("cxrlit.data.datamodule.rank", lambda: 1)
    for num_workers in (0, 1):
        datamodule = make_datamodule(
            data, tmp_path, augment=augment, batch_size=n_images - 1, num_workers=num_workers, img_size=32
        )
        batches = list(datamodule.train_dataloader())
        assert [len(batch["row"]) for batch in batches] == [(n_images - 1) // 2, 0]
        assert batches[1]["image"].shape == (0, 1, 32, 32)
        assert batches[1]["target"].shape == (0, 8)


def test_validation_batches_are_the_store_bit_for_bit(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    datamodule = make_datamodule(data, tmp_path, augment=augment, img_size=32)
    rows = datamodule.parts["val"]["row"].to_numpy()
    np.testing.assert_array_equal(join(datamodule.val_dataloader())["image"][:, 0], datamodule.store.take(rows))


def test_training_batches_are_shuffled_files(data: SplitData, tmp_path: Path) -> None:
    datamodule = make_datamodule(data, tmp_path)
    loader = datamodule.train_dataloader()
    epochs = [read_epoch(loader, epoch) for epoch in range(3)]
    orders = [epoch["row"].tolist() for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        assert sorted(order) == list(range(len(datamodule.parts["train"])))
        check_rows(epoch, datamodule.parts["train"])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_unknown_targets_stay_unknown(data: SplitData, tmp_path: Path) -> None:
    data.index.loc[::3, "Mass"] = np.float32("nan")
    datamodule = make_datamodule(data, tmp_path)
    batch = join(datamodule.train_dataloader())
    assert batch["target"].isnan().any()
    check_rows(batch, datamodule.parts["train"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.parametrize("n_workers", [1, 2, 8])
@pytest.mark.parametrize("augmented", [True, False])
def test_the_number_of_workers_changes_nothing(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, augmented: bool, n_workers: int
) -> None:
    options = {"augment": augment if augmented else None}
    alone, many = (make_datamodule(data, tmp_path, num_workers=number, **options) for number in (0, n_workers))
    loaders = alone.train_dataloader(), many.train_dataloader()
    for epoch in range(2):
        assert equal(*(read_epoch(loader, epoch) for loader in loaders))
    assert equal(join(alone.val_dataloader()), join(many.val_dataloader()))


@pytest.mark.slow
def test_processes_that_are_spawned_change_nothing(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    alone, many = (make_datamodule(data, tmp_path, augment, num_workers=number) for number in (0, 2))
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = read_epoch(many.train_dataloader(), 1)
    finally:
        multiprocessing.set_start_method(method, force=True)
    assert equal(read_epoch(alone.train_dataloader(), 1), spawned)


@pytest.mark.parametrize("n_ranks", [1, 4])
def test_the_number_of_devices_changes_no_image(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, monkeypatch: pytest.MonkeyPatch, n_ranks: int
) -> None:
    whole = read_epoch(make_datamodule(data, tmp_path, augment).train_dataloader(), 1)
    monkeypatch.setattr("cxrlit.data.datamodule.n_ranks", lambda: n_ranks)
    shares = []
    for rank in range(n_ranks):
        monkeypatch.setattr("cxrlit.data.datamodule.rank", lambda rank=rank: rank)
        shares.append(read_epoch(make_datamodule(data, tmp_path, augment).train_dataloader(), 1))
    joined = join(shares)
    assert len(joined["row"]) == len(whole["row"])
    orders = [batch["row"].argsort() for batch in (whole, joined)]
    assert torch.equal(whole["image"][orders[0]], joined["image"][orders[1]])


def test_augmentation_for_another_size_is_refused(data: SplitData, tmp_path: Path) -> None:
    other = build_augment(read_choice("crop"), 32)
    with pytest.raises(ConfigError, match="img_size=48: augment is for 32 px"):
        CXRDataModule(data, img_size=48, batch_size=8, resize="pad", cache_dir=tmp_path, augment=other)


def test_processes_are_for_augmentation_alone(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    augmented, plain = (make_datamodule(data, tmp_path, augment=change, num_workers=2) for change in (augment, None))
    for loader in (augmented.val_dataloader(), augmented.plain_dataloader("test"), plain.train_dataloader()):
        batches = iter(loader)
        next(batches)
        assert not active_children()
    loader = augmented.train_dataloader()
    batch = next(iter(loader))
    assert len(active_children()) == 2
    assert batch["image"].shape[1:] == (1, SIZE, SIZE)
    assert "/dev/shm/torch" not in Path("/proc/self/maps").read_text()  # a container may have none to spare


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_epoch_does_not_depend_on_those_before(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, n_workers: int
) -> None:
    first, second = (
        make_datamodule(data, tmp_path, augment=augment, batch_size=2, num_workers=number) for number in (n_workers, 0)
    )
    loader = first.train_dataloader()
    read_epoch(loader, 0)
    next(iter(loader))  # an epoch that was cut short
    assert equal(read_epoch(loader, 5), read_epoch(second.train_dataloader(), 5))


def test_the_seed_decides_order_and_pixels(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    first, second = (
        read_epoch(make_datamodule(data, tmp_path, augment=augment, seed=seed).train_dataloader(), 0) for seed in (0, 1)
    )
    assert first["row"].tolist() != second["row"].tolist()
    by_row = [epoch["image"][epoch["row"].argsort()] for epoch in (first, second)]
    changed = (by_row[0] != by_row[1]).flatten(1).any(dim=1)
    assert changed.all()


def test_augmentation_differs_between_epochs_and_images(data: SplitData, tmp_path: Path) -> None:
    for path in data.index["path"]:
        Image.fromarray(np.tile(np.arange(SIZE, dtype=np.uint8), (SIZE, 1))).save(path)
    look_again(data)
    half = write_config(flip=FLIP)
    loader = make_datamodule(replace(data, allow_copies=True), tmp_path, augment=half).train_dataloader()
    flips = [
        epoch["image"][epoch["row"].argsort(), 0, 0, 0] > 0 for epoch in (read_epoch(loader, 0), read_epoch(loader, 1))
    ]
    assert 0.2 < (flips[0] != flips[1]).float().mean() < 0.8
    assert all(0.2 < flip.float().mean() < 0.8 for flip in flips)


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_that_goes_on_begins_after_the_batches_behind(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, num_workers: int, augmented: bool
) -> None:
    options = {"augment": augment if augmented else None, "num_workers": num_workers, "batch_size": 8}
    whole, rest = (make_datamodule(data, tmp_path, **options) for _ in range(2))
    rest.first_epoch, rest.n_batches_done = 2, 3
    loaders = [whole.train_dataloader(), rest.train_dataloader()]
    assert len(loaders[0]) == len(loaders[1])
    loaders[0].batch_sampler.sampler.set_epoch(2)
    batches, left = (list(loader) for loader in loaders)
    assert len(left) == len(batches) - 3
    assert equal(join(left), join(batches[3:]))
    assert equal(read_epoch(loaders[0], 3), read_epoch(loaders[1], 3))
    rest.n_batches_done = len(batches)
    assert list(rest.train_dataloader()) == []


def test_the_batch_size_changes_no_image(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    small, large = (
        read_epoch(make_datamodule(data, tmp_path, augment=augment, batch_size=size).train_dataloader(), 1)
        for size in (3, 1000)
    )
    assert equal(small, large)


def test_reading_leaves_the_global_generators_alone(data: SplitData, tmp_path: Path, augment: AugmentConfig) -> None:
    datamodule = make_datamodule(data, tmp_path, augment=augment)
    before = torch.get_rng_state()
    join(datamodule.train_dataloader())
    join(datamodule.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


class Recorder(LightningModule):
    """Trains one number, and notes the rows and the pixels that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[Batch]] = {}
        self.validated: list[Batch] = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.epochs.setdefault(self.current_epoch, []).append(batch)
        return self.weight * batch["image"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def validation_step(self, batch: Batch, _: int) -> None:
        self.validated.append(batch)

    def predict_step(self, batch: Batch, _: int) -> Tensor:
        return batch["image"]


def make_trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("augmented", [True, False])
def test_a_trainer_tells_the_order_its_epoch(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, augmented: bool, n_workers: int
) -> None:
    options = {"augment": augment if augmented else None}
    datamodule = make_datamodule(data, tmp_path, num_workers=n_workers, **options)
    recorder = Recorder()
    make_trainer(max_epochs=3).fit(recorder, datamodule=datamodule)
    loader = make_datamodule(data, tmp_path, **options).train_dataloader()
    assert list(recorder.epochs) == [0, 1, 2]
    for epoch, batches in recorder.epochs.items():
        assert equal(join(batches), read_epoch(loader, epoch))
    assert equal(join(recorder.validated), join([*datamodule.val_dataloader()] * 3))


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_predicts_every_image_once_in_order(data: SplitData, tmp_path: Path) -> None:
    datamodule = make_datamodule(data, tmp_path, num_workers=2)
    predicted = make_trainer().predict(Recorder(), datamodule.plain_dataloader("test"))
    assert predicted is not None
    assert torch.equal(torch.cat(predicted), join(datamodule.plain_dataloader("test"))["image"])  # type: ignore


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_that_stops_early_leaves_no_thread(data: SplitData, tmp_path: Path) -> None:
    before = threading.active_count()
    datamodule = make_datamodule(data, tmp_path, num_workers=2, batch_size=1)
    trainer = make_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1)
    trainer.fit(Recorder(), datamodule=datamodule)
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("augmented", "n_workers"), [(False, 0), (False, 2), (True, 2)])
def test_a_store_that_goes_away_stops_the_trainer(
    data: SplitData, tmp_path: Path, augment: AugmentConfig, augmented: bool, n_workers: int
) -> None:
    datamodule = make_datamodule(data, tmp_path, augment=augment if augmented else None, num_workers=n_workers)
    for path in datamodule.store.paths:
        path.unlink()
    with pytest.raises(DataError, match=r"^/.*shard-.*: No such file or directory: .* Start again$"):
        make_trainer(max_epochs=1).fit(Recorder(), datamodule=datamodule)


def damage(data: SplitData, part: str, n_images: int | None = None) -> list[str]:
    images = data.index[data.split["split"] == part]
    for path in images["path"][:n_images]:
        Path(path).write_bytes(b"damaged")
    look_again(data)
    return images["image"][:n_images].tolist()


def look_again(data: SplitData) -> None:
    """The files were written after the index was made."""
    status = [Path(path).stat() for path in data.index["path"]]
    data.index["n_bytes"] = [file.st_size for file in status]
    data.index["mtime_ns"] = [file.st_mtime_ns for file in status]


def test_damaged_images_are_left_out_and_listed(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    gone = next(nih_tree.rglob("00000003_000.png"))
    gone.unlink()
    data = load_data(make_nih_config(nih_tree, max_dropped=0.2), LABELS, nih_tree)
    bad = [image for part in PARTS for image in damage(data, part, 2)]
    datamodule = make_datamodule(data, tmp_path)
    reasons = dict(zip(datamodule.dropped["image"], datamodule.dropped["reason"], strict=True))
    assert reasons == {gone.name: "not on disk", **dict.fromkeys(bad, "not a PNG, JPEG or DICOM image")}
    for name, part in datamodule.parts.items():
        split = data.split[data.split["split"] == name]
        assert part["image"].tolist() == [image for image in split["image"] if image not in bad]
        check_rows(join(datamodule.plain_dataloader(name)), part)
    check_rows(join(datamodule.train_dataloader()), datamodule.parts["train"])


def test_more_damaged_images_than_allowed_stop(data: SplitData, tmp_path: Path) -> None:
    bad = damage(data, "train", 10)
    with pytest.raises(
        DataError, match=rf"{len(bad)} of {len(data.index)} images cannot be used \(10 not a PNG, JPEG or DICOM image"
    ):
        make_datamodule(data, tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_an_image_that_can_be_decoded_stops(
    nih_tree: Path, make_nih_config: Any, tmp_path: Path, part: str
) -> None:
    data = load_data(make_nih_config(nih_tree, max_dropped=1.0), LABELS, nih_tree)
    damage(data, part)
    with pytest.raises(DataError, match=f"nih: no image of the {part} part can be decoded"):
        make_datamodule(data, tmp_path)
