"""PadChest's folder: its lists of terms, what they mean for a label, and the real table of 160,861 rows."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import PADCHEST_TABLE, EveryFile, find_real_table, make_config, write_padchest_tree

from cxrlit.config import PadChestConfig
from cxrlit.core.errors import DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.index import read_targets
from cxrlit.data.sources import Source
from cxrlit.data.sources.padchest import MEANINGS, read_padchest


def read(root: Path, files: ImageFiles | None = None, labels: tuple[str, ...] = LABELS) -> Source:
    return read_padchest(make_config(PadChestConfig, root), files or EveryFile(), labels)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """A tree without images."""
    return write_padchest_tree(tmp_path, images=False)


def edit(root: Path, column: str, *texts: str) -> Path:
    """Other cells in the first rows of a column."""
    path = root / PADCHEST_TABLE
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[: len(texts) - 1, column] = list(texts)
    table.rename(columns={"Unnamed: 0": ""}).to_csv(path, index=False)
    return path


def read_first(root: Path, table: pd.DataFrame, labels: tuple[str, ...] = LABELS) -> pd.Series:
    return read(root, labels=labels).index.set_index("image").loc[table["ImageID"][0]]


@pytest.mark.parametrize("folder", [None, "images", "."])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_index_says_what_the_table_says(tmp_path: Path, folder: str | None, suffix: str) -> None:
    table = write_padchest_tree(tmp_path, folder=folder, suffix=suffix).sort_values("ImageID", ignore_index=True)
    source = read(tmp_path, DiskFiles(tmp_path))
    assert source.name == "padchest"
    assert source.official is None
    assert source.dropped.empty
    index = source.index
    assert index.columns.tolist() == [*FIXED_COLUMNS, *LABELS]
    assert index["image"].tolist() == table["ImageID"].tolist()
    assert index["patient"].tolist() == table["PatientID"].tolist()
    assert index["study"].tolist() == table["StudyID"].tolist()
    assert index["sex"].tolist() == table["PatientSex_DICOM"].tolist()
    assert index["view"].tolist() == table["Projection"].replace("L", "LATERAL").tolist()
    assert index["age"].tolist() == (2014 - table["PatientBirth"].astype(float)).tolist()
    for label, term in {"Effusion": "pleural effusion", "Atelectasis": "laminar atelectasis"}.items():
        assert index[label].tolist() == table["Labels"].str.contains(term).astype(float).tolist()
        assert index[label].any()
    places = {None: table["ImageDir"] + "/", "images": "images/", ".": ""}[folder]
    assert index["file"].tolist() == (places + table["ImageID"]).tolist()


@pytest.mark.parametrize(
    ("terms", "present"),
    [
        ("['normal']", set()),
        ("['pleural effusion', 'laminar atelectasis']", {"Effusion", "Atelectasis"}),
        ("['hydropneumothorax']", {"Effusion", "Pneumothorax"}),
        ("[' pneumonia', '']", {"Pneumonia"}),
        ("['air bronchogram']", {"Infiltration"}),
        ("['multiple nodules','pulmonary mass']", {"Nodule", "Mass"}),
        ("['mediastinal mass', 'pericardial effusion', 'pseudonodule', 'subcutaneous emphysema']", set()),
    ],
)
def test_what_terms_mean(tmp_path: Path, table: pd.DataFrame, terms: str, present: set[str]) -> None:
    edit(tmp_path, "Labels", terms)
    row = read_first(tmp_path, table)
    assert {label for label in LABELS if row[label] == 1} == present
    assert {label for label in LABELS if row[label] == 0} == set(LABELS) - present


@pytest.mark.parametrize("term", ["unchanged", "suboptimal study"])
def test_what_a_report_leaves_open_is_unknown(tmp_path: Path, table: pd.DataFrame, term: str) -> None:
    edit(tmp_path, "Labels", f"['{term}', 'cardiomegaly']")
    row = read_first(tmp_path, table)
    assert row["Cardiomegaly"] == 1
    assert row[[label for label in LABELS if label != "Cardiomegaly"]].isna().all()


def test_a_mass_of_no_place_leaves_mass_open(tmp_path: Path, table: pd.DataFrame) -> None:
    edit(tmp_path, "Labels", "['mass', 'nodule']")
    row = read_first(tmp_path, table)
    assert np.isnan(row["Mass"])
    assert (row["Nodule"], row["Effusion"]) == (1, 0)


def test_other_labels_by_their_own_names(tmp_path: Path, table: pd.DataFrame) -> None:
    edit(tmp_path, "Labels", "['scoliosis', 'apical pleural thickening', 'Chilaiditi sign']")
    labels = ("Scoliosis", "Pleural_Thickening", "chilaiditi_sign", "No Finding", "Fracture")
    row = read_first(tmp_path, table, labels)
    assert row[["Scoliosis", "Pleural_Thickening", "chilaiditi_sign", "No Finding"]].tolist() == [1, 1, 1, 0]
    assert np.isnan(row["Fracture"])


def test_rows_that_say_nothing_are_dropped_with_the_reason(tmp_path: Path, table: pd.DataFrame) -> None:
    edit(tmp_path, "Labels", "", "nan", "['']", "[]", "['exclude', 'pneumonia']")
    edit(tmp_path, "Projection", *table["Projection"][:5], "EXCLUDE")
    edit(tmp_path, "PatientID", *table["PatientID"][:6], "nan", "")
    source = read(tmp_path)
    assert source.dropped["image"].tolist() == table["ImageID"][:8].tolist()
    nothing, excluded, nobody = (
        "the table has no labels for it",
        "the table says exclude",
        "the table has no patient for it",
    )
    assert source.dropped["reason"].tolist() == [nothing] * 4 + [excluded] * 2 + [nobody] * 2
    assert source.dropped.columns.tolist() == ["image", "path", "reason"]
    assert len(source.index) == len(table) - 8


@pytest.mark.parametrize(
    ("column", "text", "name", "wanted"),
    [
        ("Projection", "AP", "view", "AP"),
        ("Projection", "AP_horizontal", "view", "AP"),
        ("Projection", "COSTAL", "view", None),
        ("Projection", "UNK", "view", None),
        ("PatientSex_DICOM", "O", "sex", None),
        ("PatientSex_DICOM", "nan", "sex", None),
        ("PatientBirth", "nan", "age", None),
        ("PatientBirth", "2015.0", "age", None),
        ("PatientBirth", "1893", "age", None),
        ("PatientBirth", "1894", "age", 120),
        ("StudyDate_DICOM", "", "age", None),
        ("StudyID", "nan", "study", None),
    ],
)
def test_odd_cells(tmp_path: Path, table: pd.DataFrame, column: str, text: str, name: str, wanted: object) -> None:
    edit(tmp_path, column, text)
    value = read_first(tmp_path, table)[name]
    assert pd.isna(value) if wanted is None else value == wanted


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("Labels", "__import__('os').abort()", "is no list of labels"),
        ("Labels", "['a' 'b']", "is no list of labels"),
        ("Labels", "['a', 1]", "is no list of labels"),
        ("Labels", "['a'", "is no list of labels"),
        ("Labels", "['a', ['b']]", "is no list of labels"),
        ("Labels", "[" * 5000, "is no list of labels"),
        ("PatientID", "8.39860488694292E+35", "is no PatientID"),
        ("PatientID", "12 34", "is no PatientID"),
        ("ImageID", "../../etc/x.png", "is no ImageID"),
        ("ImageID", "..", "is no ImageID"),
        ("ImageID", "", "is no ImageID"),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_cell_that_cannot_be_is_named_with_its_line(tmp_path: Path, column: str, text: str, message: str) -> None:
    first = pd.read_csv(tmp_path / PADCHEST_TABLE, dtype=str)[column][0]
    edit(tmp_path, column, first, text)
    # Line 2 and 3 hold the first row, whose report has two lines.
    with pytest.raises(DataError, match=rf"\.csv, line 4: .* {message}"):
        read(tmp_path)


def test_a_folder_that_is_none_of_padchests_is_not_entered(tmp_path: Path) -> None:
    table = write_padchest_tree(tmp_path / "root", folder="images")
    edit(tmp_path / "root", "ImageDir", "../outside", "", "/etc", "nan")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / table["ImageID"][0]).write_bytes(b"outside")
    source = read(tmp_path / "root", DiskFiles(tmp_path / "root"))
    assert source.dropped.empty
    assert source.index["file"].tolist() == [f"images/{image}" for image in sorted(table["ImageID"])]


def test_absent_files_and_double_rows(tmp_path: Path) -> None:
    table = write_padchest_tree(tmp_path)
    gone = next(tmp_path.rglob(table["ImageID"][3]))
    gone.unlink()
    source = read(tmp_path, DiskFiles(tmp_path))
    assert source.dropped.to_dict("list") == {"image": [gone.name], "path": [str(gone)], "reason": ["not on disk"]}
    with pytest.raises(DataError, match=r"none of its 24 images can be used: not on disk"):
        read(tmp_path, DiskFiles(tmp_path / "elsewhere"))
    edit(tmp_path, "ImageID", table["ImageID"][1])
    with pytest.raises(DataError, match=r"1 image stands in it twice \(.* in lines 2, 4\)"):
        read(tmp_path)


def test_patients_that_share_a_study_are_one(tmp_path: Path, table: pd.DataFrame) -> None:
    assert len(set(table["PatientID"])) == 12
    edit(tmp_path, "PatientID", *table["PatientID"][:3], table["PatientID"][0])  # the second study has two patients
    index = read(tmp_path).index.set_index("image")
    assert index["patient"].nunique() == 11
    assert len(set(index.loc[table["ImageID"][:4], "patient"])) == 1
    edit(tmp_path, "StudyID", *["nan"] * len(table))
    edit(tmp_path, "PatientID", *table["PatientID"])
    assert read(tmp_path).index["patient"].nunique() == 12


@pytest.fixture(scope="module")
def real_table() -> pd.DataFrame:
    path = find_real_table(f"{PADCHEST_TABLE}.gz")
    columns = ["ImageID", "PatientID", "Labels", "Projection"]
    return pd.read_csv(path, usecols=columns, dtype=str).set_index("ImageID")


@pytest.fixture(scope="module")
def real_terms(real_table: pd.DataFrame) -> pd.Series:
    """A row a term of an image, read by Python itself."""
    texts = real_table["Labels"].dropna()
    lists = {text: ast.literal_eval(text) for text in texts.unique()}
    return texts.map(lists).explode().str.strip()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("padchest")
    (root / f"{PADCHEST_TABLE}.gz").symlink_to(find_real_table(f"{PADCHEST_TABLE}.gz"))
    return read(root, EveryFile())


@pytest.mark.slow
def test_the_whole_real_table(real: Source, real_table: pd.DataFrame) -> None:
    assert len(real_table) == 160_861
    assert real.dropped["reason"].value_counts().to_dict() == {
        "the table says exclude": 1323,
        "the table has no labels for it": 880,
    }
    assert len(real.index) + len(real.dropped) == 160_861
    assert real.index["patient"].nunique() == 66_988
    assert real.index["view"].value_counts().to_dict() == {"PA": 90_442, "LATERAL": 48_970, "AP": 18_628}
    targets = read_targets(real.index, LABELS)
    assert np.nansum(targets, axis=0).tolist() == [8961, 15005, 10017, 20750, 1039, 4071, 8174, 573]


def test_the_real_table_says_the_same_as_plain_pandas(
    real: Source, real_table: pd.DataFrame, real_terms: pd.Series
) -> None:
    terms = real_terms[real_terms.index.isin(real.index["image"])]
    unclear = set(terms.index[terms.isin(["unchanged", "suboptimal study"])])
    for label in LABELS:
        present = set(terms.index[terms.isin(MEANINGS[label])])
        hidden = unclear | (set(terms.index[terms == "mass"]) if label == "Mass" else set())
        values = real.index.set_index("image")[label]
        assert set(values.index[values == 1]) == present, label
        assert set(values.index[values.isna()]) == hidden - present, label
    patients = real_table["PatientID"].loc[real.index["image"]].to_numpy()
    assert len(set(patients)) == 66_989
    # One image of a study of three has another patient than the others.
    assert real.index.loc[real.index["patient"] != patients, "image"].tolist() == [
        "216840111366964012558082906712010004190248051_00-119-152.png"
    ]


def test_every_term_that_means_a_label_is_one_of_the_real_table(real_terms: pd.Series) -> None:
    terms = set(real_terms)
    # One is a term of the hierarchy that no report got.
    assert {term for findings in MEANINGS.values() for term in findings} - terms == {"hemothorax"}


@pytest.mark.parametrize("folder", [None, "images", "."])
def test_copies_as_jpeg_are_read_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str | None
) -> None:
    write_padchest_tree(tmp_path, folder=folder)
    whole = read(tmp_path, DiskFiles(tmp_path)).index
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(".jpg"))
    found = read(tmp_path, DiskFiles(tmp_path))
    assert found.dropped.empty
    assert found.index["image"].tolist() == whole["image"].tolist()
    assert found.index["file"].str.endswith(".jpg").all()
    assert "another ending" in capsys.readouterr().out
