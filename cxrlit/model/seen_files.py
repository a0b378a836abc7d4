"""The image files that a checkpoint has seen, by their bytes: kept with it, so that no copy of them tests it."""

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
        trained: (N,) int64, of those that a checkpoint or one before it was trained on.
        tuned: (M,) int64, of those that it was validated on.
    """

    trained: Tensor
    tuned: Tensor


NOTHING_SEEN = SeenFiles(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def list_seen_files(datamodule: CXRDataModule, before: SeenFiles) -> SeenFiles:
    """The files that a phase trains on, with those of what it starts from, and those that it is validated on.

    Args:
        datamodule: Set up.
        before: What the checkpoint that it starts from has seen.
    """
    store, split = datamodule.store, datamodule.data.split["split"].to_numpy()
    own = {part: store.digests[(split == part) & (store.positions >= 0)] for part in ("train", "val")}
    trained = np.union1d(before.trained.numpy(), own["train"])
    return SeenFiles(torch.from_numpy(trained), torch.from_numpy(np.unique(own["val"])))


def read_seen_files(value: Any, path: Path) -> SeenFiles:
    """What a checkpoint file says of them.

    Raises:
        CheckpointError: It is no such thing.
    """
    digests = [value.get(name) for name in SeenFiles._fields] if isinstance(value, dict) else [None]
    if not all(isinstance(of, Tensor) and of.dtype == torch.int64 and of.ndim == 1 for of in digests):
        raise CheckpointError(f"{path}: its list of the image files that it has seen is missing or damaged")
    return SeenFiles(*digests)
