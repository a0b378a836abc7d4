"""Checkpoints to probs: of one, or the mean of several; of the images as they are, or with their mirror images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from torch import Tensor

from cxrlit.config import MachineConfig, Precision
from cxrlit.core.distributed import device_options, gather_over_ranks
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.ranks import n_ranks, rank, rank_0_first
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.evaluation.predictions import make_predictions
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.module import CXRModule
from cxrlit.training.trainer import LIGHTNING_PRECISION

Average = Literal["probs", "logits"]
TTA = Literal["none", "flip"]


class MirroredModule(CXRModule):
    """Sees the mirror image of what it is given."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(-1))


def predict_parts(
    checkpoints: Sequence[Checkpoint],
    data: SplitData,
    parts: Sequence[str],
    *,
    tta: TTA,
    average: Average,
    machine: MachineConfig,
    precision: Precision,
    cache_dir: Path,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The predictions table of each part, each image once, in the order of its table.

    Args:
        checkpoints: One, or the members of an ensemble; each sees the images at its own size.
        data: The images and their parts.
        parts: Which parts.
        tta: ``flip``: the mean over each image and its mirror image.
        average: What the mean over members and mirror images is of.
        machine: Where it runs.
        precision: bf16 or fp32.
        cache_dir: Folder of the stores.

    Returns:
        The tables by part, and the images that could not be decoded: ``image``, ``path``, ``reason``.

    Raises:
        DataError: An image cannot be decoded by one member and can by another.
    """
    views: dict[str, list[NDArray[np.float32]]] = {part: [] for part in parts}
    modules = {"none": (CXRModule,), "flip": (CXRModule, MirroredModule)}[tta]
    dropped: pd.DataFrame | None = None
    for checkpoint in checkpoints:
        datamodule = rank_0_first(open_images)(checkpoint, data, machine, cache_dir)
        before, dropped = dropped, data.name_rows(datamodule.dropped)
        if before is not None and (differs := set(before["image"]) ^ set(dropped["image"])):
            raise DataError(f"{name_some(sorted(differs))}: some members of the ensemble can read it and some cannot")
        trainer = build_predicting_trainer(machine, precision)
        network = load_network(checkpoint)
        for part in parts:
            for kind in modules:
                module = kind(network=network, labels=checkpoint.metadata.labels)
                views[part].append(predict_part(trainer, module, datamodule, part))
    assert dropped is not None
    named = {part: data.name_rows(datamodule.parts[part]) for part in parts}
    tables = {
        part: make_predictions(named[part], data.labels, average_logits(np.stack(views[part]), average))
        for part in parts
    }
    return tables, dropped


def predict_part(trainer: Trainer, module: CXRModule, datamodule: CXRDataModule, part: str) -> NDArray[np.float32]:
    """(N, L) logits of a part, in the order of its table: each device computes its share, and all have the whole."""
    batches: Any = trainer.predict(module, datamodule.plain_dataloader(part, rank(), n_ranks()))
    made = np.empty((len(datamodule.parts[part]), len(module.labels)), np.float32)
    for number, share in enumerate(gather_over_ranks(torch.cat(batches).numpy() if batches else made[:0])):
        made[number :: n_ranks()] = share
    return made


def average_logits(logits: NDArray[np.float32], average: Average) -> NDArray[np.float32]:
    """(V, N, L) logits of V views to (N, L) probs: rounded to float32 once, at the end.

    >>> round(average_logits(np.array([[[0.0]], [[2.0]]], np.float32), "logits").item(), 4)
    0.7311
    """
    exact = torch.from_numpy(logits).double()
    probs = exact.mean(dim=0).sigmoid() if average == "logits" else exact.sigmoid().mean(dim=0)
    rounded: NDArray[np.float32] = probs.float().numpy()
    return rounded


def open_images(checkpoint: Checkpoint, data: SplitData, machine: MachineConfig, cache_dir: Path) -> CXRDataModule:
    """The images as a checkpoint was trained to see them."""
    phase = checkpoint.config.phases[checkpoint.metadata.phase]
    datamodule = CXRDataModule(
        data,
        img_size=phase.img_size,
        batch_size=phase.batch_size,
        resize=checkpoint.config.data.resize,
        cache_dir=cache_dir,
        num_workers=machine.num_workers,
    )
    datamodule.setup()
    return datamodule


def load_network(checkpoint: Checkpoint) -> CXRNet:
    """The network of a checkpoint. Nothing of it trains."""
    network = build_network("none", checkpoint.config.model.normalize, len(checkpoint.metadata.labels), seed=0)
    return checkpoint.load_into(network.requires_grad_(False))


def build_predicting_trainer(machine: MachineConfig, precision: Precision) -> Trainer:
    """Lightning's trainer for a forward pass."""
    shown = get_console().is_terminal
    return Trainer(
        **device_options(machine),
        precision=LIGHTNING_PRECISION[precision],
        logger=False,
        callbacks=[RichProgressBar(leave=False)] if shown else [],
        enable_progress_bar=shown,
        enable_checkpointing=False,
        enable_model_summary=False,
        deterministic=True,
    )
