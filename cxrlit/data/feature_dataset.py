"""What the frozen part of a network made of the images, kept on disk, and the data sets that read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrlit.data.index import read_targets
from cxrlit.data.sampler import Draw


@dataclass(frozen=True)
class Features:
    """The output of a network's first units for the training images, as they are augmented in a few epochs, and for
    the validation images.

    Attributes:
        n_units: How many of ``CXRNet.units`` made it.
        train: One array a view: (N, h, w, C), or (N, 1024) means where all units are frozen; bfloat16 as int16.
        val: The same of the validation images.
    """

    n_units: int
    train: Sequence[NDArray[Any]]
    val: NDArray[Any]

    def take_train(self, draws: Sequence[Draw]) -> Tensor:
        """Features of draws: epoch e reads view e mod V, and each further copy of an image the view after."""
        made = np.empty((len(draws), *self.val.shape[1:]), self.val.dtype)
        for number, draw in enumerate(draws):
            made[number] = self.train[(draw.epoch + draw.copy) % len(self.train)][draw.row]
        return restore(made)

    def take_val(self, rows: Sequence[int]) -> Tensor:
        """Features of rows of the validation part."""
        return restore(self.val[np.asarray(rows)])


def pack(features: Tensor) -> NDArray[Any]:
    """(B, C, h, w) or (B, C) features as an array that numpy can keep: channels last, bfloat16 as int16."""
    last = features.permute(0, 2, 3, 1).contiguous() if features.ndim == 4 else features
    packed: NDArray[Any] = (last.view(torch.int16) if last.dtype == torch.bfloat16 else last).cpu().numpy()
    return packed


def restore(packed: NDArray[Any]) -> Tensor:
    """The other way: (B, C, h, w) in channels-last memory, or (B, C)."""
    features = torch.from_numpy(packed)
    if features.dtype == torch.int16:
        features = features.view(torch.bfloat16)
    return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class TrainFeatures(Dataset[Any]):
    """Features of training images, by draw."""

    def __init__(self, part: pd.DataFrame, labels: Sequence[str], features: Features) -> None:
        self.features = features
        self.targets = torch.tensor(read_targets(part, labels))

    def __getitems__(self, draws: list[Draw]) -> dict[str, Tensor]:
        rows = torch.tensor([draw.row for draw in draws], dtype=torch.int64)
        return {"features": self.features.take_train(draws), "target": self.targets[rows], "row": rows}


class ValFeatures(Dataset[Any]):
    """Features of validation images, by row."""

    def __init__(self, part: pd.DataFrame, labels: Sequence[str], features: Features) -> None:
        self.features = features
        self.targets = torch.tensor(read_targets(part, labels))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        wanted = torch.tensor(rows)
        return {"features": self.features.take_val(rows), "target": self.targets[wanted], "row": wanted}
