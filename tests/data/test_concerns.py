"""What keeps labels from being learned or scored is said by every command, in the same words, once."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import write_tree

from cxrlit.commands.cli import main
from cxrlit.core.labels import LABELS
from cxrlit.data.concerns import name_label_concerns, name_part_concerns, warn_once
from cxrlit.data.dataset import load_data

PARTS = ("train", "train", "val", "val", "test", "test")


def make_rows(**labels: tuple[float, ...]) -> pd.DataFrame:
    return pd.DataFrame({"patient": [str(row) for row in range(6)], "split": PARTS, **labels})


NAN = np.nan
CASES: dict[str, tuple[tuple[float, ...], list[str]]] = {
    "both in each part": ((1, 0, 1, 0, 1, 0), []),
    "all present": ((1, 1, 1, 1, 1, 1), ["there is no negative image of Mass: not learned, not scored"]),
    "all absent": ((0, 0, 0, 0, 0, 0), ["there is no positive image of Mass: not learned, not scored"]),
    "nothing known": (
        (NAN, NAN, NAN, NAN, NAN, NAN),
        ["training will stop: no training image has a known label",
         "no image has a known label for Mass: not trained, not scored"],
    ),
    "all present in train": (
        (1, 1, 1, 0, 1, 0),
        ["train has no negative image of Mass: not learned, the weight of its positives is 0"],
    ),
    "all absent in train": ((0, 0, 1, 0, 1, 0), ["train has no positive image of Mass: not learned"]),
    "unknown in val": ((1, 0, NAN, NAN, 1, 0), ["val says nothing of Mass: no AUROC there"]),
    "one class in val, another in test": (
        (1, 0, 1, 1, 0, 0),
        ["val has no negative image of Mass: no AUROC there", "test has no positive image of Mass: no AUROC there"],
    ),
    "some unknown": ((1, 0, 1, 0, 1, NAN), ["test has no negative image of Mass: no AUROC there"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_label_of_one_class_is_named_with_what_follows(case: str) -> None:
    marks, wanted = CASES[case]
    assert name_label_concerns(make_rows(Mass=marks), ["Mass"]) == wanted


def test_labels_with_the_same_fault_share_a_line_and_other_parts_have_their_own_names() -> None:
    rows = make_rows(Mass=(1, 0, 1, 1, 1, 0), Nodule=(1, 0, 1, 1, 1, 0)).assign(split="external")
    assert name_part_concerns(rows, ["Mass", "Nodule"]) == []
    rows = rows[rows["Mass"] == 1]
    assert name_part_concerns(rows, ["Mass", "Nodule"]) == [
        "external has no negative image of Mass, Nodule: no AUROC there"
    ]


def test_without_a_split_the_whole_is_looked_at() -> None:
    rows = make_rows(Mass=(1, 1, 1, 1, 1, 1)).drop(columns="split")
    assert name_label_concerns(rows, ["Mass"]) == ["there is no negative image of Mass: not learned, not scored"]


def test_a_line_is_said_once_of_the_same_data(
    nih_tree: Path, make_nih_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    assert warn_once(data, ["a", "b", "a"])
    assert not warn_once(data, ["b"])
    assert capsys.readouterr().out == "warning: a\nwarning: b\n"


def test_prepare_says_what_inspect_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "nih", n_patients=24, never=["Mass"])
    images = sorted((root / "images").iterdir())
    for copy in images[1:12]:  # of a file that is a patient of its own
        copy.write_bytes(images[0].read_bytes())
    common = ["data=nih", f"data.root={root}", f"cache_dir={tmp_path / 'cache'}"]
    main(["prepare", *common, "sizes=[32]"])
    prepared = capsys.readouterr().out
    main(["inspect", *common, f"out={tmp_path / 'o.html'}"])
    inspected = capsys.readouterr().out
    assert "there is no positive image of Mass" in prepared
    assert "this is a leak" in prepared
    lines = [line for line in inspected.splitlines() if line.startswith("warning: ")]
    said = [line for line in prepared.splitlines() if line.startswith("warning: ")]
    assert [line for line in lines if "a patient of its own" not in line] == said
