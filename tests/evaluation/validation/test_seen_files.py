"""Files that trained a checkpoint, under other names and patients: no evaluation and no later phase takes them as new.

Patients are called ``x0``, ``x1``, ... here, so that their names say nothing.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lab import QUICK, Lab
from tiny import Outcome, run_command, write_tree

from cxrlit.core.errors import CheckpointError
from cxrlit.core.labels import LABELS
from cxrlit.model.archive import read_archive, write_archive
from cxrlit.model.checkpoint import read_checkpoint


def write_table(folder: Path, tree: Path, images: list[str], others: Path | None = None) -> list[str]:
    """Copies of images of a tree under other names, as a table; and those of another tree. Returns the settings."""
    folder.mkdir()
    sources = [tree / "images" / image for image in images]
    sources += sorted((others / "images").iterdir()) if others is not None else []
    for number, path in enumerate(sources):
        shutil.copy(path, folder / f"x{number}.png")
    rows = pd.DataFrame({"image": [f"x{number}.png" for number in range(len(sources))]})
    rows["patient"] = rows["image"].str.removesuffix(".png")
    targets = {label: np.random.default_rng(0).integers(0, 2, len(rows)) for label in LABELS}
    rows.assign(**targets).to_csv(folder / "table.csv", index=False)
    return ["data=table", f"data.table={folder / 'table.csv'}", "data.columns.patient=patient", "data.name=clinic"]


def evaluate_on(folder: Path, out: Path, lab: Lab, *settings: str) -> Outcome:
    return run_command("evaluate.py", f"ckpt={folder}", f"out={out}", f"cache_dir={lab.cache}", *QUICK, *settings)


def list_images(folder: Path, part: str) -> list[str]:
    split = pd.read_csv(folder / "split.csv", dtype=str)
    return split.loc[split["split"] == part, "image"].tolist()


def test_a_checkpoint_knows_the_files_that_it_has_seen(frozen: Path) -> None:
    checkpoint = read_checkpoint(frozen)
    for part, digests in zip(("train", "val"), checkpoint.files, strict=True):
        assert digests.dtype == torch.int64
        assert len(digests) == len(list_images(frozen, part))
        assert digests.tolist() == sorted(set(digests.tolist()))
    assert not set(checkpoint.files.trained.tolist()) & set(checkpoint.files.tuned.tolist())


@pytest.mark.parametrize(
    "files", [None, [], {"trained": torch.zeros(1)}, {"trained": torch.zeros(1), "tuned": torch.zeros(1)}], ids=str
)
def test_a_checkpoint_that_does_not_say_is_refused(frozen: Path, tmp_path: Path, files: object) -> None:
    write_archive(tmp_path / "best.ckpt", {**read_archive(frozen / "best.ckpt"), "files": files})
    with pytest.raises(CheckpointError, match="its list of the image files that it has seen is missing or damaged"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_files_of_the_training_are_not_external(lab: Lab, frozen: Path, tmp_path: Path, part: str) -> None:
    images = list_images(frozen, part)[:2]
    others = write_tree(tmp_path / "others", n_patients=6, seed=5)
    settings = write_table(tmp_path / "clinic", lab.tree, images, others)
    outcome = evaluate_on(frozen, tmp_path / "out", lab, *settings)
    assert outcome.code != 0
    assert outcome.err.count("\n") == 1
    assert "2 image files of clinic (external) are files that the checkpoint was trained or tuned on" in outcome.err
    assert "(x0.png, x1.png)" in outcome.err
    assert "data.allow_copies=true" in outcome.err
    assert not (tmp_path / "out").exists()
    outcome = evaluate_on(frozen, tmp_path / "out", lab, *settings, "data.allow_copies=true")
    assert outcome.code == 0, outcome.err
    assert "warning: 2 image files of clinic (external) are files" in outcome.out
    summary = pd.read_csv(tmp_path / "out" / "eval_summary.csv")
    assert summary["caveat"].str.contains("the results say less than they seem to").all()


@pytest.mark.slow
def test_no_phase_starts_from_what_was_trained_on_its_tests(lab: Lab, frozen: Path, tmp_path: Path) -> None:
    others = write_tree(tmp_path / "others", n_patients=30, seed=6)
    settings = write_table(tmp_path / "clinic", lab.tree, list_images(frozen, "train"), others)
    arguments = [*settings, "phase=finetune", f"init_from={frozen}", f"data.root={tmp_path / 'clinic'}"]
    outcome = lab.train(*arguments)
    assert outcome.code != 0
    assert "of clinic (val and test) are files that the checkpoint was trained on (x" in outcome.err
    assert "data.allow_copies=true" in outcome.err
    folder = lab.train_well(*arguments, "data.allow_copies=true")
    seen = read_checkpoint(folder).files.trained.tolist()
    assert set(read_checkpoint(frozen).files.trained.tolist()) < set(seen)


def test_copies_in_two_parts_stop_a_training_before_its_folder_is_there(lab: Lab, tmp_path: Path) -> None:
    images = sorted(path.name for path in (lab.tree / "images").iterdir())
    settings = write_table(tmp_path / "clinic", lab.tree, images[:20] * 2)
    outcome = lab.train(*settings, f"data.root={tmp_path / 'clinic'}")
    assert outcome.code != 0
    assert "stand in two parts of the split under other names (x" in outcome.err
    assert not list(lab.runs.glob("*/frozen-*"))
