"""Batches for training, validation and test."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cxrlit.data.index import read_targets
from cxrlit.data.load import LoadedData, check_dropped
from cxrlit.data.store import Resize, Store, open_store
from cxrlit.data.transforms import Augment, seed_of
from cxrlit.errors import DataError


class Batch(TypedDict):
    """What a loader yields.

    Attributes:
        image: (B, 1, S, S) uint8.
        target: (B, 8) float32; 1 present, 0 absent, NaN unknown.
        row: (B,) int64, rows of the part's table (``CXRDataModule.parts``).
    """

    image: Tensor
    target: Tensor
    row: Tensor


class EpochShuffle(Sampler[tuple[int, int]]):
    """Every row once, in an order that is a function of (seed, epoch).

    It yields (epoch, row), so that a loader process that lives for many epochs still knows which one it is in.
    """

    def __init__(self, n_rows: int, seed: int) -> None:
        self.n_rows = n_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch  # the pairs are drawn later, and set_epoch may come between
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
        return ((epoch, int(row)) for row in order)

    def __len__(self) -> int:
        return self.n_rows


class TrainImages(Dataset[Batch]):
    """Augmented training images, by (epoch, row)."""

    def __init__(self, part: pd.DataFrame, store: Store, augment: Augment | None, seed: int) -> None:
        self.images, self.rows = store.images, part["row"].to_numpy()
        self.names = part["image"].tolist()
        self.targets = read_targets(part)
        self.augment, self.seed = augment, seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        images = [self._read(epoch, row) for epoch, row in keys]
        return _make_batch(np.stack(images), self.targets, [row for _, row in keys])

    def _read(self, epoch: int, row: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[self.rows[row]]
        if self.augment is None:
            return image
        return self.augment(np.asarray(image), seed_of(self.seed, epoch, self.names[row]))


class PlainImages(Dataset[Batch]):
    """Validation or test images as they are in the store, by row."""

    def __init__(self, part: pd.DataFrame, store: Store) -> None:
        self.images, self.rows = store.images, part["row"].to_numpy()
        self.targets = read_targets(part)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, rows: list[int]) -> Batch:
        return _make_batch(self.images[self.rows[rows]], self.targets, rows)


class CXRDataModule(LightningDataModule):
    """The three parts of a split as loaders over one store.

    Args:
        data: The index and its split.
        img_size: Side of the images, pixels.
        batch_size: Images of a batch.
        resize: How an image that is not square becomes square.
        cache_dir: Folder of the stores.
        augment: Augmentation of training images.
        seed: Of the order and the augmentation.
        num_workers: Loader processes; None: chosen from the machine. Changes no result.
    """

    def __init__(
        self,
        data: LoadedData,
        *,
        img_size: int,
        batch_size: int,
        resize: Resize,
        cache_dir: Path,
        augment: Augment | None = None,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        self.data, self.img_size, self.batch_size = data, img_size, batch_size
        self.augment, self.seed = augment, seed
        self.num_workers = choose_num_workers() if num_workers is None else num_workers
        self.store = open_store(data.index, data.source, img_size, resize, cache_dir)
        self.dropped = pd.concat([data.dropped, self.store.dropped], ignore_index=True)
        check_dropped(self.dropped, len(self.store.rows), data.max_dropped)
        self.parts = self._take_parts()

    def _take_parts(self) -> dict[str, pd.DataFrame]:
        """The index rows of each part that could be decoded, with ``row``, their place in the store."""
        usable = self.data.index.assign(
            split=self.data.split["split"], row=self.data.index["image"].map(self.store.rows)
        ).dropna(subset="row")
        usable["row"] = usable["row"].astype(np.int64)
        parts = {name: usable[usable["split"] == name].reset_index(drop=True) for name in ("train", "val", "test")}
        for name, part in parts.items():
            if part.empty:
                raise DataError(f"{self.data.source}: no image of the {name} part can be decoded")
        return parts

    def train_dataloader(self) -> DataLoader[Batch]:
        dataset = TrainImages(self.parts["train"], self.store, self.augment, self.seed)
        sampler = EpochShuffle(len(self.parts["train"]), self.seed)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.plain_dataloader("val")

    def plain_dataloader(self, part: str) -> DataLoader[Batch]:
        """The images of a part in the order of its table, without augmentation."""
        return self._loader(PlainImages(self.parts[part], self.store), None)

    def _loader(self, dataset: Dataset[Batch], sampler: EpochShuffle | None) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_keep,
            worker_init_fn=_start_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # leaves torch's global one alone
        )


def choose_num_workers() -> int:
    """Loader processes for this machine: none beside a CPU that computes, up to 8 beside a GPU."""
    return min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0


def _make_batch(images: NDArray[np.uint8], targets: NDArray[np.float32], rows: list[int]) -> Batch:
    return {
        "image": torch.from_numpy(images).unsqueeze(1),
        "target": torch.from_numpy(targets[rows]),
        "row": torch.tensor(rows),
    }


def _keep(batch: Any) -> Any:
    """The data sets yield whole batches."""
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
