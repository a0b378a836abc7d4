"""What is read as a checkpoint of ours, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrlit.errors import CheckpointError, CXRLitError
from cxrlit.training.checkpoint import DurableCheckpointIO, find_checkpoint, read_checkpoint


class Payload:
    """Pickled, it makes a file when it is loaded by what runs pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def test_a_missing_checkpoint_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        find_checkpoint(tmp_path / "nope.ckpt")
    with pytest.raises(CheckpointError, match=r"there is no best\.ckpt in it"):
        find_checkpoint(tmp_path)


OTHERS = {
    "tensors": {"weight": torch.zeros(3)},
    "a list": [1, 2],
    "lightning": {"state_dict": {}, "epoch": 3},
    "not a table": {"cxrlit": 3},
    "no format": {"cxrlit": {}},
    "newer": {"cxrlit": {"format": 99}},
    "format alone": {"cxrlit": {"format": 1}},
    "wrong type": {"cxrlit": {"format": 1, "phase": 3}},
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt: ") as fault:
        read_checkpoint(tmp_path / "other.ckpt")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("inside", ["alone", "as weights", "as facts"])
def test_a_payload_does_not_run(tmp_path: Path, inside: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "best.ckpt"
    payload = Payload(canary)
    if inside == "alone":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save({"cxrlit": {"format": 1, "config": payload}, "state_dict": {}}, path)
    with pytest.raises(CXRLitError, match="refused"):
        read_checkpoint(tmp_path)
    assert not canary.exists()


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    io, path = DurableCheckpointIO(), tmp_path / "best.ckpt"
    io.save_checkpoint({"number": 1}, path)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        io.save_checkpoint({"number": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"]
