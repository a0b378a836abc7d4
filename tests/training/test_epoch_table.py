"""The table of epochs on the screen: its columns, its changes, and its labels where there is room."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pytorch_lightning import Callback
from rich import get_console
from tiny import fit, make_loader, make_module

from cxrlit.training.callbacks import EpochReport


def print_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int, n_epochs: int = 2) -> list[str]:
    console = get_console()
    before, console.width = console.width, width
    try:
        fit(make_module(), [EpochReport(tmp_path)], max_epochs=n_epochs)
    finally:
        console.width = before
    return capsys.readouterr().out.splitlines()


def test_a_row_an_epoch_below_one_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = print_epochs(tmp_path, capsys, width=60)
    assert len(lines) == 3  # labels have no room
    assert lines[0].split("  ")[-1].strip() == "change"
    assert [name in lines[0] for name in ("train loss", "val loss", "lr", "macro AUROC")] == [True] * 4
    assert [line.split()[:2] for line in lines[1:]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert len(lines[1].split()) == 6  # the first has no change
    assert lines[2].split()[6][0] in "+-"
    ends = [lines[0].index("val loss") + len("val loss"), lines[0].index("macro AUROC") + len("macro AUROC")]
    for line in lines[1:]:
        assert all(line[end - 1].isdigit() and line[end : end + 1] in ("", " ") for end in ends)  # below their heads


class Losses(Callback):
    """What each batch was."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["mean_loss"].item())


def test_a_small_batch_counts_as_many_images_as_it_has(tmp_path: Path) -> None:
    losses = Losses()
    fit(make_module(), [EpochReport(tmp_path), losses], train=make_loader(12))  # 12 and 4
    first, last = losses.losses
    assert first != pytest.approx(last)
    assert pd.read_csv(tmp_path / "metrics.csv")["train_loss"].tolist() == pytest.approx([(3 * first + last) / 4])


def test_labels_stand_below_within_the_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = print_epochs(tmp_path, capsys, width=100)
    labels = [line for line in lines if line.startswith("  ")]
    assert all(len(line) <= 100 for line in lines)
    assert " ".join(labels).count("Pneumothorax") == 2
    assert not any(line.startswith("epoch") and "Mass" in line for line in lines)


def test_undefined_labels_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = EpochReport(tmp_path)
    module = make_module()
    scores = {"loss": 0.5, "auroc_macro": 0.7}
    scores |= {f"auroc_{label}": math.nan if label != "Mass" else 0.7 for label in module.labels}
    module.scores["val"] = scores
    row = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.5, "lr": 1e-3, "val_n_labels": 1}
    console = get_console()
    before, console.width = console.width, 120
    try:
        report._print(row, module, 3)
    finally:
        console.width = before
    _, line, *labels = capsys.readouterr().out.splitlines()
    assert line.endswith("over 1 label")
    assert "Mass 0.700" in labels[0]
    assert "undefined: Atelectasis, Cardiomegaly" in " ".join(labels)
