"""Predict with one checkpoint or the mean of several, on each image or on several views of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from torch import Tensor

from cxrlit.config import TTA, EvaluateConfig, MachineConfig, Precision, PredictingConfig
from cxrlit.core.console import say
from cxrlit.core.distributed import device_options, gather_over_ranks
from cxrlit.core.errors import CheckpointError, DataError, format_count, name_some
from cxrlit.core.ranks import n_ranks, rank, rank_0_first
from cxrlit.data.concerns import name_part_concerns, warn_once
from cxrlit.data.copies import TRAINED_ON, TRAINED_OR_TUNED_ON, refuse_seen
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.torch_datasets import Batch
from cxrlit.data.tta import N_VIEWS, average_logits, choose_side, cut_views
from cxrlit.evaluation.answers import Answers, answer_probs
from cxrlit.evaluation.measure.evaluation_names import choose_evaluation_precision
from cxrlit.evaluation.predictions import make_predictions
from cxrlit.model.densenet import CXRNet
from cxrlit.model.device_memory import FittingBatches, choose_batch_size, read_free_memory
from cxrlit.model.module import CXRModule
from cxrlit.model.seen_files import SeenFiles
from cxrlit.training.hardware import check_compiler, choose_device, without_tf32
from cxrlit.training.trainer import LIGHTNING_PRECISION


class PredictingNetwork(Protocol):
    """A checkpoint of cxrlit, or a network of another project."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    @property
    def img_size(self) -> int:
        """S, side of the images, pixels."""

    @property
    def batch_size(self) -> int:
        """Images of one forward pass."""

    @property
    def resize(self) -> Resize:
        """``data.resize``: how images are made square."""

    @property
    def files(self) -> SeenFiles:
        """The image files that it has seen."""

    def build_network(self) -> CXRNet:
        """Build the network with its weights."""


class TTAModule(CXRModule):
    """Predicts every view of an image.

    Args:
        network: The network.
        labels: Names of the L labels, in order.
        size: S, side of the network's input, pixels.
        tta: The views.
        batches: Splits batches to fit the device's memory.
    """

    def __init__(
        self, network: CXRNet, labels: Sequence[str], size: int, tta: TTA, batches: FittingBatches | None = None
    ) -> None:
        super().__init__(network=network, labels=labels)
        self.size, self.tta = size, tta
        self.batches = batches or FittingBatches()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return (B, V, L) float32 logits of V views on the CPU."""
        return torch.cat(self.batches.run(self._predict_views, batch["image"]))[: len(batch["image"])]

    def _predict_views(self, images: Tensor) -> Tensor:
        views = cut_views(images, self.size, self.tta)
        return torch.stack([self(view.contiguous()) for view in views], dim=1).cpu()


def predict_parts(
    checkpoints: Sequence[PredictingNetwork],
    data: SplitData,
    parts: Sequence[str],
    config: EvaluateConfig,
    answers: Answers | None = None,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Make the predictions table of each part: each image once, in the order of the part's table.

    Args:
        checkpoints: One, or the members of an ensemble; each predicts at its own image size.
        data: The images and their parts.
        parts: Names of the parts.
        config: ``tta``, ``average``, ``trainer``, ``cache_dir``.
        answers: Outputs that answer the labels of the data; None: the outputs have the same labels in the same order.

    Returns:
        The tables by part, and the images that could not be decoded: ``image``, ``path``, ``reason``.

    Raises:
        CheckpointError: A network computes NaN.
        DataError: An image can be decoded for one member and not for another.
        LeakageError: A checkpoint was trained on an image file or, if the data are external, tuned on it.
    """
    precision = choose_evaluation_precision(config)  # refuses a missing device before any work
    logits: dict[str, list[NDArray[np.float32]]] = {part: [] for part in parts}
    dropped: pd.DataFrame | None = None
    for number, checkpoint in enumerate(checkpoints, start=1):
        n_at_once = choose_n_at_once(checkpoint, config.trainer)
        cache_dir = Path(config.cache_dir)
        datamodule = rank_0_first(open_images)(checkpoint, data, config.trainer, cache_dir, config.tta, n_at_once)
        before, dropped = dropped, data.name_rows(datamodule.dropped)
        if before is not None and (differs := set(before["image"]) ^ set(dropped["image"])):
            raise DataError(f"{name_some(sorted(differs))}: some members of the ensemble can read it and some cannot")
        if before is None:
            refuse_seen_files(checkpoints, datamodule, parts)
            rows = pd.concat([datamodule.parts[part] for part in parts])
            warn_once(data, name_part_concerns(rows, data.labels))
        trainer = build_predicting_trainer(config.trainer, precision)
        network, batches = load_network(checkpoint), FittingBatches()
        if config.trainer.compile:
            check_compiler()
            network.compile_parts()
            batches = FittingBatches(-(-n_at_once // n_ranks()), pads=True)
        module = TTAModule(network, checkpoint.labels, checkpoint.img_size, config.tta, batches)
        for part in parts:
            views = predict_part(trainer, module, datamodule, part)
            if np.isnan(views).any():
                which = "the network" if len(checkpoints) == 1 else f"network {number} of {len(checkpoints)}"
                raise CheckpointError(
                    f"{which} computes NaN for images of {part}: its weights are damaged, or too large"
                )
            logits[part] += views
    assert dropped is not None
    named = {part: data.name_rows(datamodule.parts[part]) for part in parts}
    tables = {}
    for part in parts:
        probs = average_logits(np.stack(logits[part]), config.average)
        probs = probs if answers is None else answer_probs(probs, checkpoints[0].labels, answers)
        tables[part] = make_predictions(named[part], data.labels, probs)
    return tables, dropped


def refuse_seen_files(
    checkpoints: Sequence[PredictingNetwork], datamodule: CXRDataModule, parts: Sequence[str]
) -> None:
    """Refuse image files that a checkpoint was trained on or, if the data are external, tuned on.

    Raises:
        LeakageError: There is such an image, and ``data.allow_copies`` is not true.
    """
    is_own = "test" in parts
    seen = [member.files.trained.numpy() for member in checkpoints]
    if not is_own:
        seen += [member.files.tuned.numpy() for member in checkpoints]
    what = TRAINED_ON if is_own else TRAINED_OR_TUNED_ON
    names = [part for part in parts if part != "train" or not is_own]
    refuse_seen(datamodule.data, datamodule.store, names, np.concatenate(seen), what)


def predict_part(
    trainer: Trainer, module: TTAModule, datamodule: CXRDataModule, part: str
) -> list[NDArray[np.float32]]:
    """Compute the (N, L) logits of each view of a part, in the order of its table.

    Each device computes its share of the images; all devices get all logits.
    """
    with without_tf32():
        batches: Any = trainer.predict(module, datamodule.plain_dataloader(part, rank(), n_ranks()))
    made = np.empty((len(datamodule.parts[part]), N_VIEWS[module.tta], len(module.labels)), np.float32)
    for number, share in enumerate(gather_over_ranks(torch.cat(batches).numpy() if batches else made[:0])):
        made[number :: n_ranks()] = share
    return list(made.swapaxes(0, 1))


def choose_n_at_once(checkpoint: PredictingNetwork, machine: PredictingConfig) -> int:
    """Choose the images that all devices together predict at once; prints a choice by GPU memory."""
    if machine.batch_size is not None:
        return machine.batch_size
    if choose_device(machine.accelerator) != "cuda":
        return checkpoint.batch_size
    n_bytes = read_free_memory()
    n_images = choose_batch_size(n_bytes, checkpoint.img_size)
    say(f"{format_count(n_images, 'image')} at once on each GPU: {n_bytes / 2**30:.1f} GiB of its memory are free")
    return n_images * n_ranks()


def open_images(
    checkpoint: PredictingNetwork,
    data: SplitData,
    machine: MachineConfig,
    cache_dir: Path,
    tta: TTA = "none",
    batch_size: int | None = None,
) -> CXRDataModule:
    """Prepare images at a checkpoint's training size, or at the larger size that the ``tta`` views are cut from.

    Args:
        checkpoint: The predicting checkpoint.
        data: The images and their parts.
        machine: ``num_workers`` is used.
        cache_dir: Folder of the decoded images.
        tta: The views.
        batch_size: Images per batch; None: that of the checkpoint.
    """
    datamodule = CXRDataModule(
        data,
        img_size=choose_side(checkpoint.img_size, tta),
        batch_size=batch_size or checkpoint.batch_size,
        resize=checkpoint.resize,
        cache_dir=cache_dir,
        num_workers=machine.num_workers,
    )
    datamodule.setup()
    return datamodule


def load_network(checkpoint: PredictingNetwork) -> CXRNet:
    """Build the network of a checkpoint, with no trainable parameter."""
    return checkpoint.build_network().requires_grad_(False)


def build_predicting_trainer(machine: MachineConfig, precision: Precision) -> Trainer:
    """Build a Lightning trainer for a forward pass."""
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
