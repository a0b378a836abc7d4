"""Digests of the image files that a checkpoint has seen, so that no copy of one is used to test it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrlit.core.errors import CheckpointError
from cxrlit.data.datamodule import CXRDataModule


class SeenFiles(NamedTuple):
    """Digests of image files (``Store.digests``), each once and sorted: 8 bytes an image.

    Attributes:
        trained: (N,) int64, training files of a checkpoint and of those before it.
        tuned: (M,) int64, its validation files.
    """

    trained: Tensor
    tuned: Tensor


NOTHING_SEEN = SeenFiles(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def list_seen_files(datamodule: CXRDataModule, before: SeenFiles) -> SeenFiles:
    """List the training and validation files of a phase, with the training files of its starting checkpoint.

    Args:
        datamodule: Datamodule after ``setup``.
        before: Files that the starting checkpoint has seen.
    """
    store, split = datamodule.store, datamodule.data.split["split"].to_numpy()
    own = {part: store.digests[(split == part) & (store.positions >= 0)] for part in ("train", "val")}
    trained = np.union1d(before.trained.numpy(), own["train"])
    return SeenFiles(torch.from_numpy(trained), torch.from_numpy(np.unique(own["val"])))


def read_seen_files(value: Any, path: Path) -> SeenFiles:
    """Read the digests from a checkpoint.

    Raises:
        CheckpointError: They are damaged.
    """
    digests = [value.get(name) for name in SeenFiles._fields] if isinstance(value, dict) else [None]
    if not all(isinstance(of, Tensor) and of.dtype == torch.int64 and of.ndim == 1 for of in digests):
        raise CheckpointError(f"{path}: its list of the image files that it has seen is missing or damaged")
    return SeenFiles(*digests)
