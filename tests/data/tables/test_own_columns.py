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


SEEN = ["train", "valid", "test", "Train"] * 3
LOOKS = "looks like the {} of each image and is not used: to use it, "


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"set": SEEN}, LOOKS.format("split") + "say data.columns.split=set"),
        ({"fold": SEEN}, LOOKS.format("split") + "say data.columns.split=fold"),
        ({"split name": SEEN}, LOOKS.format("split") + "say data.columns.split='split name'"),
        ({"is_test": [0, 1] * 6}, LOOKS.format("split") + "write train, val or test and name it"),
        ({"Projection": ["PA", "AP"] * 6}, LOOKS.format("view") + "say data.columns.view=Projection"),
        ({"views": ["lateral", ""] * 6}, LOOKS.format("view") + "say data.columns.view=views"),
        ({"view": ["L", "R"] * 6}, "view names sides (l, r), no views; the column is not used as data.columns.view"),
        ({"view": ["PA upright", "frontal", "AP portable", "lateral view"] * 3},
         "view has spellings that are not known: frontal (3): view unknown"),
        ({"sex": ["M", "O"] * 6}, "sex has spellings that are not known: O (6): sex unknown"),
        ({"age": ["45", "999", "NA", "old"] * 3},
         "6 cells of age are no ages from 0 to 120 years and taken for unknown: 999 (3), old (3)"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said_with_counts(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    source = read_any_table(make(tmp_path, {"patient": PEOPLE, **columns}), EveryFile(), ["Mass"])
    assert sum(said in note for note in source.notes) == 1
    assert len(source.notes) == 2
    assert source.official is None


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"set": pd.Categorical(SEEN)}, LOOKS.format("split") + "say data.columns.split=set"),
        ({"is_test": [0, 1] * 6, "bytes": b"file"}, LOOKS.format("split") + "write train, val or test and name it"),
        ({"is_train": [True, None] * 6}, LOOKS.format("split") + "write train, val or test and name it"),
        ({"Projection": ["PA", None] * 6}, LOOKS.format("view") + "say data.columns.view=Projection"),
        ({"set": b"train"}, ""),
    ],
)
def test_columns_of_parquet_are_looked_at_too(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    pytest.importorskip("pyarrow")
    config = make(tmp_path, {"patient": PEOPLE})
    pd.read_csv(tmp_path / "t.csv").assign(**columns).to_parquet(tmp_path / "t.parquet")
    config = config.model_copy(update={"table": str(tmp_path / "t.parquet")})
    notes = read_any_table(config, EveryFile(), ["Mass"]).notes
    assert len(notes) == 1 + bool(said)
    assert said in notes[-1]


def test_a_column_of_words_that_a_later_row_breaks_is_no_split(tmp_path: Path) -> None:
    config = make(tmp_path, {"patient": PEOPLE, "set": "train"})
    table = pd.read_csv(tmp_path / "t.csv", dtype=str)
    table = pd.concat([table] * 20, ignore_index=True)
    table["image"] = [f"{row}.png" for row in range(len(table))]
    table.loc[len(table) - 1, "set"] = "saucer"
    table.to_csv(tmp_path / "t.csv", index=False)
    assert len(read_any_table(config, EveryFile(), ["Mass"]).notes) == 1


def test_qualified_views_are_read_and_a_column_is_never_both_used_and_not(tmp_path: Path) -> None:
    views = ["PA upright", "AP portable", "lateral view"] * 4
    source = read_any_table(make(tmp_path, {"patient": PEOPLE, "view": views}), EveryFile(), ["Mass"])
    assert source.index["view"].tolist() == ["PA", "AP", "LATERAL"] * 4
    source = read_any_table(make(tmp_path, {"patient": PEOPLE, "view": "sea"}), EveryFile(), ["Mass"])
    assert [note for note in source.notes if " as view" in note] == []
    assert source.notes[-1].endswith("it is sea; the column is not used as data.columns.view")


def test_the_images_are_found_in_a_column_of_another_case(tmp_path: Path) -> None:
    config = make(tmp_path, {"patient": PEOPLE})
    path = tmp_path / "t.csv"
    path.write_text(path.read_text().replace("image,", "Image,"))
    assert read_any_table(config, EveryFile(), ["Mass"]).notes[0].endswith("Image as image, patient as patient")
    path.write_text(path.read_text().replace("Image,", "file,"))
    with pytest.raises(
        DataError, match=r"image is missing; there are file, .*: name that of the images with data\.columns\.image$"
    ):
        read_any_table(config, EveryFile(), ["Mass"])


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
            "split 'left' is no part of a split .train, val or test.: correct it, or say data.split=grouped",
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
    with pytest.raises(
        DataError, match=f"^table: its own split has no {part} part, .* or say data.split=grouped"
    ) as no:
        load_data(make(tmp_path, columns), ["Mass"], tmp_path)
    if part == "test":
        assert "call val test, and validation is drawn from train" in str(no.value)
        renamed = [name.replace("val", "test") for name in parts]
        split = load_data(make(tmp_path, columns | {"split": renamed}), ["Mass"], tmp_path).split["split"]
        assert [name.replace("val", "train") for name in split] == renamed
        assert set(split) == {"train", "val", "test"}
    assert set(load_data(make(tmp_path, columns, split="grouped"), ["Mass"], tmp_path).split["split"]) == {
        "train", "val", "test",
    }  # fmt: skip
