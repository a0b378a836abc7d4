"""CheXpert's folder: its tables, its paths, its uncertain labels, and the real table of 223,414 rows."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import EveryFile, find_real_table, make_config, write_chexpert_tree

from cxrlit.config import CheXpertConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.index import read_targets
from cxrlit.data.sources import Source
from cxrlit.data.sources.chexpert import read_chexpert
from cxrlit.data.split import split_by_patient

COLUMNS = {
    "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Effusion": "Pleural Effusion",
    "Pneumonia": "Pneumonia", "Pneumothorax": "Pneumothorax",
}  # fmt: skip


def read(root: Path, files: ImageFiles | None = None, labels: tuple[str, ...] = LABELS, **changes: object) -> Source:
    return read_chexpert(make_config(CheXpertConfig, root, **changes), files or DiskFiles(root), labels)


def rewrite(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_the_index_says_what_the_tables_say(tmp_path: Path) -> None:
    tables = write_chexpert_tree(tmp_path)
    source = read(tmp_path)
    assert source.name == "chexpert"
    assert source.dropped.empty
    assert source.index.columns.tolist() == [*FIXED_COLUMNS, *LABELS]
    table = pd.concat(tables.values(), ignore_index=True)
    table["image"] = table["Path"].str.split("/").str[2:].str.join("_")
    table = table.sort_values("image", ignore_index=True)
    index = source.index
    assert index["image"].tolist() == table["image"].tolist()
    assert index["image"].iloc[0] == "patient00001_study1_view1_frontal.jpg"
    assert index["patient"].tolist() == table["Path"].str.split("/").str[2].tolist()
    assert index["study"].tolist() == table["Path"].str.split("/").str[2:4].str.join("_").tolist()
    assert index["age"].tolist() == table["Age"].astype(float).tolist()
    assert index["sex"].tolist() == table["Sex"].str[0].tolist()
    assert index["view"].tolist() == table["AP/PA"].replace("", "LATERAL").tolist()
    for path, file, n_bytes in index[["path", "file", "n_bytes"]].itertuples(index=False):
        assert path == f"{tmp_path}/{file}"
        assert Path(path).stat().st_size == n_bytes
    for label in LABELS:
        marks = table[COLUMNS[label]] if label in COLUMNS else pd.Series(np.nan, index=table.index)
        wanted = marks.map({"1.0": 1.0, "0.0": 0.0, "-1.0": np.nan, "": 0.0})
        np.testing.assert_array_equal(index[label], wanted, err_msg=label)


@pytest.mark.parametrize("release", ["CheXpert-v1.0", "CheXpert-v1.0-small", "CheXpert-v1.0 batch 2 (train 1)", ""])
def test_the_release_in_a_path_says_nothing(tmp_path: Path, release: str) -> None:
    write_chexpert_tree(tmp_path, release="R")
    plain = read(tmp_path)
    for name in ("train.csv", "valid.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("\nR/", f"\n{release}/" if release else "\n"))
    pd.testing.assert_frame_equal(read(tmp_path).index, plain.index)


@pytest.mark.parametrize(("unmentioned", "blank"), [("zero", 0), ("ignore", np.nan)])
@pytest.mark.parametrize(("uncertain", "minus"), [("ignore", np.nan), ("zero", 0), ("one", 1)])
def test_uncertain_and_unmentioned(
    tmp_path: Path, uncertain: str, minus: float, unmentioned: str, blank: float
) -> None:
    table = write_chexpert_tree(tmp_path, tables=("train",), images=False)["train"]
    assert {"1.0", "0.0", "-1.0", ""} == set(table["Atelectasis"])
    index = read(tmp_path, EveryFile(), uncertain=uncertain, unmentioned=unmentioned).index
    wanted = dict(zip(table["Path"].str.split("/").str[2:].str.join("_"), table["Atelectasis"], strict=True))
    numbers = {"1.0": 1.0, "0.0": 0.0, "-1.0": minus, "": blank}
    np.testing.assert_array_equal(index["Atelectasis"], [numbers[wanted[image]] for image in index["image"]])


def test_uncertain_by_label(tmp_path: Path) -> None:
    write_chexpert_tree(tmp_path, tables=("train",), images=False)
    plain = read(tmp_path, EveryFile()).index
    ones = read(tmp_path, EveryFile(), uncertain={"Atelectasis": "one"}).index
    np.testing.assert_array_equal(ones["Atelectasis"], plain["Atelectasis"].fillna(1))
    np.testing.assert_array_equal(ones["Cardiomegaly"], plain["Cardiomegaly"])
    with pytest.raises(ConfigError, match=r"data\.uncertain: Edema is none of the labels"):
        read(tmp_path, EveryFile(), uncertain={"Edema": "one"})


def test_other_labels_by_their_own_names(tmp_path: Path) -> None:
    table = write_chexpert_tree(tmp_path, tables=("train",), images=False)["train"]
    labels = ("lung_lesion", "Pleural Effusion", "Tuberculosis")
    index = read(tmp_path, EveryFile(), labels).index
    assert index.columns.tolist() == [*FIXED_COLUMNS, *labels]
    assert index["lung_lesion"].sum() == (table["Lung Lesion"] == "1.0").sum()
    assert index["Pleural Effusion"].sum() == (table["Pleural Effusion"] == "1.0").sum()
    assert index["Tuberculosis"].isna().all()


@pytest.mark.parametrize(
    ("tables", "parts"),
    [
        (("train",), None),
        (("train", "valid"), {"train": "train_val", "valid": "test"}),
        (("train", "test"), {"train": "train_val", "test": "test"}),
        (("train", "valid", "test"), {"train": "train", "valid": "val", "test": "test"}),
    ],
)
@pytest.mark.parametrize("test_name", ["test.csv", "test_labels.csv", "test.csv.gz"])
def test_the_official_split_is_what_is_there(
    tmp_path: Path, tables: tuple[str, ...], parts: dict[str, str] | None, test_name: str
) -> None:
    write_chexpert_tree(tmp_path, tables=tables, images=False)
    if "test" in tables:
        text = (tmp_path / "test.csv").read_bytes()
        (tmp_path / "test.csv").unlink()
        (tmp_path / test_name).write_bytes(gzip.compress(text, mtime=0) if test_name.endswith(".gz") else text)
    source = read(tmp_path, EveryFile())
    if parts is None:
        assert source.official is None
        return
    assert source.official is not None
    assert source.official.tolist() == [parts[file.partition("/")[0]] for file in source.index["file"]]


def test_a_table_of_paths_and_labels_alone(tmp_path: Path) -> None:
    tables = write_chexpert_tree(tmp_path, images=False)
    bare = tables["valid"].drop(columns=["Sex", "Age", "Frontal/Lateral", "AP/PA"])
    bare.assign(Path=bare["Path"].str.partition("/")[2]).to_csv(tmp_path / "valid.csv", index=False)
    index = read(tmp_path, EveryFile()).index
    index = index[index["file"].str.startswith("valid/")]
    assert len(index) == len(bare)
    assert index[["age", "sex"]].isna().all(axis=None)
    assert (index["view"] == "LATERAL").tolist() == index["image"].str.contains("lateral").tolist()
    assert index["view"].notna().tolist() == index["image"].str.contains("lateral").tolist()


@pytest.mark.parametrize(
    ("old", "new", "column", "wanted"),
    [
        ("Male,", "Unknown,", "sex", None),
        (",AP,", ",LL,", "view", "LATERAL"),
        (",AP,", ",RL,", "view", "LATERAL"),
        (",Frontal,", ",Lateral,", "view", "LATERAL"),
        (",AP,", ",,", "view", None),
        (",22,", ",0,", "age", None),
        (",22,", ",121,", "age", None),
        (",22,", ",120,", "age", 120),
        (",22,", ",-5,", "age", None),
    ],
)
def test_odd_cells(tmp_path: Path, old: str, new: str, column: str, wanted: object) -> None:
    write_chexpert_tree(tmp_path, tables=("train",), images=False)
    head, separator, row = (tmp_path / "train.csv").read_text().partition("patient00002/study1/view1")
    line, end, rest = row.partition("\n")
    assert old in line
    (tmp_path / "train.csv").write_text(head + separator + line.replace(old, new, 1) + end + rest)
    index = read(tmp_path, EveryFile()).index.set_index("image")
    value = index.loc["patient00002_study1_view1_frontal.jpg", column]
    assert pd.isna(value) if wanted is None else value == wanted


@pytest.mark.parametrize(
    "path",
    ["a/../../etc/passwd", "R/train/patient00001/study1/../view1_frontal.jpg", "", "/etc/passwd", "train/x.jpg"]
    + ["R/train/patient00001/study1/view1_frontal.jpg/..", "R/other/patient00001/study1/view1_frontal.jpg"],
)
def test_a_path_that_is_none_of_chexperts_is_named_with_its_line(tmp_path: Path, path: str) -> None:
    write_chexpert_tree(tmp_path, tables=("train",), release="R", images=False)
    rewrite(tmp_path / "train.csv", "R/train/patient00002/study1/view1_frontal.jpg", path)
    with pytest.raises(DataError, match=r"train\.csv, line 3: .* is no path of CheXpert's"):
        read(tmp_path, EveryFile())


def test_a_label_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    write_chexpert_tree(tmp_path, tables=("train",), images=False)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    cells = lines[2].split(",")
    cells[7] = "maybe"  # Cardiomegaly
    lines[2] = ",".join(cells)
    (tmp_path / "train.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"train\.csv, line 3: Cardiomegaly 'maybe' is no label"):
        read(tmp_path, EveryFile())


def test_an_image_that_stands_twice_is_named(tmp_path: Path) -> None:
    write_chexpert_tree(tmp_path, tables=("train",), release="R", images=False)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(DataError, match=rf"1 image stands in it twice .* in lines 2, {len(lines) + 1}\)"):
        read(tmp_path, EveryFile())
    write_chexpert_tree(tmp_path, release="R", images=False)
    (tmp_path / "valid.csv").write_text("\n".join(lines[:3]))
    with pytest.raises(DataError, match="2 images stand in it twice"):
        read(tmp_path, EveryFile())


def test_absent_files_are_dropped_and_none_is_an_error(tmp_path: Path) -> None:
    write_chexpert_tree(tmp_path)
    whole = read(tmp_path)
    gone = "train/patient00003/study1/view1_frontal.jpg"
    (tmp_path / gone).unlink()
    source = read(tmp_path)
    assert source.dropped.to_dict("list") == {
        "image": ["patient00003_study1_view1_frontal.jpg"],
        "path": [str(tmp_path / gone)],
        "reason": ["not on disk"],
    }
    assert len(source.index) == len(whole.index) - 1
    assert source.official is not None
    assert len(source.official) == len(source.index)
    with pytest.raises(DataError, match=r"none of its \d+ images can be used: not on disk"):
        read(tmp_path, DiskFiles(tmp_path / "elsewhere"))


def test_no_folder_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no label table in it \(train\.csv\)"):
        read(tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("chexpert")
    (root / "train.csv.gz").symlink_to(find_real_table("chexpert_train.csv.gz"))
    return read(root, EveryFile())


def test_the_whole_real_table(real: Source) -> None:
    index = real.index
    assert len(index) == 223_414
    assert index["patient"].nunique() == 64_540
    assert index["view"].value_counts(dropna=False).to_dict() == {"AP": 161_590, "LATERAL": 32_404, "PA": 29_420}
    assert index["sex"].value_counts(dropna=False).to_dict() == {"M": 132_636, "F": 90_777, np.nan: 1}
    assert index["age"].isna().sum() == 3
    assert index["age"].min() == 18
    assert np.nansum(read_targets(index, LABELS), axis=0).tolist() == [33376, 27000, 86187, 0, 0, 0, 6039, 19448]


def test_the_real_table_says_the_same_as_plain_pandas(real: Source) -> None:
    table = pd.read_csv(find_real_table("chexpert_train.csv.gz"))
    table["image"] = table["Path"].str.split("/", n=2).str[2].str.replace("/", "_")
    table = table.set_index("image").loc[real.index["image"]]
    for label, column in COLUMNS.items():
        np.testing.assert_array_equal(real.index[label], table[column].fillna(0).replace(-1, np.nan), err_msg=label)
    assert real.index["Mass"].isna().all()


def test_a_grouped_split_of_the_real_table_is_balanced(real: Source) -> None:
    known = list(COLUMNS)
    parts = split_by_patient(real.index, LABELS, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=0)
    assert real.index.assign(part=parts).groupby("patient")["part"].nunique().max() == 1
    whole = real.index[known].mean()
    for part, share in (("val", 0.1), ("test", 0.2)):
        assert (parts == part).mean() == pytest.approx(share, abs=0.001)
        assert (real.index.loc[parts == part, known].mean() / whole - 1).abs().max() < 0.05, part


@pytest.mark.parametrize("ending", [".png", ".jpeg", ".JPG"])
def test_copies_with_another_ending_are_read_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    write_chexpert_tree(tmp_path)
    whole = read(tmp_path)
    for path in list(tmp_path.rglob("*.jpg")):
        path.rename(path.with_suffix(ending))
    found = read(tmp_path)
    assert found.dropped.empty
    assert found.index["image"].tolist() == whole.index["image"].tolist()
    assert found.index["file"].str.endswith(ending).all()
    assert "another ending" in capsys.readouterr().out
