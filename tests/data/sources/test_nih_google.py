"""Expert labels of NIH's images: what is read of the table, and of the real one where it is installed."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from trees import make_config, write_nih_answers

from cxrlit.config import NIHGoogleConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih_google import QUESTIONS, find_answer_table, find_answers, read_nih_google

LABELS_ASKED = ("Nodule/Mass", "Pneumothorax", "Lung Opacity", "Fracture", "Edema")


def read(tree: Path, table: Path | None, labels: tuple[str, ...] = LABELS_ASKED) -> Source:
    config = make_config(NIHGoogleConfig, tree, table=None if table is None else str(table))
    return read_nih_google(config, DiskFiles(tree), labels)


def test_the_answers_are_those_of_the_table(nih_tree: Path, tmp_path: Path) -> None:
    table = write_nih_answers(nih_tree, tmp_path / "answers.csv").set_index("Image Index")
    source = read(nih_tree, tmp_path / "answers.csv")
    assert source.name == "nih_google"
    assert source.index["image"].tolist() == sorted(table.index)
    rows = table.loc[source.index["image"]]
    for label, column in QUESTIONS.items():
        assert source.index[label].tolist() == (rows[column] == "YES").astype(float).tolist()
    assert source.index["Edema"].isna().all()
    assert source.index["patient"].tolist() == rows["Patient ID"].astype(str).tolist()
    assert source.official is not None
    assert source.official.tolist() == rows["Set Id"].tolist()
    assert {"age", "sex", "view"} <= set(source.index.columns[source.index.notna().all()])


def test_which_outputs_answer_which_question() -> None:
    assert find_answers(LABELS) == {"Pneumothorax": ("Pneumothorax",), "Nodule/Mass": ("Nodule", "Mass")}
    assert find_answers(["Nodule/Mass", "Mass", "Nodule"]) == {"Nodule/Mass": ("Nodule/Mass",)}
    assert find_answers(["Nodule", "lung_opacity"]) == {"Lung Opacity": ("lung_opacity",)}
    assert find_answers(["Infiltration", "Consolidation", "Pneumonia"]) == {}


def test_what_cannot_be_used_is_refused(nih_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_nih_answers(nih_tree, tmp_path / "answers.csv")
    faults = {
        "Set Id": ("train", r"line 3: .* is none of val, test"),
        "Nodule or mass": ("perhaps", r"line 3.*'perhaps'"),
        "Image Index": (table["Image Index"][0], "twice"),
    }
    for column, (value, message) in faults.items():
        changed = table.copy()
        changed.loc[1, column] = value
        changed.to_csv(tmp_path / "changed.csv", index=False)
        with pytest.raises(DataError, match=message):
            read(nih_tree, tmp_path / "changed.csv")
    table.drop(columns="Fracture").to_csv(tmp_path / "changed.csv", index=False)
    with pytest.raises(DataError, match="Fracture"):
        read(nih_tree, tmp_path / "changed.csv")
    with pytest.raises(DataError, match="there is no such file"):
        read(nih_tree, tmp_path / "nothing.csv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'cxrlit\[xrv\]', or name the table: data\.table=PATH"):
        read(nih_tree, None)


def test_the_table_of_torchxrayvision(make_nih_tree: Callable[..., Path]) -> None:
    """Its columns, its counts, and that its test is apart from its val."""
    pytest.importorskip("torchxrayvision")
    path = find_answer_table(make_config(NIHGoogleConfig, Path("/nih")))
    table = pd.read_csv(path)
    assert table.groupby("Set Id").size().to_dict() == {"test": 1962, "val": 2414}
    counts = (table.loc[table["Set Id"] == "test", list(QUESTIONS.values())] == "YES").sum()
    assert counts.tolist() == [195, 295, 1135, 72]
    patients = [set(rows["Patient ID"]) for _, rows in table.groupby("Set Id")]
    assert not patients[0] & patients[1]
    tree = make_nih_tree(n_patients=4)
    names = table["Image Index"][:2].tolist()
    for own, name in zip(sorted((tree / "images_001" / "images").iterdir())[:2], names, strict=True):
        own.rename(own.with_name(name))
    source = read(tree, None)
    assert source.index["image"].tolist() == names
    assert len(source.dropped) == len(table) - 2
