"""A checkpoint of ours as weights may say anything of itself: what contradicts its tensors is refused in a line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cxrlit.config import ModelConfig
from cxrlit.core.errors import CheckpointError, ConfigError
from cxrlit.model.weights.open_weights import open_configured, open_weights

LABELS = [f"Finding {number}" for number in range(1000)]


def write(path: Path, state: dict[str, Tensor], **said: Any) -> str:
    """A checkpoint of ours around ``state``, whose head has 1,000 outputs."""
    model = {"name": "densenet121", "weights": "none", "normalize": "imagenet"}
    facts = {"phase": "frozen", "phase_id": "1a2b3c4d", "labels": LABELS, "trained_patients": ["nih/7"]}
    torch.save({"cxrlit": {"config": {"model": model}, **facts, **said}, "state_dict": state}, path)
    return str(path)


def test_its_labels_are_those_of_its_head(state: dict[str, Tensor], tmp_path: Path) -> None:
    head = open_weights(write(tmp_path / "best.ckpt", state)).head
    assert head is not None
    assert head.labels == tuple(LABELS)
    for labels, message in {
        ("Mass", "Nodule"): "its head has 1,000 outputs and it names 2 labels",
        (*LABELS, "Mass"): "its head has 1,000 outputs and it names 1,001 labels",
        (*LABELS[1:], "\x1b[2J"): "its labels.999 cannot be used",
    }.items():
        path = write(tmp_path / "best.ckpt", state, labels=list(labels))
        with pytest.raises(CheckpointError, match=message):
            open_weights(path)


def test_other_names_for_its_outputs_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "best.ckpt", state)
    model = ModelConfig(name="densenet121", weights=path, normalize="auto", take_head=True, weights_labels=LABELS)
    with pytest.raises(
        ConfigError, match=r"^model.weights_labels: model.weights=\S+ has its labels in itself: drop it"
    ):
        open_configured(model)


def test_a_prefix_of_any_length_is_a_short_note(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"{'x' * 20_000}\x1b[2J.{name}": tensor for name, tensor in state.items()}, path)
    note = open_weights(str(path)).note
    assert len(note) < 300
    assert note.isprintable()
