"""The check against what a checkpoint was trained on, where a table spells the same patients in another way."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import QUICK, Lab
from tiny import Outcome, run_command, write_tree

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.predictions import read_predictions

SPELLINGS = {"plain": "{}", "zeros": "{:05d}", "decimals": "{}.0", "signs": "+{}"}


def write_other(folder: Path, spelling: str) -> list[str]:
    """A table with the patients of the tree, 0 to 49, spelled in another way; settings that read it."""
    root = write_tree(folder, seed=1, table=False)
    rows, rng = range(50), np.random.default_rng(0)
    patients = [spelling.format(row) for row in rows]
    table = pd.DataFrame({"image": [f"images/{row:04d}.png" for row in rows], "pid": patients})
    table.assign(**{label: rng.integers(0, 2, 50) for label in LABELS}).to_csv(root / "t.csv", index=False)
    return ["data=table", f"data.table={root / 't.csv'}", "data.columns.patient=pid"]


def evaluate_on(frozen: Path, out: Path, *settings: str) -> Outcome:
    return run_command(
        "evaluate.py", f"ckpt={frozen}", f"out={out}", f"cache_dir={out.parent / 'cache'}", *QUICK, *settings
    )


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_patients_are_refused_however_they_are_spelled(frozen: Path, tmp_path: Path, spelling: str) -> None:
    settings = write_other(tmp_path / "other", SPELLINGS[spelling])
    for more in ([], ["recalibrate=true"], ["part=test"]):
        outcome = evaluate_on(frozen, tmp_path / "out", *settings, "data.name=nih", *more)
        assert outcome.code == 2
        assert re.search(r" patients of nih trained or tuned the model \(nih/", outcome.err)
        assert ("40 of the 50 patients" in outcome.err) == ("part=test" not in more)


def test_equal_ids_of_another_data_set_are_counted(frozen: Path, tmp_path: Path) -> None:
    settings = write_other(tmp_path / "other", "{}.0")
    outcome = evaluate_on(frozen, tmp_path / "out", *settings, "data.name=clinic")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "warning: 40 patients of clinic (clinic/" in said
    assert "have the ids of patients of another data set that the checkpoint saw" in said
    assert len(read_predictions(tmp_path / "out" / "predictions_external.csv")) == 50


def test_init_from_knows_the_patients_again(frozen: Path, lab: Lab, tmp_path: Path) -> None:
    settings = write_other(tmp_path / "other", "{:04d}.0")
    start = [f"init_from={frozen}", "phase=finetune", "data.split_seed=3", *settings]
    kept = [text for text in lab.list_settings() if not text.startswith("data")]
    outcome = run_command("train.py", *kept, *start, "data.name=nih")
    assert outcome.code == 2
    assert "that the checkpoint was trained on are in the val part of this split (nih/" in outcome.err
