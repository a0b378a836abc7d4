"""Columns that are called as what they plainly are: used, or said to be not used."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from trees import EveryFile, save_noise

from cxrlit.config import TableData
from cxrlit.core.errors import DataError
from cxrlit.data.dataset import load_data
from cxrlit.data.sources.table import read_any_table

CONF = Path(__file__).parents[3] / "conf"
ROWS = 12


def make(folder: Path, cells: dict[str, Any], **changes: Any) -> TableData:
    frame = pd.DataFrame({"image": [f"{row:02}.png" for row in range(ROWS)], "Mass": [row % 2 for row in range(ROWS)]})
    frame.assign(**cells).to_csv(folder / "t.csv", index=False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("prepare", overrides=["data=table"]).data)
    values["columns"] |= changes.pop("columns", {})
    return TableData.model_validate({**values, "table": str(folder / "t.csv"), "root": str(folder), **changes})


PEOPLE = [f"p{row // 2}" for row in range(ROWS)]
PARTS = ["train"] * 8 + ["val", "val", "test", "test"]


@pytest.mark.parametrize("name", ["split", "Split", "SPLIT", "data_split", "Subset", "partition"])
def test_the_tables_own_split_is_used(tmp_path: Path, name: str) -> None:
    config = make(tmp_path, {"pid": PEOPLE, name: PARTS}, columns={"patient": "pid"})
    source = read_any_table(config, EveryFile(), ["Mass"])
    assert source.official is not None
    assert source.official.tolist() == PARTS
    assert source.notes == (
        f"{config.table}: columns that no key names are used for what they are called: {name} as split",
    )


@pytest.mark.parametrize("name", ["patient", "Patient_ID", "PatientID", "patient id", "subject_id", "SUBJECT"])
def test_the_patients_are_used(tmp_path: Path, name: str) -> None:
    source = read_any_table(make(tmp_path, {name: PEOPLE}), EveryFile(), ["Mass"])
    assert source.index["patient"].tolist() == PEOPLE
    assert source.notes[0].endswith(f"{name} as patient")


def test_ages_sexes_and_views_are_used(tmp_path: Path) -> None:
    columns = {"pid": PEOPLE, "Age": 50, "Gender": "F", "View_Position": "AP"}
    source = read_any_table(make(tmp_path, columns, columns={"patient": "pid"}), EveryFile(), ["Mass"])
    assert source.index[["age", "sex", "view"]].drop_duplicates().to_numpy().tolist() == [[50, "F", "AP"]]
    assert source.notes[0].endswith("View_Position as view, Age as age, Gender as sex")


@pytest.mark.parametrize(
    ("columns", "changes", "said"),
    [
        ({"pid": PEOPLE, "patient": 1}, {"columns": {"patient": "pid"}}, "not used: data.columns.patient=pid"),
        ({"Patient_ID": PEOPLE}, {"patient": "image"}, "Patient_ID is not used: data.patient=image"),
        ({"patient": PEOPLE, "split": PARTS}, {"split": "grouped"}, "the column split is not used: data.split=grouped"),
        ({"patient": PEOPLE, "split": "?"}, {"split": "kfold", "fold": 0}, "split is not used: data.split=kfold"),
        ({"patient": PEOPLE, "split": PARTS}, {"fold": 1}, "split is not used: data.split=kfold"),
        ({"patient": PEOPLE, "age": 1, "patient_age": 2}, {}, "of the columns age, patient_age none is used"),
        ({"patient": PEOPLE, "age": "old"}, {}, "age 'old' is no age from 0 to 120 years: correct it, or leave the "
         "cell blank; the column is not used as data.columns.age"),
        ({"patient": PEOPLE, "sex": 1}, {}, "it is 1; the column is not used as data.columns.sex"),
    ],
)  # fmt: skip
def test_columns_that_are_not_used_are_said(
    tmp_path: Path, columns: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    assert any(said in note for note in read_any_table(make(tmp_path, columns, **changes), EveryFile(), ["Mass"]).notes)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"patient": PEOPLE, "Patient_ID": PEOPLE},
            "columns patient, Patient_ID may each be the patient: name",
        ),
        ({"patient": PEOPLE, "split": PARTS, "subset": PARTS}, "the columns split, subset may each be the split"),
        (
            {"patient": PEOPLE, "split": ["left", "right"] * 6},
            "split 'left' is no part of a split .train, val or test",
        ),
    ],
)
def test_what_decides_on_leaks_is_not_guessed(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_any_table(make(tmp_path, columns), EveryFile(), ["Mass"])


def test_the_users_own_test_patients_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make(tmp_path, {"patient": PEOPLE, "split": PARTS})
    for row in range(ROWS):
        save_noise(tmp_path / f"{row:02}.png", row)
    data = load_data(config, ["Mass"], tmp_path)
    assert data.split_name == "official"
    assert data.split["split"].tolist() == PARTS
    assert "warning: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "part"), [(["train"] * 10 + ["val"] * 2, "test"), (["val"] * 6 + ["test"] * 6, "train")]
)
def test_a_split_without_a_part_is_one_line(tmp_path: Path, parts: list[str], part: str) -> None:
    for row in range(ROWS):
        save_noise(tmp_path / f"{row:02}.png", row)
    columns = {"patient": PEOPLE, "split": parts}
    with pytest.raises(DataError, match=f"^table: its own split has no {part} part, .* or say data.split=grouped"):
        load_data(make(tmp_path, columns), ["Mass"], tmp_path)
    assert set(load_data(make(tmp_path, columns, split="grouped"), ["Mass"], tmp_path).split["split"]) == {
        "train", "val", "test",
    }  # fmt: skip
