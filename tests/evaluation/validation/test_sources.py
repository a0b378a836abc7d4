"""Networks of several data sets: their own split is found again by names, and their patients are known elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import QUICK, Lab, evaluate
from tiny import Outcome, run_command, write_tree

from cxrlit.core.errors import CheckpointError
from cxrlit.core.labels import LABELS
from cxrlit.evaluation.predictions import read_predictions
from cxrlit.model.archive import read_archive, write_archive
from cxrlit.model.checkpoint import read_checkpoint


def train(lab: Lab, *settings: str) -> Path:
    settings = (*(text for text in lab.list_settings() if not text.startswith("data")), *settings)
    outcome = run_command("train.py", *settings, f"model.weights={lab.weights}", "data=several")
    assert outcome.code == 0, outcome.err
    [folder] = lab.runs.glob("*/frozen-*")
    return folder


def evaluate_on(folder: Path, out: Path, *settings: str) -> Outcome:
    return run_command("evaluate.py", f"ckpt={folder}", f"out={out}", *QUICK, *settings)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table whose images and patients are called as those of the tree."""
    root = write_tree(tmp_path / "other", seed=1, table=False)
    numbers, rng = range(50), np.random.default_rng(0)
    rows = pd.DataFrame({"image": [f"images/{number:04d}.png" for number in numbers], "patient": numbers})
    rows.assign(**{label: rng.integers(0, 2, 50) for label in LABELS}).to_csv(root / "table.csv", index=False)
    return root / "table.csv"


@pytest.mark.slow
def test_two_sources_from_training_to_other_data(lab: Lab, table: Path, tmp_path: Path) -> None:
    keys = [f"data.table.table={table}", "data.table.columns.patient=patient"]
    folder = train(lab, "data.sources=[nih,table]", f"data.nih.root={lab.tree}", *keys)
    checkpoint = read_checkpoint(folder)
    split = pd.read_csv(folder / "split.csv", dtype=str)
    assert split["image"].tolist() == [f"{name}/{number:04d}.png" for name in ("nih", "table") for number in range(50)]
    assert split["patient"].tolist() == [f"{name}/{number}" for name in ("nih", "table") for number in range(50)]
    assert (folder / "split.csv").read_text() == checkpoint.metadata.split
    assert checkpoint.metadata.trained_patients == sorted(split.loc[split["split"] == "train", "patient"])
    assert checkpoint.split.columns.tolist() == ["source", "image", "patient", "split"]
    assert (checkpoint.split["source"] + "/" + checkpoint.split["image"]).tolist() == split["image"].tolist()

    evaluate(folder, folder / "eval")
    for part in ("val", "test"):
        predictions = read_predictions(folder / "eval" / f"predictions_{part}.csv")
        wanted = split[split["split"] == part]
        assert predictions[["image", "patient"]].to_numpy().tolist() == wanted[["image", "patient"]].to_numpy().tolist()

    outcome = evaluate_on(folder, tmp_path / "out", "data=nih", f"data.root={lab.tree}")
    assert "patients of nih trained or tuned the model (nih/" in outcome.err
    named = ["data=table", f"data.table={table}", "data.columns.patient=patient"]
    outcome = evaluate_on(folder, tmp_path / "out", *named, "data.name=elsewhere")
    assert "are files that the checkpoint was trained or tuned on" in outcome.err
    outcome = evaluate_on(folder, tmp_path / "out", *named, "data.name=elsewhere", "data.allow_copies=true")
    assert outcome.code == 0, outcome.err  # the same numbers are other patients in another data set
    assert len(read_predictions(tmp_path / "out" / "predictions_external.csv")) == 50

    content = read_archive(folder / "best.ckpt")
    content["cxrlit"]["split"] = content["cxrlit"]["split"].replace(",nih/7,", ",table/7,")
    write_archive(tmp_path / "torn.ckpt", content)
    with pytest.raises(CheckpointError, match=r"the source of the image nih/0007\.png is not that of its patient"):
        read_checkpoint(tmp_path / "torn.ckpt")


@pytest.mark.slow
def test_one_of_several_sources_has_plain_names(lab: Lab, tmp_path: Path) -> None:
    folder = train(lab, "data.sources=[nih]", f"data.nih.root={lab.tree}")
    assert pd.read_csv(folder / "split.csv")["image"].tolist() == [f"{number:04d}.png" for number in range(50)]
    evaluate(folder, folder / "eval")
    named = ["data=nih", f"data.root={lab.tree}", "data.split=file", f"data.split_file={folder / 'split.csv'}"]
    outcome = evaluate_on(folder, tmp_path / "out", *named, "part=val")
    assert "patients of nih trained or tuned the model (nih/" in outcome.err
    outcome = evaluate_on(folder, tmp_path / "out", *named, "part=test")
    assert "patients of nih are in the model's own test part" in outcome.err
