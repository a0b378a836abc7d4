"""Epochs count from 1 wherever a user meets one."""

import json
from pathlib import Path

import pandas as pd
from pytorch_lightning import Trainer

from cxrlit.model.checkpoint import read_checkpoint
from cxrlit.sweeps.job import read_aurocs
from cxrlit.sweeps.ranking import rank_records
from cxrlit.sweeps.record import Pruned, Record
from cxrlit.training.callbacks import EpochProgressBar
from cxrlit.training.phase_folder import Result
from cxrlit.training.resume import Position
from cxrlit.training.step_log import StepLog, count_epochs_from_1


def test_the_files_of_a_phase_count_from_1(frozen: Path) -> None:
    metrics = pd.read_csv(frozen / "metrics.csv")
    assert metrics["epoch"].tolist() == list(range(1, len(metrics) + 1))
    record = json.loads((frozen / "phase.json").read_text())
    best = metrics.set_index("epoch").loc[record["best_epoch"]]
    assert best["val_auroc_macro"] == record["best_score"]
    assert read_checkpoint(frozen).metadata.epoch == record["best_epoch"]
    assert read_checkpoint(frozen / "last.ckpt").metadata.epoch == len(metrics)
    aurocs = read_aurocs(frozen, record["best_epoch"])
    assert {f"val_auroc_{label}": value for label, value in aurocs.items()}.items() <= best.to_dict().items()


def test_what_is_said_of_an_epoch_is_its_number() -> None:
    assert Result(Path(), 1, "val/auroc_macro", 0.7).describe() == "best epoch 1, validation macro AUROC 0.7000"
    assert str(Pruned(Path(), 1)).endswith("at epoch 1")
    assert (
        Position(format=1, phase_id="a", epoch=1, n_batches=0, step=0, best_epoch=None).describe().startswith("epoch 1")
    )
    [row] = rank_records([Record(job=1, values={}, status="done", best_epoch=1)]).to_dict("records")
    assert row["best_epoch"] == 1


def test_the_progress_bar_counts_from_1() -> None:
    for max_epochs, last in ((3, "/3"), (1, "/1"), (-1, "")):
        bar = EpochProgressBar()
        bar._trainer = Trainer(max_epochs=max_epochs, logger=False, enable_checkpointing=False)
        assert bar._get_train_description(0).split() == ["Epoch", f"1{last}"]


def test_loggers_get_the_number(tmp_path: Path) -> None:
    assert count_epochs_from_1({"epoch": 0, "val/loss": 1.0}) == {"epoch": 1, "val/loss": 1.0}
    assert count_epochs_from_1({"best/epoch": 1}) == {"best/epoch": 1}
    assert count_epochs_from_1({"epoch": 0.5}) == {"epoch": 0.5}  # what a module of the user's logs under this name
    log = StepLog(str(tmp_path), name="", version="")
    for step, epoch in ((0, 0), (10, 1)):
        log.log_metrics({"train/loss": 0.5, "epoch": epoch}, step)
    log.save()
    [path] = tmp_path.rglob("metrics.csv")
    assert pd.read_csv(path)["epoch"].tolist() == [1, 2]
    again = StepLog(str(tmp_path / "again"), name="", version="")
    again.load_state_dict(log.state_dict())  # what was counted is not counted once more
    [path] = (tmp_path / "again").rglob("metrics.csv")
    assert pd.read_csv(path)["epoch"].tolist() == [1, 2]
