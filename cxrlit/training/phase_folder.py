"""The folder of a phase: files written at its start, and its record ``phase.json``."""

import json
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml

from cxrlit.config import TrainConfig
from cxrlit.core.errors import CheckpointError
from cxrlit.core.files import hash_file, write_csv, write_json, write_text
from cxrlit.core.ranks import on_rank_0
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.metrics.epoch_metrics import describe_monitor

RECORD = "phase.json"
REJECTED = "rejected.ckpt"
"""File of the best epoch of a phase that hands on another checkpoint."""
PACKAGES = ("cxrlit", "torch", "torchvision", "pytorch-lightning")


class Result(NamedTuple):
    """A finished phase.

    Attributes:
        folder: Its folder, with ``best.ckpt`` and the tables.
        best_epoch: Its best epoch, from 1.
        monitor: Name of the metric that chose the epoch.
        best_score: Value of that metric after the epoch.
        rejected_for: What is handed on in place of a best epoch that is no improvement; else empty.
        seconds: Training time of the phase and those before it, seconds; None if unknown.
    """

    folder: Path
    best_epoch: int
    monitor: str
    best_score: float
    rejected_for: str = ""
    seconds: float | None = None

    def describe(self) -> str:
        """Best epoch and score in words, with the rejection if there is one."""
        rejected = f", rejected for {self.rejected_for}" if self.rejected_for else ""
        return f"best epoch {self.best_epoch}, {describe_monitor(self.monitor)} {self.best_score:.4f}{rejected}"


def read_phase_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a phase; None if it has not begun.

    Raises:
        CheckpointError: The record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: it is damaged: remove {folder}, the phase is trained anew") from None
    return record if isinstance(record, dict) else None


def read_done(folder: Path) -> dict[str, Any] | None:
    """Read the record of a finished phase; None if it is not finished.

    Raises:
        CheckpointError: Its best checkpoint was changed.
    """
    record = read_phase_record(folder)
    if record is None or record.get("status") != "done":
        return None
    kinds = {"best_epoch": int, "monitor": str, "best_score": float, "rejected_for": str}
    if any(type(record.get(key)) is not kind for key, kind in kinds.items()):
        raise CheckpointError(f"{folder / RECORD}: it is damaged: remove {folder}, the phase is trained anew")
    best = folder / "best.ckpt"
    if not best.is_file() or hash_file(best) != record.get("best_sha256"):
        raise CheckpointError(f"{best}: it is not the file that training wrote: remove {folder} to train it anew")
    return record


def read_chain_seconds(folders: Iterable[Path]) -> float | None:
    """Sum the training times of phases, seconds; None if one of an earlier version has none."""
    seconds = [(read_phase_record(folder) or {}).get("seconds") for folder in folders]
    known = [value for value in seconds if isinstance(value, float)]
    return sum(known) if len(known) == len(seconds) else None


def find_own_best(folder: Path) -> Path:
    """Path of the phase's own best epoch, even if it hands on another checkpoint."""
    return folder / (REJECTED if (folder / REJECTED).is_file() else "best.ckpt")


def describe_rejection(path: Path) -> str:
    """Say what the ``best.ckpt`` of a rejected phase holds; empty for any other checkpoint."""
    record = read_phase_record(path.parent) if path.name == "best.ckpt" else None
    if not (record and record.get("rejected_for")):
        return ""
    return f"{path.parent.name} was rejected, and its best.ckpt is the one before it"


@on_rank_0
def read_result(folder: Path) -> Result | None:
    """Read the result of a finished phase; None if it is not finished."""
    record = read_done(folder)
    if record is None:
        return None
    return Result(folder, record["best_epoch"], record["monitor"], record["best_score"], record["rejected_for"])


@on_rank_0
def write_phase_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``phase.json``."""
    write_json(folder / RECORD, dict(record))


def begin_folder(
    folder: Path,
    metadata: Mapping[str, Any],
    config: TrainConfig,
    datamodule: CXRDataModule,
    pos_weight: pd.DataFrame,
) -> dict[str, Any]:
    """Write the files that are known before the first step.

    Args:
        folder: The phase folder. Files of an earlier try are removed: with the same id, they belong to this phase.
        metadata: Metadata of its checkpoints.
        config: The resolved config of the chain.
        datamodule: The data.
        pos_weight: The table of ``pos_weight.csv``.

    Returns:
        The record.
    """
    if folder.exists():
        shutil.rmtree(folder)
    data = datamodule.data
    record = {
        "status": "running",
        "phase": metadata["phase"],
        "id": metadata["phase_id"],
        "split": data.split_name,
        "split_hash": data.split_hash,
        "files_sha256": datamodule.store.files_sha256,
        "precision": metadata["precision"],
        "precision_choice": config.trainer.precision,
        "threads": torch.get_num_threads(),
        "versions": read_versions(),
    }
    write_json(folder / RECORD, record)
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(), sort_keys=False))
    write_csv(folder / "split.csv", data.name_rows(data.split))
    write_csv(folder / "dropped.csv", data.name_rows(datamodule.dropped))
    write_csv(folder / "pos_weight.csv", pos_weight, float_format="%.9g")
    return record


def read_versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {name: version(name) for name in PACKAGES}
