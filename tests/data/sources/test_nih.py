"""NIH's folder, read as its users have it, and with all that can be wrong with it."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrlit.core.errors import DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS, NO_FINDING
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.index import hash_index, read_targets
from cxrlit.data.sources import Source, nih
from cxrlit.data.sources.nih import FINDINGS, read_boxes
from cxrlit.data.sources.nih_files import read_official_lists

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def read_nih(root: Path) -> Source:
    return nih.read_nih(root, DiskFiles(root), LABELS)


def read_labels(path: Path, labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    return nih.read_labels(path, labels)


def write_table(path: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def make_row(image: str = "a.png", findings: str = "Mass", patient: str = "1", age: str = "58", end: str = "") -> str:
    return f"{image},{findings},0,{patient},{age},F,PA,2500,2048,0.143,0.143{end}"


def find_table(root: Path) -> Path:
    return next(root.glob("Data_Entry_2017*.csv"))


def read_rows(root: Path) -> list[str]:
    return find_table(root).read_text().splitlines()[1:]


def rewrite_row(root: Path, number: int, old: str, new: str) -> None:
    """Change a row, counted from 0, of a tree's table."""
    lines = find_table(root).read_text().splitlines()
    assert old in lines[number + 1]
    lines[number + 1] = lines[number + 1].replace(old, new, 1)
    find_table(root).write_text("\n".join(lines) + "\n")


LAYOUTS = [("images",), ("images_001/images", "images_012/images"), ("images_001", "images_002"), ("images/images",)]


@pytest.mark.parametrize("form", ["v2020", "2017"])
@pytest.mark.parametrize("folders", LAYOUTS, ids="-".join)
def test_every_layout_and_both_tables_say_the_same(make_nih_tree: Any, form: str, folders: tuple[str, ...]) -> None:
    root = make_nih_tree(form=form, folders=folders)
    source = read_nih(root)
    expected = read_nih(make_nih_tree("other"))
    assert source.dropped.empty
    assert source.official is not None
    assert expected.official is not None
    # Where a file lies, and when it was written, are of the tree; all else is of the data set.
    of_the_tree = ["path", "file", "mtime_ns"]
    pd.testing.assert_frame_equal(source.index.drop(columns=of_the_tree), expected.index.drop(columns=of_the_tree))
    assert {path.rpartition("/")[0] for path in source.index["file"]} == set(folders)
    assert source.official.tolist() == expected.official.tolist()
    for image, path, n_bytes in source.index[["image", "path", "n_bytes"]].itertuples(index=False):
        assert Path(path).is_absolute()
        assert Path(path).name == image
        assert Path(path).stat().st_size == n_bytes


def test_the_index_says_what_the_table_says(nih_tree: Path) -> None:
    index = read_nih(nih_tree).index
    assert tuple(index.columns) == (*FIXED_COLUMNS, *LABELS)
    rows = [line.split(",") for line in read_rows(nih_tree)]
    assert index["image"].tolist() == [row[0] for row in rows]
    assert index["patient"].tolist() == [row[3] for row in rows]
    assert index["age"].tolist() == [float(row[4]) for row in rows]
    assert index["sex"].tolist() == [row[5] for row in rows]
    assert index["view"].tolist() == [row[6] for row in rows]
    wanted = [[float(label in row[1].split("|")) for label in LABELS] for row in rows]
    np.testing.assert_array_equal(read_targets(index, LABELS), wanted)


@pytest.mark.parametrize("header_end", ["", ","])
@pytest.mark.parametrize("row_end", ["", ","])
@pytest.mark.filterwarnings("error")
def test_commas_at_the_end_of_lines_move_no_column(tmp_path: Path, header_end: str, row_end: str) -> None:
    rows = [make_row(end=row_end), make_row("b.png", patient="2", end=row_end)]
    table = read_labels(write_table(tmp_path / "table.csv", *rows, header=HEADER + header_end))
    assert table["image"].tolist() == ["a.png", "b.png"]
    assert table["patient"].tolist() == ["1", "2"]
    assert table["age"].tolist() == [58, 58]
    assert table["view"].tolist() == ["PA", "PA"]


@pytest.mark.parametrize(
    ("text", "years"),
    [("58", 58), ("058Y", 58), ("011M", 11 / 12), ("003D", 3 / 365.25), ("0", 0), ("120", 120), (" 7 ", 7)]
    + [(text, None) for text in ("411", "148Y", "", "x", "-3", "5.5.5", "9" * 40)],
)
def test_ages_are_years_or_unknown(tmp_path: Path, text: str, years: float | None) -> None:
    age = read_labels(write_table(tmp_path / "table.csv", make_row(age=text)))["age"]
    assert age.dtype == np.float32
    assert np.isnan(age[0]) if years is None else age[0] == pytest.approx(years)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_is_no_part_of_the_table(nih_tree: Path, encoding: str) -> None:
    for path in (find_table(nih_tree), nih_tree / "train_val_list.txt", nih_tree / "test_list.txt"):
        path.write_text(path.read_text(), encoding=encoding)
    assert read_nih(nih_tree).dropped.empty


def test_windows_line_ends_are_no_part_of_names(nih_tree: Path) -> None:
    for path in (find_table(nih_tree), nih_tree / "train_val_list.txt", nih_tree / "test_list.txt"):
        path.write_text(path.read_text(), newline="\r\n")
    assert read_nih(nih_tree).dropped.empty


def test_fourteen_findings_in_and_eight_targets_out(tmp_path: Path) -> None:
    every = "|".join(FINDINGS)
    rows = [make_row("a.png", every), make_row("b.png", NO_FINDING), make_row("c.png", "Hernia|Pleural_Thickening")]
    targets = read_targets(read_labels(write_table(tmp_path / "table.csv", *rows)), LABELS)
    np.testing.assert_array_equal(targets, [[1] * 8, [0] * 8, [0] * 8])


@pytest.mark.parametrize("finding", ["Tumor", "mass", "", "Mass|", "Mass | Nodule", "Infiltrate"])
def test_an_unknown_finding_is_named_with_its_line(tmp_path: Path, finding: str) -> None:
    path = write_table(tmp_path / "table.csv", make_row(), make_row("b.png", finding), make_row("c.png", finding))
    with pytest.raises(DataError, match=r"table\.csv, line 3: unknown finding"):
        read_labels(path)


@pytest.mark.parametrize("column", ["Image Index", "Finding Labels", "Patient ID"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = write_table(tmp_path / "table.csv", make_row(), header=HEADER.replace(column, "Other"))
    with pytest.raises(DataError, match=f"the column {column} is missing"):
        read_labels(path)


def test_columns_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", "1,Mass,a.png", header="Patient ID,Finding Labels,Image Index")
    table = read_labels(path)
    assert table.loc[0, ["image", "patient", "Mass"]].tolist() == ["a.png", "1", 1]
    assert table[["age", "sex", "view"]].isna().all(axis=None)


def test_duplicate_images_are_named(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", make_row("a.png"), make_row("b.png"), make_row("a.png", patient="2"))
    with pytest.raises(DataError, match=r"1 image stands in it twice \(a\.png in lines 2, 4\)"):
        read_labels(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00\x01", b'Image Index,Finding Labels,Patient ID\n"a.png,Mass,1\n', HEADER.encode() + b"\n"],
    ids=["empty", "binary", "open quote", "header alone"],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"table\.csv(, line \d)?: "):
        read_labels(tmp_path / "table.csv")


def test_a_table_that_was_cut_off_is_refused(nih_tree: Path) -> None:
    path = find_table(nih_tree)
    lines = read_rows(nih_tree)
    path.write_text(path.read_text().removesuffix(lines[-1] + "\n") + lines[-1][:20])
    with pytest.raises(DataError, match=rf"line {len(lines) + 1}: unknown finding"):
        read_nih(nih_tree)


@pytest.mark.parametrize(
    ("patient", "fault"),
    [
        ("", "'' is blank"), ("  ", "'' is blank"), ("NA", "'NA' names nobody"), ("nan", "'nan' names nobody"),
        ("unknown", "'unknown' names nobody"), ("-", "'-' names nobody"), ("1.2345E+11", "is a number without"),
    ],
)  # fmt: skip
def test_an_image_without_a_patient_is_refused(nih_tree: Path, patient: str, fault: str) -> None:
    rewrite_row(nih_tree, 0, ",0,1,", f",0,{patient},")
    with pytest.raises(DataError, match=rf"line 2: Patient ID .*{re.escape(fault)}"):
        read_nih(nih_tree)


@pytest.mark.parametrize("spelled", ["1.0", "00000001", "1.", "+1", "1e0"])
def test_a_patient_that_is_spelled_otherwise_is_the_same(nih_tree: Path, spelled: str) -> None:
    wanted = read_nih(nih_tree).index["patient"].tolist()
    rewrite_row(nih_tree, 0, ",0,1,", f",0,{spelled},")
    assert read_nih(nih_tree).index["patient"].tolist() == wanted


def test_spaces_make_no_other_patient(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", make_row("a.png", patient="1"), make_row("b.png", patient=" 1 "))
    assert read_labels(path)["patient"].tolist() == ["1", "1"]


def test_absent_files_are_dropped_with_the_reason(nih_tree: Path) -> None:
    gone = ["00000002_000.png", "00000005_000.png"]
    for name in gone:
        next(nih_tree.rglob(name)).unlink()
    source = read_nih(nih_tree)
    assert source.dropped.to_dict("list") == {"image": gone, "path": ["", ""], "reason": ["not on disk"] * 2}
    assert not set(gone) & set(source.index["image"])
    assert len(source.index) == len(read_rows(nih_tree)) - 2
    assert source.official is not None
    assert len(source.official) == len(source.index)


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "images_001/images/00000001_000.png", "..\\x.png"])
def test_a_name_that_is_a_path_reaches_no_file(nih_tree: Path, name: str) -> None:
    (nih_tree.parent / "x.png").write_bytes(b"outside")
    rewrite_row(nih_tree, 0, "00000001_000.png", name)
    source = read_nih(nih_tree)
    assert source.dropped["image"].tolist() == [name]
    assert source.dropped["reason"].tolist() == ["not on disk"]


def test_what_is_no_file_is_not_on_disk(nih_tree: Path) -> None:
    names = ["00000001_000.png", "00000002_000.png"]
    paths = [next(nih_tree.rglob(name)) for name in names]
    for path in paths:
        path.unlink()
    paths[0].mkdir()
    os.mkfifo(paths[1])
    assert read_nih(nih_tree).dropped["image"].tolist() == names


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere.png", "a link that leads nowhere"),
        ("00000001_000.png", "cannot be read: "),
        ("../../../outside.png", "a link to a file outside of data.root"),
    ],
    ids=["dangling", "loop", "outward"],
)
def test_what_cannot_be_read_leaves_the_index_until_it_can(nih_tree: Path, target: str, reason: str) -> None:
    (nih_tree.parent / "outside.png").write_bytes(b"outside")
    whole = hash_index(read_nih(nih_tree).index, LABELS)
    path = next(nih_tree.rglob("00000001_000.png"))
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(target)
    source = read_nih(nih_tree)
    assert path.name not in source.index["image"].tolist()
    assert source.dropped["reason"].str.startswith(reason).tolist() == [True]
    assert hash_index(source.index, LABELS) != whole
    path.unlink()
    path.write_bytes(content)
    assert hash_index(read_nih(nih_tree).index, LABELS) == whole


def test_zeros_before_a_patient_number_say_nothing(nih_tree: Path) -> None:
    table = nih_tree / "Data_Entry_2017_v2020.csv"
    plain = read_nih(nih_tree).index["patient"].tolist()
    rows = table.read_text().splitlines()
    rows[1:] = [",".join([*row.split(",")[:3], f"000{row.split(',')[3]}", *row.split(",")[4:]]) for row in rows[1:]]
    table.write_text("\n".join(rows) + "\n")
    assert read_nih(nih_tree).index["patient"].tolist() == plain


def test_other_files_among_the_images_do_no_harm(nih_tree: Path) -> None:
    folder = nih_tree / "images_001" / "images"
    (folder / "._00000001_000.png").write_bytes(b"resource fork")
    (folder / "Thumbs.db").write_bytes(b"")
    (nih_tree / "images_extra").mkdir()
    assert len(read_nih(nih_tree).index) == len(read_rows(nih_tree))


def test_images_in_neither_list_are_dropped(nih_tree: Path) -> None:
    path = nih_tree / "train_val_list.txt"
    path.write_text(path.read_text().replace("00000002_000.png\n", ""))
    source = read_nih(nih_tree)
    assert source.dropped["image"].tolist() == ["00000002_000.png"]
    assert source.dropped["reason"].tolist() == ["neither in train_val_list.txt nor in test_list.txt"]
    assert Path(source.dropped["path"][0]).is_file()
    assert source.official is not None
    rows = zip(source.index["patient"], source.official, strict=True)
    assert all((part == "test") == (int(patient) % 5 == 0) for patient, part in rows)


def test_no_folder_no_table_no_images_are_three_messages(tmp_path: Path, nih_tree: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read_nih(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no label table in it \(Data_Entry_2017_v2020\.csv or "):
        read_nih(tmp_path / "empty")
    for folder in nih_tree.glob("images_*"):
        shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"none of the table's \d+ images, such as 00000001_000\.png, is in"):
        read_nih(nih_tree)


def test_a_table_of_other_images_is_refused(nih_tree: Path) -> None:
    for path in list(nih_tree.rglob("*.png")):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DataError, match=r"none of the table's"):
        read_nih(nih_tree)


BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def test_boxes_are_in_pixels_and_infiltrate_is_infiltration(tmp_path: Path) -> None:
    rows = ("a.png,Infiltrate,0,0,1024,1024", "b.png,Mass,1.5,2.5,10.25,20")
    boxes = read_boxes(write_table(tmp_path / "boxes.csv", *rows, header=BOX_HEADER))
    assert boxes.columns.tolist() == ["image", "label", "x", "y", "width", "height"]
    assert boxes.to_numpy().tolist() == [
        ["a.png", "Infiltration", 0, 0, 1024, 1024],
        ["b.png", "Mass", 1.5, 2.5, 10.25, 20],
    ]


@pytest.mark.parametrize("box", ["-1,0,5,5", "0,0,0,5", "1000,0,25,5", "0,1020,5,5", "0,0,x,5", "0,0,nan,5", "0,0,5,"])
def test_a_box_that_is_none_is_named_with_its_line(tmp_path: Path, box: str) -> None:
    path = write_table(tmp_path / "boxes.csv", "a.png,Mass,0,0,5,5", f"b.png,Mass,{box}", header=BOX_HEADER)
    with pytest.raises(DataError, match=r"boxes\.csv, line 3: not a box inside 1024 x 1024 pixels"):
        read_boxes(path)


def test_the_real_boxes(nih_sample: Path) -> None:
    boxes = read_boxes(nih_sample / "BBox_List_2017.csv")
    assert len(boxes) == 984
    assert boxes["image"].nunique() == 880
    assert boxes["label"].value_counts().to_dict() == {
        "Atelectasis": 180, "Effusion": 153, "Cardiomegaly": 146, "Infiltration": 123, "Pneumonia": 120,
        "Pneumothorax": 98, "Mass": 85, "Nodule": 79,
    }  # fmt: skip
    official = read_official_lists(nih_sample)
    assert official is not None
    assert set(boxes["image"].map(official)) == {"test"}
    plain = pd.read_csv(nih_sample / "BBox_List_2017.csv").iloc[:, 2:6]
    np.testing.assert_array_equal(boxes[["x", "y", "width", "height"]], plain)


def test_the_real_sample(nih_sample: Path) -> None:
    source = read_nih(nih_sample)
    assert source.dropped.empty
    assert len(source.index) == 1000
    assert source.index["patient"].nunique() == 816
    assert read_targets(source.index, LABELS).sum(axis=0).tolist() == [128, 49, 103, 198, 62, 72, 296, 34]
    assert source.official is not None
    assert pd.Series(source.official).value_counts().to_dict() == {"train_val": 863, "test": 137}
    assert source.index["age"].notna().all()


def test_the_whole_real_table(nih_table: pd.DataFrame) -> None:
    assert len(nih_table) == 112_120
    assert nih_table["patient"].nunique() == 30_805
    assert read_targets(nih_table, LABELS).sum(axis=0).tolist() == [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302]
    assert nih_table[["age", "sex", "view"]].notna().all(axis=None)
