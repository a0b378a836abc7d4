"""Torch datasets that yield whole batches: of images, or of cached features of the network's frozen part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrlit.data.augment import Augment, key_names, seed_of
from cxrlit.data.index import read_targets
from cxrlit.data.sampler import Draw
from cxrlit.data.store.reader import Store


class Batch(TypedDict):
    """A batch of a loader.

    Attributes:
        image: (B, 1, S, S) uint8; absent in batches with ``features``.
        features: Output of the network's frozen part (``CXRDataModule.features``).
        target: (B, L) float32; 1 present, 0 absent, NaN unknown.
        row: (B,) int64, rows of the part's table (``CXRDataModule.parts``).
    """

    image: NotRequired[Tensor]
    features: NotRequired[Tensor]
    target: Tensor
    row: Tensor


class TrainImages(Dataset[Batch]):
    """Augmented training images, by draw."""

    def __init__(
        self, part: pd.DataFrame, labels: Sequence[str], store: Store, augment: Augment | None, seed: int
    ) -> None:
        self.store, self.augment, self.seed = store, augment, seed
        self.rows = torch.tensor(part["row"].to_numpy(np.int64))
        self.keys = torch.tensor(key_names(part["image"]))
        self.targets = torch.tensor(read_targets(part, labels))

    def __getitems__(self, draws: list[Draw]) -> Batch:
        rows = torch.tensor([draw.row for draw in draws], dtype=torch.int64)  # empty in an empty share
        images = self.store.take(self.rows[rows].numpy())
        if self.augment is not None:
            for number, (draw, key) in enumerate(zip(draws, self.keys[rows].tolist(), strict=True)):
                images[number] = self.augment(images[number], seed_of(self.seed, draw.epoch, key, draw.copy))
        return _make_batch(images, self.targets, rows)


class PlainImages(Dataset[Batch]):
    """Images without augmentation, by row."""

    def __init__(self, part: pd.DataFrame, labels: Sequence[str], store: Store) -> None:
        self.store = store
        self.rows = torch.tensor(part["row"].to_numpy(np.int64))
        self.targets = torch.tensor(read_targets(part, labels))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, rows: list[int]) -> Batch:
        wanted = torch.tensor(rows)
        return _make_batch(self.store.take(self.rows[wanted].numpy()), self.targets, wanted)


@dataclass(frozen=True)
class Features:
    """Cached output of a network's first units: for the training images in the augmentation of a few epochs, and for
    the validation images.

    Attributes:
        n_units: Number of units of ``CXRNet.units`` that made it.
        train: One array per view: (N, h, w, C), or (N, 1024) means if all units are frozen; bfloat16 as int16.
        val: The same for the validation images.
    """

    n_units: int
    train: Sequence[NDArray[Any]]
    val: NDArray[Any]

    def take_train(self, draws: Sequence[Draw]) -> Tensor:
        """Features of draws: epoch e reads view e mod V, each further copy of an image the next view."""
        made = np.empty((len(draws), *self.val.shape[1:]), self.val.dtype)
        for number, draw in enumerate(draws):
            made[number] = self.train[(draw.epoch + draw.copy) % len(self.train)][draw.row]
        return restore(made)

    def take_val(self, rows: Sequence[int]) -> Tensor:
        """Features of some rows of the validation part."""
        return restore(self.val[np.asarray(rows)])


def pack(features: Tensor) -> NDArray[Any]:
    """Convert (B, C, h, w) or (B, C) features to a NumPy array: channels last, bfloat16 as int16."""
    last = features.permute(0, 2, 3, 1).contiguous() if features.ndim == 4 else features
    packed: NDArray[Any] = (last.view(torch.int16) if last.dtype == torch.bfloat16 else last).cpu().numpy()
    return packed


def restore(packed: NDArray[Any]) -> Tensor:
    """Undo ``pack``: (B, C, h, w) in channels-last memory, or (B, C)."""
    features = torch.from_numpy(packed)
    if features.dtype == torch.int16:
        features = features.view(torch.bfloat16)
    return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class TrainFeatures(Dataset[Any]):
    """Cached features of training images, by draw."""

    def __init__(self, part: pd.DataFrame, labels: Sequence[str], features: Features) -> None:
        self.features = features
        self.targets = torch.tensor(read_targets(part, labels))

    def __getitems__(self, draws: list[Draw]) -> dict[str, Tensor]:
        rows = torch.tensor([draw.row for draw in draws], dtype=torch.int64)
        return {"features": self.features.take_train(draws), "target": self.targets[rows], "row": rows}


class ValFeatures(Dataset[Any]):
    """Cached features of validation images, by row."""

    def __init__(self, part: pd.DataFrame, labels: Sequence[str], features: Features) -> None:
        self.features = features
        self.targets = torch.tensor(read_targets(part, labels))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        wanted = torch.tensor(rows)
        return {"features": self.features.take_val(rows), "target": self.targets[wanted], "row": wanted}


def _make_batch(images: NDArray[np.uint8], targets: Tensor, rows: Tensor) -> Batch:
    return {"image": torch.from_numpy(images).unsqueeze(1), "target": targets[rows], "row": rows}
