"""Checkpoints: files of plain types, with metadata of their origin."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from lightning_fabric.plugins import TorchCheckpointIO
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from cxrlit.config import PhaseConfig, Precision, SeenName, TrainConfig, read_config
from cxrlit.core.errors import CheckpointError, ConfigError, DataError, first_line, name_some
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.index import parse_names
from cxrlit.data.sources.registry import name_sources
from cxrlit.data.split import check_split, hash_split
from cxrlit.metrics.epoch_metrics import drop_undefined, read_monitored
from cxrlit.model.archive import NOT_OURS, read_archive, write_archive
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.load_state import load_or_describe
from cxrlit.model.seen_files import SeenFiles, read_seen_files
from cxrlit.model.weights.finite import check_finite

CHECKPOINT_FORMAT = 7
RESUME_STATE = "cxrlit_resume"
"""Key of a state that a phase resumes from; checkpoints with weights do not have it."""
Name = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""At most one line of text without control characters, since it is printed."""


class CheckpointMetadata(BaseModel):
    """Metadata of a checkpoint, under the key ``cxrlit``.

    Attributes:
        format: Version of this table.
        phase: Name of the phase.
        phase_id: Its id.
        config: The resolved config of the whole chain.
        labels: Names of the outputs, in order.
        precision: bf16, fp16 or fp32, in which the phase was trained.
        split: The split as the text of ``split.csv``.
        split_name: official or grouped.
        rows: Hash of each row of the index, in the order of the split.
        trained_patients: Patients that this checkpoint or one before it was trained on, as ``source/patient``.
        start_sources: Data sets whose training images the chain's starting checkpoint saw.
        history: Phases before it, ``name-id``, first to last.
        epoch: Epoch of the weights, from 1.
        monitor: Name of the metric that chose the epoch.
        score: Its value after that epoch, at the phase's own image size.
        scores: All defined validation metrics after that epoch, by name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: int
    phase: Name
    phase_id: Name
    config: dict[str, Any]
    labels: list[str]
    precision: Precision
    split: str
    split_name: Name
    rows: list[str]
    trained_patients: list[str]
    start_sources: list[SeenName] = Field(default_factory=list)
    history: list[Name]
    epoch: int
    monitor: Name
    score: float
    scores: dict[Name, float]

    @property
    def name(self) -> str:
        """``<phase>-<id>``, the name of the phase folder."""
        return f"{self.phase}-{self.phase_id}"

    def read_split(self) -> pd.DataFrame:
        """Parse the split into a table with the columns of ``split.csv``; ``Checkpoint.split`` is the checked one."""
        try:
            table = pd.read_csv(io.StringIO(self.split), dtype=str, keep_default_na=False)[
                ["image", "patient", "split"]
            ]
        except (ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors
            raise DataError(f"the checkpoint's split is damaged: {first_line(error)}") from None
        if len(table) != len(self.rows):
            raise DataError(f"the checkpoint's split has {len(table)} images and {len(self.rows)} hashes")
        return table

    @property
    def split_hash(self) -> str:
        """Hash of the split (``hash_split``)."""
        return hash_split(self.read_split())


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        path: Its file.
        metadata: Its metadata.
        config: Its config, typed.
        split: Its split, checked.
        weights: State dict of ``CXRNet``.
        files: The image files that it has seen.
    """

    path: Path
    metadata: CheckpointMetadata
    config: TrainConfig
    split: pd.DataFrame
    weights: dict[str, Tensor]
    files: SeenFiles

    @property
    def settings(self) -> PhaseConfig:
        """Settings of its phase."""
        return self.config.phases[self.metadata.phase]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(self.metadata.labels)

    @property
    def img_size(self) -> int:
        """S, side of its training images, pixels."""
        return self.settings.img_size

    @property
    def batch_size(self) -> int:
        """Images per batch of its phase."""
        return self.settings.batch_size

    @property
    def resize(self) -> Resize:
        """``data.resize``: how its images were made square."""
        return self.config.data.resize

    def build_network(self) -> CXRNet:
        """Build the network with these weights.

        Raises:
            CheckpointError: The weights do not fit.
        """
        network = build_network("none", self.config.model.normalize, len(self.metadata.labels), seed=0)
        load_or_describe(network, self.weights, f"{self.path}: its weights are not those of a cxrlit network")
        return network


class DurableCheckpointIO(TorchCheckpointIO):
    """Makes Lightning save and load by ``write_archive`` and ``read_archive``.

    Lightning's own leaves half a file if it is killed, and can run code from a pickle.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint by ``write_archive``."""
        write_archive(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint by ``read_archive``."""
        return read_archive(Path(path))


def write_checkpoint(
    path: Path, metadata: Mapping[str, Any], epoch: int, scores: Mapping[str, float], state: dict[str, Tensor]
) -> None:
    """Write a checkpoint: weights and their metadata.

    Args:
        path: The file.
        metadata: Fields of ``CheckpointMetadata`` without the epoch and its scores, and ``files``, a ``SeenFiles``.
        epoch: Epoch of the weights, from 1.
        scores: Validation metrics after that epoch, by name.
        state: State dict of the module.

    Raises:
        CheckpointError: A weight is NaN or infinite, or the file cannot be written.
    """
    check_finite(state, str(path))
    weights = {name: tensor.cpu() for name, tensor in state.items()}
    said = {
        "epoch": epoch,
        "score": read_monitored(scores, metadata["monitor"]),
        "scores": drop_undefined(scores),
    }
    named = {key: value for key, value in metadata.items() if key != "files"}
    write_archive(path, {"cxrlit": {**named, **said}, "files": metadata["files"]._asdict(), "state_dict": weights})


def name_weights(network: CXRNet) -> dict[str, Tensor]:
    """Copy the weights and statistics of a network to the CPU, under the names used in checkpoints."""
    return {f"network.{name}": tensor.cpu().clone() for name, tensor in network.state_dict().items()}


def find_checkpoint(path: Path) -> Path:
    """Return the path of a checkpoint, for a phase folder that of its best one.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    path = path.expanduser()
    if path.is_dir():
        if not (path / "best.ckpt").is_file():
            found = sorted(map(str, path.glob("*/best.ckpt"))) or sorted(map(str, path.glob("*/*/best.ckpt")))
            there = f"; in it are {name_some([os.path.dirname(name) for name in found])}" if found else ""
            raise CheckpointError(f"{path}: there is no best.ckpt in it: name a phase folder or a checkpoint{there}")
        return path / "best.ckpt"
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint{_list_alike(path)}")
    return path


def evaluation_folder(checkpoint: Path) -> Path:
    """Folder for the evaluation of a single checkpoint.

    >>> evaluation_folder(Path("frozen-1a2b3c4d/last.ckpt")).name
    'eval-last'
    """
    return checkpoint.parent / ("eval" if checkpoint.stem == "best" else f"eval-{checkpoint.stem}")


def _list_alike(path: Path) -> str:
    """End of a message: phase folders and checkpoints whose names begin like the missing one."""
    try:
        beside = [
            other for other in path.parent.iterdir() if (other / "best.ckpt").is_file() or other.suffix == ".ckpt"
        ]
    except OSError:
        return ""
    alike = sorted(str(other) for other in beside if other.name.startswith(path.name))
    if alike:
        return f"; {name_some(alike)} {'begins' if len(alike) == 1 else 'begin'} so"
    return f"; beside it {'is' if len(beside) == 1 else 'are'} {name_some(sorted(map(str, beside)))}" if beside else ""


def is_unfinished(path: Path) -> bool:
    """Whether a checkpoint belongs to a phase that is not finished."""
    state = path.parent / "phase.json"
    return state.is_file() and '"status": "done"' not in state.read_text(encoding="utf-8")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a cxrlit checkpoint. No code in it runs: only plain types and tensors are accepted.

    Args:
        path: A checkpoint or a phase folder.

    Raises:
        CheckpointError: It is missing, damaged, holds other types, or is not a cxrlit checkpoint.
    """
    path = find_checkpoint(path)
    content = read_archive(path)
    if RESUME_STATE in content:
        raise CheckpointError(f"{path}: a phase resumes from it; its weights so far are in best.ckpt beside it")
    if not isinstance(content.get("cxrlit"), dict):
        raise CheckpointError(f"{path}: {NOT_OURS}")
    strange = sorted(map(str, content.keys() - {"cxrlit", "files", "state_dict"}))
    if strange:
        raise CheckpointError(f"{path}: unexpected key {strange[0][:80]!r}; refusing to load")
    version = content["cxrlit"].get("format")
    if not isinstance(version, int) or version != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: its format is {str(version)[:40]}, and this version of cxrlit reads {CHECKPOINT_FORMAT}: train "
            "it anew, or use it with the version that wrote it (in phase.json beside it)"
        )
    try:
        metadata = CheckpointMetadata.model_validate(content["cxrlit"])
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CheckpointError(f"{path}: its {key} cannot be used: {error.errors()[0]['msg']}") from None
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: it has no weights")
    check_finite(state, str(path))
    files = read_seen_files(content.get("files"), path)
    try:
        config = read_config(metadata.config, TrainConfig)
        sources = name_sources(config.data)
        split = check_split(
            parse_names(metadata.read_split(), sources), "the checkpoint's split", several=len(sources) > 1
        )
    except (ConfigError, DataError, RecursionError) as error:
        raise CheckpointError(f"{path}: its config or split cannot be used: {error}") from None
    begun = [name.rpartition("-")[0] for name in metadata.history] if config.init_from is None else []
    unknown = [name for name in (metadata.phase, *begun) if name not in config.phases]
    if unknown:
        raise CheckpointError(f"{path}: its config has no phase {unknown[0]!r}")
    if metadata.labels != config.labels:
        raise CheckpointError(
            f"{path}: its labels are {name_some(metadata.labels)}, its config says {name_some(config.labels)}"
        )
    weights = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    return Checkpoint(path=path, metadata=metadata, config=config, split=split, weights=weights, files=files)
