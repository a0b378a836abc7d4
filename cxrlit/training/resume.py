"""Saved states of an interrupted phase: the last two, each a file with checksums."""

import random
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from cxrlit.core.console import say
from cxrlit.core.errors import CheckpointError
from cxrlit.core.files import sweep_staged
from cxrlit.model.archive import read_archive
from cxrlit.model.checkpoint import CHECKPOINT_FORMAT, RESUME_STATE, read_checkpoint
from cxrlit.model.densenet import CXRNet
from cxrlit.training.phase_folder import REJECTED, find_own_best, read_phase_record

KEPT = 2
"""Number of states that are kept: the newest, and one to fall back to."""
KEYS = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states",
        "lr_schedulers", "rng", "logs", "scores"}  # fmt: skip
"""Keys of every state; callbacks may add others."""
UNNEEDED = ("hyper_parameters", "hparams_name", "hparams_type")
"""Keys that Lightning adds, from which it would build objects when it loads a module."""
FOREIGN = (*UNNEEDED, "cxrlit", "_class_path")
"""Keys that no state has."""


class Position(BaseModel):
    """Position of a state in its training, under the key ``cxrlit_resume``.

    Attributes:
        format: Version of the file.
        phase_id: Id of the phase.
        epoch: The current epoch, from 1.
        n_batches: Completed batches of this epoch; if all are, its validation comes next.
        step: Completed steps of all epochs.
        best_epoch: The best epoch so far, whose weights are in ``best.ckpt``; None before the first has ended.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: int
    phase_id: str
    epoch: int
    n_batches: int
    step: int
    best_epoch: int | None

    def describe(self) -> str:
        """Epoch and step in words, for messages."""
        return f"epoch {self.epoch}, step {self.step}"


class ResumePoint(NamedTuple):
    """A state that a phase can resume from."""

    path: Path
    position: Position


def state_path(step: int) -> str:
    """File name of a state; names sort by step."""
    return f"resume-{step:09d}.ckpt"


def list_states(folder: Path) -> list[Path]:
    """List the states in a phase folder, newest first."""
    return sorted(folder.glob("resume-*.ckpt"), reverse=True)


def drop_states(folder: Path, keep: int = 0) -> None:
    """Remove all states of a phase except the newest ``keep``."""
    for path in list_states(folder)[keep:]:
        path.unlink(missing_ok=True)  # another process with this phase may remove it too


def find_resume(folder: Path, phase_id: str) -> tuple[ResumePoint | None, list[str]]:
    """Find the newest usable state.

    Args:
        folder: The phase folder.
        phase_id: Id of the phase.

    Returns:
        The state, or None; and a line for each newer state that cannot be used.
    """
    faults: list[str] = []
    for path in list_states(folder):
        try:
            point = ResumePoint(path, read_position(path, phase_id))
            _check_best(find_own_best(folder), point.position)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        return point, faults
    return None, faults


def choose_resume(folder: Path, name: str, phase_id: str, files_sha256: str) -> ResumePoint | None:
    """Choose the state that a phase resumes from, and remove unusable ones; None: it starts over.

    Args:
        folder: The phase folder.
        name: Name of the phase, for messages.
        phase_id: Id of the phase.
        files_sha256: Hash of the current image files.
    """
    record = read_phase_record(folder)
    if record is None:
        return None
    if record.get("files_sha256") != files_sha256:
        say(f"warning: images have changed since {name} was begun: it starts over", style="yellow")
        return None
    point, faults = find_resume(folder, phase_id)
    goes_on = f"{name} starts over" if point is None else f"going on from {point.position.describe()}"
    for fault in faults:
        say(f"warning: {fault}; {goes_on}", style="yellow")
    if point is None:
        return None
    for path in list_states(folder)[: len(faults)]:
        path.unlink()  # else it would be the newest again
    if (folder / REJECTED).is_file():
        (folder / REJECTED).replace(folder / "best.ckpt")  # it is judged again
    sweep_staged(folder)
    say(f"Going on from {point.position.describe()}")
    return point


def read_position(path: Path, phase_id: str) -> Position:
    """Read and check a state, and return its position.

    Raises:
        CheckpointError: It is damaged, is not a cxrlit state, or belongs to another phase.
    """
    content = read_archive(path)
    strange = [key for key in FOREIGN if key in content]
    if strange:
        raise CheckpointError(f"{path}: unexpected key {strange[0]!r}; refusing to load")
    missing = sorted(KEYS - content.keys())
    try:
        position = Position.model_validate(content.get(RESUME_STATE))
    except ValidationError:
        raise CheckpointError(f"{path}: it does not say where its phase stood") from None
    if missing or position.format != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: another version of cxrlit wrote it")
    if position.phase_id != phase_id:
        raise CheckpointError(f"{path}: it is a state of phase {position.phase_id}")
    return position


def check_like(found: Any, fresh: Any, where: str) -> None:
    """Check that a value of a state has the same type as in a new training, where None allows any type.

    Args:
        found: Value in the state.
        fresh: Value in a new training; keys of dicts and lengths of lists may differ.
        where: Name of the value, for the message.

    Raises:
        ValueError: The types differ; the message names the place.

    >>> check_like({"n": 3, "best": 0.5}, {"n": 0, "best": None}, "callbacks")
    >>> check_like({"n": "3"}, {"n": 0}, "loops")
    Traceback (most recent call last):
    ValueError: loops.n is a str
    """
    kinds: tuple[type, ...] = (type(fresh),)
    for alike in ((int, float), (list, tuple), (dict, OrderedDict), (torch.Tensor, torch.nn.Parameter)):
        kinds = alike if type(fresh) in alike else kinds
    if fresh is None:
        return
    if type(found) not in kinds or (isinstance(fresh, torch.Tensor) and found.shape != fresh.shape):
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else ""
        raise ValueError(f"{where} is a {type(found).__name__}{shape}")
    if isinstance(fresh, dict):
        for key in fresh.keys() & found.keys():
            check_like(found[key], fresh[key], f"{where}.{key}")
    elif isinstance(fresh, list | tuple):
        for place, (item, new) in enumerate(zip(found, fresh, strict=False)):
            check_like(item, new, f"{where}.{place}")


def load_state(path: Path, network: CXRNet) -> None:
    """Load the weights of a state into a network."""
    weights = read_archive(path)["state_dict"]
    network.load_state_dict({name: weights[f"network.{name}"] for name in network.state_dict()})


def read_rng() -> dict[str, Any]:
    """Return the states of all random generators that training may use, in plain types."""
    version, keys, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  # a user's callback may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "python": [version, list(keys), gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Set all random generators to the states of ``read_rng``."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    keys = np.array(state["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": keys}})  # noqa: NPY002
    version, python_keys, gauss = state["python"]
    random.setstate((version, tuple(python_keys), gauss))


def seed_all(seed: int) -> None:
    """Seed every random generator that training may use."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def _check_best(path: Path, position: Position) -> None:
    """Check that the best weights so far exist; a repeated epoch writes its own again.

    Raises:
        CheckpointError: They are missing.
    """
    if position.best_epoch is None:
        return
    metadata = read_checkpoint(path).metadata
    again = metadata.epoch >= position.epoch
    if metadata.phase_id != position.phase_id or not (again or metadata.epoch == position.best_epoch):
        raise CheckpointError(f"{path}: it does not hold the weights of epoch {position.best_epoch}")
