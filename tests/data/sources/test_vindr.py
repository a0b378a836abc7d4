"""VinDr-CXR's folder in both forms, the readers' votes, and Kaggle's real table of 15,000 images."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import EveryFile, find_real_table, make_config, write_rows, write_vindr_tree

from cxrlit.config import VinDrConfig
from cxrlit.core.errors import DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.index import read_targets
from cxrlit.data.sources import Source
from cxrlit.data.sources.vindr import read_vindr

TRAIN, TEST = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv"
KNOWN = {"Atelectasis": "Atelectasis", "Effusion": "Pleural effusion", "Infiltration": "Infiltration"}
RULES = {
    "any": lambda votes: votes > 0,
    "majority": lambda votes: votes >= 2,
    "all": lambda votes: votes == 3,
}


def read(root: Path, files: ImageFiles | None = None, labels: tuple[str, ...] = LABELS, **changes: object) -> Source:
    config = make_config(VinDrConfig, root, **{"patient": "image", **changes})
    return read_vindr(config, files or EveryFile(), labels)


def test_each_table_is_read_once(tmp_path: Path, table_opens: list[Path]) -> None:
    write_vindr_tree(tmp_path, save=None)
    read(tmp_path)
    assert table_opens == [tmp_path / TRAIN, tmp_path / TEST]


@pytest.mark.parametrize("suffix", [".dicom", ".dcm", ".png", ".jpg", ".jpeg"])
@pytest.mark.parametrize("form", ["physionet", "kaggle"])
def test_both_forms_and_all_kinds_of_files(tmp_path: Path, form: str, suffix: str) -> None:
    tables = write_vindr_tree(
        tmp_path, form=form, suffix=suffix, save=lambda path, seed: path.write_bytes(b"x" * (seed + 1))
    )
    source = read(tmp_path, DiskFiles(tmp_path))
    assert source.name == "vindr"
    assert source.dropped.empty
    index = source.index
    assert index.columns.tolist() == [*FIXED_COLUMNS, *LABELS]
    ids = {image: part for part, table in tables.items() for image in table["image_id"]}
    assert index["image"].tolist() == sorted(f"{image}{suffix}" for image in ids)
    assert index["patient"].tolist() == sorted(ids)
    assert index["file"].tolist() == [f"{ids[patient]}/{patient}{suffix}" for patient in index["patient"]]
    assert set(index["view"]) == {"PA"}
    assert (index["n_bytes"] > 0).all()
    if form == "kaggle":
        assert source.official is None
    else:
        assert source.official is not None
        names = {"train": "train_val", "test": "test"}
        assert source.official.tolist() == [names[ids[patient]] for patient in index["patient"]]


@pytest.mark.parametrize("agreement", ["any", "majority", "all"])
def test_votes_of_physionets_readers(tmp_path: Path, agreement: str) -> None:
    tables = write_vindr_tree(tmp_path, n_images=60, save=None)
    index = read(tmp_path, agreement=agreement).index.set_index("patient")
    votes = tables["train"].drop(columns="rad_id").set_index("image_id").astype(int).groupby(level=0).sum()
    test = tables["test"].set_index("image_id").astype(int)
    for label, finding in {**KNOWN, "Pneumonia": "Pneumonia"}.items():
        assert index.loc[votes.index, label].tolist() == RULES[agreement](votes[finding]).astype(float).tolist()
        assert index.loc[test.index, label].tolist() == test[finding].astype(float).tolist()
        assert index[label].nunique() == 2
    assert index[["Mass", "Nodule"]].isna().all(axis=None)


@pytest.mark.parametrize("agreement", ["any", "majority", "all"])
def test_votes_of_kaggles_readers(tmp_path: Path, agreement: str) -> None:
    table = write_vindr_tree(tmp_path, form="kaggle", n_images=60, save=None)["train"]
    index = read(tmp_path, agreement=agreement).index.set_index("patient")
    for label, finding in KNOWN.items():
        seen = table[table["class_name"] == finding].groupby("image_id")["rad_id"].nunique()
        votes = seen.reindex(index.index, fill_value=0)
        assert index[label].tolist() == RULES[agreement](votes).astype(float).tolist()
        assert index[label].nunique() == 2
    assert index[["Mass", "Nodule", "Pneumonia"]].isna().all(axis=None)


def test_a_majority_is_more_than_half(tmp_path: Path) -> None:
    header = ("image_id", "rad_id", "Cardiomegaly")
    rows = [("a", "R1", "1"), ("a", "R2", "0"), ("b", "R1", "1"), ("b", "R2", "1"), ("b", "R3", "0"), ("c", "R1", "1")]
    write_rows(tmp_path / TRAIN, rows, header)
    index = read(tmp_path, labels=("Cardiomegaly",)).index
    assert dict(zip(index["patient"], index["Cardiomegaly"], strict=True)) == {"a": 0, "b": 1, "c": 1}


def test_images_are_patients_only_when_the_user_says_so(tmp_path: Path) -> None:
    write_vindr_tree(tmp_path)
    with pytest.raises(DataError, match=r"no split of it can keep patients apart: say data\.patient=image"):
        read(tmp_path, patient=None)


def test_other_labels_by_their_own_names(tmp_path: Path) -> None:
    write_vindr_tree(tmp_path, save=None)
    labels = ("Nodule Mass", "pleural_thickening", "Fibrosis", "COPD", "Hernia")
    index = read(tmp_path, labels=labels).index
    assert index[list(labels)].isna().all().tolist() == [False] * 4 + [True]


def test_without_the_test_table_there_is_no_official_split(tmp_path: Path) -> None:
    write_vindr_tree(tmp_path, save=None)
    (tmp_path / TEST).unlink()
    source = read(tmp_path)
    assert source.official is None
    assert len(source.index) == 12


@pytest.mark.parametrize(
    ("form", "table", "column", "text", "message"),
    [
        ("physionet", TRAIN, "image_id", "../../etc/x", r"train\.csv, line 4: .* is no image_id"),
        ("physionet", TRAIN, "Atelectasis", "2", r"train\.csv, line 4: Atelectasis '2' is no label: write 1 or 0"),
        ("physionet", TRAIN, "Atelectasis", "", r"train\.csv, line 4: Atelectasis '' is no vote of a reader"),
        ("physionet", TEST, "Pneumonia", "x", r"test\.csv, line 4: Pneumonia 'x' is no label"),
        ("kaggle", "train.csv", "image_id", "", r"train\.csv, line 4: '' is no image_id"),
        ("kaggle", "train.csv", "class_name", "Cyst", r"train\.csv, line 4: unknown finding 'Cyst'"),
    ],
)
def test_a_cell_that_cannot_be_is_named_with_its_line(
    tmp_path: Path, form: str, table: str, column: str, text: str, message: str
) -> None:
    write_vindr_tree(tmp_path, form=form, save=None)
    rows = pd.read_csv(tmp_path / table, dtype=str, keep_default_na=False)
    rows.loc[2, column] = text
    rows.to_csv(tmp_path / table, index=False)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_reader_has_one_row_an_image(tmp_path: Path) -> None:
    write_vindr_tree(tmp_path, save=None)
    for name, line in ((TRAIN, 37), (TEST, 5)):
        text = (tmp_path / name).read_text()
        rows = text.splitlines()
        (tmp_path / name).write_text(f"{text}{rows[1]}\n")
        with pytest.raises(DataError, match=rf"1 image stands in it twice \(.* in lines 2, {line + 1}\)"):
            read(tmp_path)
        (tmp_path / name).write_text(text)


def test_a_finding_that_one_table_lacks_is_unknown_there(tmp_path: Path) -> None:
    test = write_vindr_tree(tmp_path, save=None)["test"]
    test.drop(columns="Pleural effusion").to_csv(tmp_path / TEST, index=False)
    assert read(tmp_path).index["Effusion"].isna().sum() == 4


def test_absent_files_are_dropped_and_none_is_an_error(tmp_path: Path) -> None:
    write_vindr_tree(tmp_path)
    path = min((tmp_path / "train").iterdir())
    path.unlink()
    source = read(tmp_path, DiskFiles(tmp_path))
    looked_for = path.with_suffix(".dicom")
    wanted = {"image": [looked_for.name], "path": [str(looked_for)], "reason": ["not on disk"]}
    assert source.dropped.to_dict("list") == wanted
    assert source.official is not None
    assert len(source.official) == len(source.index) == 15
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match="none of its 16 images can be used: not on disk"):
        read(tmp_path, DiskFiles(tmp_path))


def test_no_folder_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no label table in it \(annotations/image_labels_train\.csv or train\.csv\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("agreement", "positives"),
    [
        ("any", [186, 2300, 1032, 613, 0, 0, 0, 96]),
        ("majority", [62, 1817, 634, 245, 0, 0, 0, 58]),
        ("all", [18, 1297, 439, 91, 0, 0, 0, 45]),
    ],
)
def test_the_whole_real_table_of_kaggle(tmp_path: Path, agreement: str, positives: list[int]) -> None:
    (tmp_path / "train.csv.gz").symlink_to(find_real_table("vinbigdata-train.csv.gz"))
    index = read(tmp_path, agreement=agreement).index
    assert len(index) == 15_000
    assert np.nansum(read_targets(index, LABELS), axis=0).tolist() == positives
    assert index[["Mass", "Nodule", "Pneumonia"]].isna().all(axis=None)
    table = pd.read_csv(tmp_path / "train.csv.gz")
    table = table[table["class_name"] == "Pleural effusion"]
    votes = table.groupby("image_id")["rad_id"].nunique().reindex(index["patient"], fill_value=0)
    np.testing.assert_array_equal(index["Effusion"], RULES[agreement](votes))
