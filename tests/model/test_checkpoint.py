"""What is read as a checkpoint of ours, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import Payload, write_old_torch, write_pickle, write_whole
from lab import Lab
from tiny import run_command

from cxrlit.core.errors import CheckpointError
from cxrlit.model.checkpoint import (
    CHECKPOINT_FORMAT,
    DurableCheckpointIO,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def test_a_missing_checkpoint_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        find_checkpoint(tmp_path / "nope.ckpt")
    with pytest.raises(CheckpointError, match=r"there is no best\.ckpt in it"):
        find_checkpoint(tmp_path)


def test_what_a_name_may_have_meant_is_listed(tmp_path: Path) -> None:
    for name in ("finetune-1a", "finetune-2b", "frozen-3c"):
        (tmp_path / "default" / name).mkdir(parents=True)
        (tmp_path / "default" / name / "best.ckpt").touch()
    begun = tmp_path / "default" / "finetune"
    with pytest.raises(CheckpointError, match=f"no such checkpoint; {begun}-1a, {begun}-2b begin so"):
        find_checkpoint(begun)
    with pytest.raises(CheckpointError, match=f"no such checkpoint; beside it are {begun}-1a, "):
        find_checkpoint(tmp_path / "default" / "highres")
    for folder in (tmp_path, tmp_path / "default"):
        with pytest.raises(CheckpointError, match=f"a checkpoint; in it are {begun}-1a, {begun}-2b, "):
            find_checkpoint(folder)


OTHERS = {
    "tensors": {"weight": torch.zeros(3)},
    "a list": [1, 2],
    "lightning": {"state_dict": {}, "epoch": 3},
    "not a table": {"cxrlit": 3},
    "no format": {"cxrlit": {}},
    "newer": {"cxrlit": {"format": 99}},
    "format alone": {"cxrlit": {"format": 1}},
    "wrong type": {"cxrlit": {"format": 4, "phase": 3}},
    "a state to resume from": {"cxrlit_resume": {"format": 4}, "state_dict": {}},
    "what Lightning would build": {
        "cxrlit": {"format": 4},
        "state_dict": {},
        "hyper_parameters": {"_instantiator": "os.system", "_class_path": "subprocess.Popen"},
    },
    "a class path": {"cxrlit": {"format": 4}, "state_dict": {}, "_class_path": "subprocess.Popen"},
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    write_whole(tmp_path / "other.ckpt", content)
    with pytest.raises(CheckpointError, match=r"other\.ckpt: ") as fault:
        read_checkpoint(tmp_path / "other.ckpt")
    assert "\n" not in str(fault.value)


def test_an_older_checkpoint_whose_epochs_count_from_0_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_whole(tmp_path / "best.ckpt", {"cxrlit": {"format": 5, "epoch": 0}, "state_dict": {}})
    with pytest.raises(CheckpointError, match=r"its format is 5, and this version of cxrlit reads \d+: train it anew"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("value", ["12345678\nTrained: all is well", "1\x1b[31m", "1" * 400])
def test_what_is_printed_of_a_checkpoint_is_a_line_at_most(tmp_path: Path, value: str) -> None:
    facts = {"format": CHECKPOINT_FORMAT, "phase": "finetune", "phase_id": value}
    write_whole(tmp_path / "other.ckpt", {"cxrlit": facts, "state_dict": {}})
    with pytest.raises(CheckpointError, match="its phase_id cannot be used: String should"):
        read_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("inside", ["alone", "as weights", "as facts"])
def test_a_payload_does_not_run(tmp_path: Path, inside: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "best.ckpt"
    payload = Payload(canary)
    if inside == "alone":
        write_pickle(path, payload)
    elif inside == "as weights":
        write_whole(path, {"cxrlit": {"format": 4}, "state_dict": payload})
    else:
        write_whole(path, {"cxrlit": {"format": 4, "config": payload}, "state_dict": {}})
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("key", ["ckpt", "init_from"])
@pytest.mark.parametrize("name", ["best.ckpt", "weights.safetensors"])
@pytest.mark.parametrize("way", [write_pickle, write_old_torch, write_whole])
def test_no_command_runs_a_payload(lab: Lab, tmp_path: Path, way: Any, name: str, key: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    way(path, {"cxrlit": {"format": 4}, "state_dict": {"network.head.bias": Payload(canary)}})
    if key == "ckpt":
        outcome = run_command("evaluate.py", f"ckpt={path}")
    else:
        outcome = lab.train("phase=finetune", f"init_from={path}")
    assert outcome.code != 0
    assert outcome.err.startswith(f"error: {path}: refused: ")
    assert outcome.err.count("\n") == 1
    assert not canary.exists()
    assert not lab.runs.exists()


def test_lightning_saves_and_loads_by_our_rules(tmp_path: Path) -> None:
    io, path, canary = DurableCheckpointIO(), tmp_path / "best.ckpt", tmp_path / "canary"
    io.save_checkpoint({"number": 1}, path)
    with pytest.raises(CheckpointError, match="number is a function"):
        io.save_checkpoint({"number": lambda: 2}, path)
    assert io.load_checkpoint(path) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"]
    write_whole(path, {"number": Payload(canary)})
    for weights_only in (None, False, True):
        with pytest.raises(CheckpointError, match="refused"):
            io.load_checkpoint(path, weights_only=weights_only)
    assert not canary.exists()


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    bad = {"network.head.bias": torch.tensor([0.0, float("nan")])}
    with pytest.raises(CheckpointError, match=r"network\.head\.bias holds NaN or infinity"):
        write_checkpoint(tmp_path / "best.ckpt", {}, 0, 0.5, bad)
    assert not list(tmp_path.iterdir())
