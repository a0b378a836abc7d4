"""MIMIC-CXR-JPG's folder: three tables joined."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import EveryFile, make_config, write_mimic_tree

from cxrlit.config import MIMICConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.sources import Source
from cxrlit.data.sources.mimic import read_mimic

METADATA, CHEXPERT, SPLIT = (f"mimic-cxr-2.0.0-{name}.csv" for name in ("metadata", "chexpert", "split"))


def read(root: Path, files: ImageFiles | None = None, **changes: object) -> Source:
    return read_mimic(make_config(MIMICConfig, root, **changes), files or EveryFile(), LABELS)


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, pd.DataFrame]:
    """A tree without images, its tables not gzipped."""
    return write_mimic_tree(tmp_path, suffix=".csv", images=False)


def edit(root: Path, name: str, row: int, column: str, text: str) -> None:
    table = pd.read_csv(root / name, dtype=str, keep_default_na=False)
    table.loc[row, column] = text
    table.to_csv(root / name, index=False)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("labeler", ["chexpert", "negbio"])
def test_the_index_says_what_the_tables_say(tmp_path: Path, suffix: str, labeler: str) -> None:
    tables = write_mimic_tree(tmp_path, suffix=suffix, labeler=labeler)
    source = read(tmp_path, DiskFiles(tmp_path))
    assert source.name == "mimic"
    assert source.dropped.empty
    assert source.index.columns.tolist() == [*FIXED_COLUMNS, *LABELS]
    rows = tables["metadata"].set_index(tables["metadata"]["dicom_id"] + ".jpg")
    studies = tables["labels"].set_index("study_id")
    parts = tables["split"].set_index(tables["split"]["dicom_id"] + ".jpg")["split"]
    assert sorted(rows.index) == source.index["image"].tolist()
    assert source.official is not None
    numbers = {"1.0": 1.0, "0.0": 0.0, "-1.0": np.nan, "": 0.0}
    for (_, row), part in zip(source.index.iterrows(), source.official, strict=True):
        wanted = rows.loc[row["image"]]
        assert (row["patient"], row["study"]) == (wanted["subject_id"], wanted["study_id"])
        assert row["view"] == wanted["ViewPosition"].replace("LL", "LATERAL")
        assert part == parts[row["image"]].replace("validate", "val")
        np.testing.assert_array_equal(row["Effusion"], numbers[studies.loc[row["study"], "Pleural Effusion"]])
        np.testing.assert_array_equal(row["Pneumonia"], numbers[studies.loc[row["study"], "Pneumonia"]])
        assert Path(row["path"]).stat().st_size == row["n_bytes"]
    assert set(source.official) == {"train", "val", "test"}
    assert source.index[["age", "sex", "Mass", "Nodule", "Infiltration"]].isna().all(axis=None)


def test_the_path_follows_from_the_ids(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    dicom, subject, study = tables["metadata"].iloc[0, :3]
    index = read(tmp_path).index.set_index("image")
    assert index.loc[f"{dicom}.jpg", "file"] == f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"


def test_uncertain_and_unmentioned(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    counts = tables["metadata"].merge(tables["labels"], on="study_id")["Atelectasis"].value_counts()
    index = read(tmp_path, uncertain="one", unmentioned="ignore").index
    assert index["Atelectasis"].sum() == counts["1.0"] + counts["-1.0"]
    assert index["Atelectasis"].isna().sum() == counts[""]
    with pytest.raises(ConfigError, match="Edema is none of the labels"):
        read(tmp_path, uncertain={"Edema": "one"})


def test_a_study_without_labels_is_dropped(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    gone = tables["labels"]["study_id"][1]
    tables["labels"][tables["labels"]["study_id"] != gone].to_csv(tmp_path / CHEXPERT, index=False)
    images = tables["metadata"].loc[tables["metadata"]["study_id"] == gone, "dicom_id"] + ".jpg"
    source = read(tmp_path)
    assert source.dropped["image"].tolist() == images.tolist()
    assert set(source.dropped["reason"]) == {"its study has no labels"}
    assert not set(images) & set(source.index["image"])
    assert len(source.index) + len(images) == len(tables["metadata"])
    assert source.official is not None
    assert len(source.official) == len(source.index)


def test_labels_of_another_patients_study_do_not_count(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    edit(tmp_path, CHEXPERT, 0, "subject_id", "19999999")
    assert set(read(tmp_path).dropped["reason"]) == {"its study has no labels"}


def test_an_image_that_the_split_does_not_name_is_dropped(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    tables["split"].iloc[1:].to_csv(tmp_path / SPLIT, index=False)
    source = read(tmp_path)
    assert source.dropped["image"].tolist() == [f"{tables['split']['dicom_id'][0]}.jpg"]
    assert source.dropped["reason"].tolist() == [f"not in {SPLIT}"]


def test_without_the_split_there_is_no_official_one(tmp_path: Path) -> None:
    write_mimic_tree(tmp_path, split=False, images=False)
    source = read(tmp_path)
    assert source.official is None
    assert source.dropped.empty


@pytest.mark.parametrize("view", ["LPO", "", "XTABLE LATERAL", "pa"])
def test_other_views_are_unknown(tmp_path: Path, tables: dict[str, pd.DataFrame], view: str) -> None:
    edit(tmp_path, METADATA, 0, "ViewPosition", view)
    index = read(tmp_path).index.set_index("image")
    assert index["view"].isna().sum() == 1
    assert pd.isna(index.loc[f"{tables['metadata']['dicom_id'][0]}.jpg", "view"])


@pytest.mark.parametrize(
    ("name", "column", "text", "message"),
    [
        (METADATA, "dicom_id", "../../../etc/x", r"metadata\.csv, line 4: .* is no dicom_id of MIMIC's"),
        (METADATA, "dicom_id", "", "line 4: '' is no dicom_id"),
        (METADATA, "subject_id", "1000003", "line 4: '1000003' is no subject_id"),
        (METADATA, "subject_id", "../p1000", "line 4: .* is no subject_id"),
        (METADATA, "study_id", "5.0e7", "line 4: .* is no study_id"),
        (CHEXPERT, "Cardiomegaly", "2.0", r"chexpert\.csv, line 4: Cardiomegaly '2\.0' is no label"),
        (SPLIT, "split", "trian", r"split\.csv, line 4: the part 'trian' is none of train, validate, test"),
    ],
)
@pytest.mark.usefixtures("tables")
def test_a_cell_that_cannot_be_is_named_with_its_line(
    tmp_path: Path, name: str, column: str, text: str, message: str
) -> None:
    edit(tmp_path, name, 2, column, text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("name", [METADATA, CHEXPERT, SPLIT])
@pytest.mark.usefixtures("tables")
def test_a_row_that_stands_twice_is_named_with_its_lines(tmp_path: Path, name: str) -> None:
    lines = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_text("\n".join([*lines, lines[3]]))
    with pytest.raises(DataError, match=rf"{name}: 1 image stands in it twice \(.* in lines 4, {len(lines) + 1}\)"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "others"), [(METADATA, METADATA), (CHEXPERT, f"{CHEXPERT} or .*negbio.csv")])
@pytest.mark.usefixtures("tables")
def test_a_table_that_is_not_there_is_named(tmp_path: Path, name: str, others: str) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"no label table in it \({others}\)"):
        read(tmp_path)


def test_absent_files_are_dropped_and_none_is_an_error(tmp_path: Path) -> None:
    write_mimic_tree(tmp_path)
    path = next(tmp_path.rglob("*.jpg"))
    path.unlink()
    source = read(tmp_path, DiskFiles(tmp_path))
    assert source.dropped.to_dict("list") == {"image": [path.name], "path": [str(path)], "reason": ["not on disk"]}
    with pytest.raises(DataError, match=r"none of its \d+ images can be used: not on disk"):
        read(tmp_path, DiskFiles(tmp_path / "elsewhere"))


def test_the_package_of_tables_may_be_gzipped_in_part(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    plain = read(tmp_path)
    (tmp_path / f"{SPLIT}.gz").write_bytes(gzip.compress((tmp_path / SPLIT).read_bytes()))
    (tmp_path / SPLIT).unlink()
    source = read(tmp_path)
    pd.testing.assert_frame_equal(source.index, plain.index)
    assert source.official is not None
    assert plain.official is not None
    assert source.official.tolist() == plain.official.tolist()
    assert len(source.index) == len(tables["metadata"])


@pytest.mark.parametrize("ending", [".png", ".dcm"])
def test_copies_as_png_and_the_dicom_files_are_read_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    write_mimic_tree(tmp_path)
    whole = read(tmp_path, DiskFiles(tmp_path))
    paths = sorted(tmp_path.rglob("*.jpg"))
    paths[0].unlink()  # not every one has to be there
    for path in paths[1:]:
        path.rename(path.with_suffix(ending))
    found = read(tmp_path, DiskFiles(tmp_path))
    assert found.dropped["path"].tolist() == [str(paths[0])]
    assert found.index["image"].tolist() == [image for image in whole.index["image"] if image != paths[0].name]
    assert f"{len(paths) - 1} images have another ending than in the table" in capsys.readouterr().out
