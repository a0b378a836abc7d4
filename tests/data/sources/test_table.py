"""Any table: the columns that the config names, and what a table that cannot be right is told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import EveryFile, find_real_table, make_config, save_noise

from cxrlit.config import TableConfig
from cxrlit.core.errors import CXRLitError, DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.index import read_targets
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih import read_labels
from cxrlit.data.sources.table import read_any_table

ROWS = (
    ("a.png", "p1", "s1", "PA", "58", "F", "1", "0"),
    ("b.png", "p1", "s2", "lateral", "58.5", "male", "0", ""),
    ("c.png", "p2", "s3", "", "", "", "0", "1"),
)
HEADER = "image,patient,study,view,age,sex,Mass,pleural_effusion"
COLUMNS = {"patient": "patient", "study": "study", "view": "view", "age": "age", "sex": "sex"}


def write(folder: Path, *lines: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder / name


def read(
    table: Path,
    /,
    files: ImageFiles | None = None,
    labels: tuple[str, ...] = LABELS,
    root: Path | None = None,
    **changes: object,
) -> Source:
    """Read with ``patient`` as the column of patients unless told otherwise."""
    changes["columns"] = {"patient": "patient", **changes.get("columns", {})}  # type: ignore[dict-item]
    config = make_config(TableConfig, root or table.parent, **{"table": str(table), **changes})
    return read_any_table(config, files or EveryFile(), labels)


def read_marks(folder: Path, *cells: str, **changes: object) -> list[float]:
    """Targets of Mass from a column of marks."""
    path = write(folder, "image,patient,Mass", *(f"{row}.png,{row},{cell}" for row, cell in enumerate(cells)))
    return read(path, **changes).index["Mass"].tolist()


def refuse(table: Path, /, **changes: object) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(CXRLitError) as caught:
        read(table, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path, HEADER, *map(",".join, ROWS))


def test_a_table_and_a_folder_of_images(tmp_path: Path) -> None:
    table = write(tmp_path / "labels", HEADER, *(",".join((f"sub/{row[0]}", *row[1:])) for row in ROWS))
    for seed, row in enumerate(ROWS):
        save_noise(tmp_path / "images" / "sub" / row[0], seed)
    root = tmp_path / "images"
    columns = {**COLUMNS, "labels": {"Mass": "Mass", "Effusion": "pleural_effusion"}}
    source = read(table, DiskFiles(root), root=root, columns=columns)
    assert source.name == "table"
    assert source.official is None
    assert source.dropped.empty
    index = source.index
    assert index.columns.tolist() == [*FIXED_COLUMNS, *LABELS]
    assert index["image"].tolist() == ["a.png", "b.png", "c.png"]
    assert index["file"].tolist() == ["sub/a.png", "sub/b.png", "sub/c.png"]
    assert all(Path(path).is_file() for path in index["path"])
    assert index["patient"].tolist() == ["p1", "p1", "p2"]
    assert index["study"].tolist() == ["s1", "s2", "s3"]
    assert index["view"].tolist()[:2] == ["PA", "LATERAL"]
    assert index["sex"].tolist()[:2] == ["F", "M"]
    assert index["age"].tolist()[:2] == [58, 58.5]
    assert index.loc[2, ["view", "sex", "age"]].isna().all()
    np.testing.assert_array_equal(index[["Mass", "Effusion"]], [[1, 0], [0, np.nan], [0, 1]])
    others = [label for label in LABELS if label not in {"Mass", "Effusion"}]
    assert index[others].isna().all(axis=None)


def test_the_folder_of_the_table_is_the_root_by_default(plain: Path) -> None:
    config = make_config(TableConfig, plain.parent, table=str(plain), columns={"patient": "patient"})
    save_noise(plain.parent / "a.png", 0)
    source = read_any_table(config.model_copy(update={"root": None}), DiskFiles(plain.parent), LABELS)
    assert source.index["image"].tolist() == ["a.png"]
    assert source.dropped["image"].tolist() == ["b.png", "c.png"]
    assert source.dropped["reason"].tolist() == ["not on disk"] * 2


@pytest.mark.parametrize("form", ["mark", "crlf", "tsv", "gz", "parquet"])
def test_other_forms_of_the_same_table(tmp_path: Path, plain: Path, form: str) -> None:
    frame = pd.read_csv(plain)
    path = tmp_path / {"tsv": "t.tsv", "gz": "t.csv.gz", "parquet": "t.parquet"}.get(form, "t.csv")
    if form == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif form == "crlf":
        frame.to_csv(path, index=False, lineterminator="\r\n")
    else:
        frame.to_csv(
            path, index=False, sep="\t" if form == "tsv" else ",", encoding="utf-8-sig" if form == "mark" else None
        )
    pd.testing.assert_frame_equal(read(path, columns=COLUMNS).index, read(plain, columns=COLUMNS).index)


def test_columns_are_found_by_the_labels_names(tmp_path: Path) -> None:
    path = write(tmp_path, "image,patient,MASS,pleural thickening", "a.png,1,1,0")
    index = read(path, labels=("Mass", "Pleural_Thickening", "Nodule")).index
    assert index[["Mass", "Pleural_Thickening"]].to_numpy().tolist() == [[1, 0]]
    assert index["Nodule"].isna().all()
    both = write(tmp_path, "image,patient,Mass,mass", "a.png,1,1,0")
    assert "the columns Mass, mass may both be Mass: say data.columns.labels" in refuse(both)
    none = write(tmp_path, "image,patient,Hernia", "a.png,1,1")
    assert "none of the labels Atelectasis, " in refuse(none)
    assert "the columns are image, patient, Hernia" in refuse(none)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("1.0", 1),
        ("true", 1),
        ("TRUE", 1),
        ("Yes", 1),
        (" 1 ", 1),
        ("0", 0),
        ("0.0", 0),
        ("False", 0),
        ("no", 0),
    ],
)
def test_marks_of_all_kinds(tmp_path: Path, cell: str, value: float) -> None:
    assert read_marks(tmp_path, cell, "1", "0", "")[:3] == [value, 1, 0]
    assert np.isnan(read_marks(tmp_path, "1", "")[1])


@pytest.mark.parametrize("cell", ["maybe", "+", "1;5"])
def test_another_mark_is_named_with_its_line(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, "image,patient,Mass", "a.png,1,1", "b.png,2,0", f"c.png,3,{cell}")
    assert f"table.csv, line 4: Mass '{cell}' is no label: write 1 or 0 (or true, yes, positive" in refuse(path)


def test_a_number_that_is_no_target_is_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path, "image,patient,Mass", "a.png,1,0", "b.png,2,-1", "c.png,3,-1.0")
    fault = "lines 3, 4: Mass '-1' is neither 1 nor 0: if that number means uncertain, say data.uncertain_value=-1"
    assert fault in refuse(path)
    assert np.isnan(read(path, uncertain_value=-1.0).index["Mass"]).tolist() == [False, True, True]


@pytest.mark.parametrize(("rule", "value"), [("ignore", np.nan), ("zero", 0), ("one", 1), ({"Mass": "one"}, 1)])
@pytest.mark.parametrize("cell", ["-1", "-1.0", "-1e0"])
def test_a_value_that_means_uncertain(tmp_path: Path, rule: object, value: float, cell: str) -> None:
    values = read_marks(tmp_path, "1", cell, "0", "", uncertain_value=-1.0, uncertain=rule)
    np.testing.assert_array_equal(values, [1, value, 0, np.nan])


def read_list(folder: Path, *cells: str, separator: str = "|", labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    path = write(folder, "image,patient,found", *(f'{row}.png,{row},"{cell}"' for row, cell in enumerate(cells)))
    return read(path, labels=labels, separator=separator, columns={"findings": "found"}).index


def test_a_column_that_names_all_that_is_present(tmp_path: Path) -> None:
    index = read_list(tmp_path, "Mass|Hernia", "nodule | MASS", "No Finding", "")
    np.testing.assert_array_equal(index[["Mass", "Nodule"]], [[1, 0], [1, 1], [0, 0], [np.nan, np.nan]])
    assert index[[label for label in LABELS if label not in {"Mass", "Nodule"}]].isna().all(axis=None)
    index = read_list(
        tmp_path, "Mass, pleural thickening", "Mass", separator=",", labels=("Pleural_Thickening", "Mass")
    )
    assert index[["Pleural_Thickening", "Mass"]].to_numpy().tolist() == [[1, 1], [0, 1]]


def test_a_column_that_names_no_label_lists_what_it_names(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"found names none of the labels Atelec.*; it names Hernia, Masses \(data\.sep"
    ):
        read_list(tmp_path, "Hernia", "Masses")
    with pytest.raises(DataError, match="it names nothing"):
        read_list(tmp_path, "", "")


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["a/1.png", "b/2.png"], ["1.png", "2.png"]),
        (["a/1.png", "b/1.png"], ["a_1.png", "b_1.png"]),
        (["a/1.png", "b/1.png", "2.png"], ["2.png", "a_1.png", "b_1.png"]),
        (["./a/1.png", ".//a/./2.png"], ["1.png", "2.png"]),
        (["a b/x (1).png", "ä.png"], ["x (1).png", "ä.png"]),
        (["a/..b.png", "...png"], ["...png", "..b.png"]),
        (["{root}/a/1.png", "{root}/2.png"], ["1.png", "2.png"]),
    ],
)
def test_images_are_called_by_their_file_or_their_path(tmp_path: Path, cells: list[str], wanted: list[str]) -> None:
    cells = [cell.format(root=tmp_path) for cell in cells]
    index = read(write(tmp_path, "image,patient,Mass", *(f"{cell},1,0" for cell in cells))).index
    assert index["image"].tolist() == wanted
    assert all(not file.startswith(("/", ".//", "./")) for file in index["file"])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../../etc/x.png", "is not in data.root: paths are relative to it, without .."),
        ("..", "is not in data.root"),
        ("a/../../x.png", "is not in data.root"),
        ("a/../x.png", "is not in data.root"),
        ("/etc/passwd", "is not in data.root"),
        ("{root}/../x.png", "is not in data.root"),
        ("{root}x/a.png", "is not in data.root"),
        ("..\\..\\x.png", "is no path of a file: write folders with /"),
        ("C:\\x.png", "is no path of a file"),
        ("a/", "is no path of a file"),
        (".", "is no path of a file"),
        ("", "is blank"),
        ('"a\nb.png"', "holds U+000A (a control character): take it out"),
        ("a\x1b[2J.png", "holds U+001B (a control character)"),
    ],
)
def test_a_path_that_leads_elsewhere_is_named_with_its_line(tmp_path: Path, cell: str, message: str) -> None:
    rows = ("a.png,1,0", "b.png,1,0", f"{cell.format(root=tmp_path)},1,0", "d.png,1,0")
    text = refuse(write(tmp_path, "image,patient,Mass", *rows))
    assert "table.csv, line 4: image '" in text
    assert message in text


def test_rows_that_stand_twice_are_named_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "image,patient,Mass", "a.png,1,0", "b.png,1,0", "a.png,1,0")
    assert "1 image stands in it twice (a.png in lines 2, 4): keep one row" in refuse(path)
    path = write(tmp_path, "image,patient,Mass", "png/a.png,1,0", "./png/a.png,1,0")
    assert "1 image stands in it twice (png/a.png in lines 2, 3): keep one row" in refuse(path)
    path = write(tmp_path, "image,patient,Mass", "a/b_c.png,1,0", "a_b/c.png,1,0", "c.png,1,0")
    assert "1 image stands in it twice (a_b_c.png in lines 2, 3)" in refuse(path)


def test_without_patients_it_is_refused_until_the_user_says_so(plain: Path) -> None:
    plain.write_text(plain.read_text().replace("image,patient,", "image,person,"))
    message = refuse(plain, columns={"patient": None})
    assert "say data.patient=image to take every image for a patient of its own" in message
    assert "data.columns.patient (the columns are image, person, study" in message
    index = read(plain, columns={"patient": None}, patient="image").index
    assert index["patient"].tolist() == index["image"].tolist()
    assert "both say who the patients are" in refuse(plain, columns={"patient": "person"}, patient="image")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("1", "", "2"), "line 3: patient '' is blank: every image needs a patient"),
        (("1", "  ", ""), "lines 3, 4: patient '' is blank"),
        (("1", "2", "1.0"), "lines 2, 4: patient is 1 and 1.0: write each patient in one way"),
        (("007", "8", "7"), "lines 2, 4: patient is 007 and 7"),
        (("1e4", "8", "10000"), "lines 2, 4: patient is 1e4 and 10000"),
        *(
            (
                ("1", cell, "2", cell),
                f"lines 3, 5: patient {cell!r} names nobody: every image needs a patient; if somebody is called so",
            )
            for cell in (
                "NA",
                "N/A",
                "nan",
                "<NA>",
                "null",
                "None",
                "unknown",
                "UNKNOWN",
                "-",
                "--",
                "?",
                "missing",
                "#N/A",
                "#REF!",
                "todo",
                "anonymous",
                "not_available",
                "anon",
                "de-identified",
                "no id",
                "No patient",
                "(blank)",
                "#####",
                "n\\a",
                "-1",
                "-999",
            )
        ),
        *(
            (("1", cell, "2"), f"line 3: patient '{cell}' is a number without its last digits, which several patients")
            for cell in ("1.2345E+11", "1.2345e+17", "1E+12", "9.9E+015", "-1.5E+11", "1.2345E11")
        ),
        (("123456789012345000", "7", "123456789012346000"), "lines 2, 4: patient '123456789012345000' and all other"),
        (("b", "P\xa01"), "line 3: patient 'P\\\\xa01' holds U+00A0 (no-break space): take it out"),
    ],
)
def test_patients_that_cannot_be_told_apart(tmp_path: Path, cells: tuple[str, ...], message: str) -> None:
    path = write(tmp_path, "image,patient,Mass", *(f"{row}.png,{cell},0" for row, cell in enumerate(cells)))
    assert message in refuse(path)


@pytest.mark.parametrize(
    "names",
    [
        ("A1", "a1"), ("Straße", "STRASSE"), ("cafe\u0301", "caf\xe9"), ("\uff21\uff11", "A1"), ("A\u20131", "A-1"),
        ("A\u20141", "A\u20101"), ("A  1", "A 1"), ("P0001-02", "P1-2"),
        ("0" * 40 + "1", "1"), ("1", "+1"), ("1", "1."), ("1", "1.000"), ("10000", "1.e4"),  ("7", "\u0667"),
        ("P-7", "P\u22127"),
        ("0.5", ".50"), ("100000000000000000001", "100000000000000000001.0"), ("0", "-0"),
    ],
)  # fmt: skip
def test_a_patient_is_spelled_in_one_way(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [f"{row}.png,{name},0" for row, name in enumerate(["x", names[0], "y", names[1]])]
    text = refuse(write(tmp_path, "image,patient,Mass", *rows))
    assert f"lines 3, 5: patient is {names[0]} and {names[1]}: write each patient in one way" in text


def test_patients_may_be_called_anything_else(tmp_path: Path) -> None:
    names = ["1", "01-2", "A1", "-2", "1e1", "10", "00e1", "00e5", "S1.05", "S1.5",
             "1.05", "1.5", "1-05", "1_05", "1e", "1e1000", "A1.0", "A10", "b",
             "100000000000000000001", "100000000000000000002", "100000000000000000001.5"]  # fmt: skip
    path = write(tmp_path, "image,patient,Mass", *(f"{row:02}.png,{name},0" for row, name in enumerate(names)))
    assert read(path).index["patient"].tolist() == names


@pytest.mark.parametrize(
    "names",
    [
        ("123456789012345", "123456789012346"),
        ("123456789012345000", "7"),
        ("123456789012345000", "123456789012346001"),
    ],
    ids=["15 digits", "one", "others behind"],
)
def test_long_numbers_may_be_patients(tmp_path: Path, names: tuple[str, str]) -> None:
    path = write(tmp_path, "image,patient,Mass", *(f"{row}.png,{name},0" for row, name in enumerate(names)))
    assert read(path).index["patient"].tolist() == list(names)


def read_column(folder: Path, column: str, *cells: str) -> Source:
    path = write(
        folder, f"image,patient,Mass,{column}", *(f"{row}.png,{row},0,{cell}" for row, cell in enumerate(cells))
    )
    return read(path, columns={column: column})


@pytest.mark.parametrize(
    ("column", "cells", "wanted"),
    [
        (
            "view",
            ["pa", "AP", "Lateral", "LL", "AP_horizontal", "oblique", ""],
            ["PA", "AP", "LATERAL", "LATERAL", "AP"],
        ),
        ("sex", ["m", "F", "Female", "MALE", "O", ""], ["M", "F", "F", "M"]),
        ("age", ["0", "120", "58Y", "058y", "33.25", ""], [0, 120, 58, 58, 33.25]),
    ],
)
def test_views_sexes_and_ages(tmp_path: Path, column: str, cells: list[str], wanted: list[object]) -> None:
    values = read_column(tmp_path, column, *cells).index[column]
    assert values[: len(wanted)].tolist() == wanted
    assert values[len(wanted) :].isna().all()
    assert read_column(tmp_path, column, "", "").index[column].isna().all()


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("view", ["front", "", "back"], "view is never one of pa, .*; it is front, back"),
        ("sex", ["1", "2"], "sex is never one of m, male, f, female; it is 1, 2"),
        ("age", ["5", "-3"], "line 3: age '-3' is no age from 0 to 120 years"),
        ("age", ["121", "5", "999"], "lines 2, 4: age '121' is no age"),
        ("age", ["5", "old"], "line 3: age 'old' is no age"),
        ("age", ["5", "1e400"], "line 3: age '1e400' is no age"),
        ("split", ["train", "tset"], "line 3: split 'tset' is no part of a split"),
        ("split", ["train", ""], "line 3: split '' is no part of a split"),
    ],
)
def test_other_cells_are_named_with_their_lines(tmp_path: Path, column: str, cells: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_column(tmp_path, column, *cells)


@pytest.mark.parametrize("val", ["val", "Valid", "VALIDATE", "validation"])
def test_the_tables_own_split(tmp_path: Path, val: str) -> None:
    source = read_column(tmp_path, "split", "test", "Training", val, "train")
    assert source.official is not None
    assert source.official.tolist() == ["test", "train", "val", "train"]


def test_validation_is_carved_out_of_train_where_the_table_has_none(tmp_path: Path) -> None:
    source = read_column(tmp_path, "split", "train", "test", "train")
    assert source.official is not None
    assert source.official.tolist() == ["train_val", "test", "train_val"]


def test_the_split_follows_the_images(tmp_path: Path) -> None:
    path = write(tmp_path, "image,patient,Mass,split", "z.png,1,0,train", "a.png,2,1,test", "m.png,3,0,val")
    for name in ("z.png", "a.png"):
        save_noise(tmp_path / name, 0)
    source = read(path, DiskFiles(tmp_path), columns={"split": "split"})
    assert source.index["image"].tolist() == ["a.png", "z.png"]
    assert source.official is not None
    assert source.official.tolist() == ["test", "train"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": None}, "data=table needs data.table=PATH"),
        ({"table": "/tmp/x.xlsx"}, "a table's name ends with one of .csv, "),
        ({"table": "/absent/x.csv"}, "there is no such file"),
        ({"columns": {"image": "file"}}, "the column file is missing; there are image, patient, study"),
        ({"columns": {"age": "years"}}, "the column years is missing"),
        ({"columns": {"labels": {"Mass": "tumour"}}}, "the column tumour is missing"),
        ({"columns": {"labels": {"Tumour": "Mass"}}}, "data.columns.labels: Tumour is none of the labels"),
        ({"columns": {"labels": {}}}, "data.columns.labels: no label has a column"),
        ({"columns": {"labels": {"Mass": "Mass"}, "findings": "Mass"}}, "both say where the labels are"),
        (
            {"columns": {"findings": "Mass"}, "uncertain_value": -1.0},
            "data.uncertain_value goes with a column for each",
        ),
        ({"uncertain_value": 1.0}, "data.uncertain_value=1: 0 is absent and 1 is present"),
        ({"uncertain": {"Hernia": "one"}}, "data.uncertain: Hernia is none of the labels"),
    ],
)
def test_a_config_that_contradicts_the_table_or_itself(plain: Path, changes: dict[str, object], message: str) -> None:
    assert message in refuse(plain, **changes)


def test_a_comma_too_many_moves_no_cell_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path, "image,patient,Mass", "a.png,1,0", "b.png,Smith, John,0")
    assert "table.csv, line 3: it has 4 cells and the header 3" in refuse(path)
    path = write(tmp_path, "image,Mass,patient", "a.png,1,1", "b.png,0,Smith, John")
    assert "line 3: it has 4 cells" in refuse(path)


def test_an_encoding_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    rows = ("image,patient,Mass", "a.png,1,0", "é.png,2,0")
    assert "line 3: it is not UTF-8 text: save it as UTF-8" in refuse(write(tmp_path, *rows, encoding="latin-1"))
    assert read(write(tmp_path, *rows)).index["image"].tolist() == ["a.png", "é.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("", ""), ""),
        (("male,0,", "male,0,,1"), "line 3: it has 9 cells and the header 8"),
        (("b.png", "a.png"), "1 image stands in it twice (a.png in lines 2, 3)"),
        (("b.png", "../b.png"), "line 3: image '../b.png' is not in data.root"),
    ],
)
def test_the_table_is_read_once(plain: Path, table_opens: list[Path], change: tuple[str, str], message: str) -> None:
    if message:
        plain.write_text(plain.read_text().replace(*change))
        assert message in refuse(plain, columns=COLUMNS)
    else:
        assert len(read(plain, columns=COLUMNS).index) == 3
    assert table_opens == [plain]


def test_a_table_without_a_column_of_patients_is_read_once(plain: Path, table_opens: list[Path]) -> None:
    plain.write_text(plain.read_text().replace("image,patient,", "image,person,"))
    assert "the columns are image, person, study" in refuse(plain, columns={"patient": None})
    assert table_opens == [plain]


def test_no_image_at_all_is_an_error(plain: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv: none of its 3 images can be used: not on disk"):
        read(plain, DiskFiles(plain.parent))


def test_the_real_table_of_nih_read_as_any_table(tmp_path: Path) -> None:
    """The same rows as the NIH reader's, from a column of names and from a column for each label."""
    frame = read_labels(find_real_table("Data_Entry_2017_v2020.csv.gz"), LABELS).iloc[::10]
    found = ["|".join(label for label in LABELS if row[label] == 1) for row in frame[list(LABELS)].to_dict("records")]
    frame[["image", "patient", "age", "sex", "view"]].assign(found=found).to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False)
    wanted = frame.sort_values("image", ignore_index=True)
    columns = {"age": "age", "sex": "sex", "view": "view"}
    for name, more in (("a.csv", {"findings": "found"}), ("b.csv", {})):
        index = read(tmp_path / name, columns={**columns, **more}).index
        for column in ("image", "patient", "sex", "view"):
            assert index[column].tolist() == wanted[column].tolist()
        np.testing.assert_allclose(index["age"], wanted["age"])
        np.testing.assert_array_equal(read_targets(index, LABELS), read_targets(wanted, LABELS))


def test_absolute_paths_need_the_folder_that_holds_them_all_and_the_advice_works(plain: Path, tmp_path: Path) -> None:
    for seed, row in enumerate(ROWS):
        save_noise(tmp_path / "elsewhere" / "img" / row[0], seed)
    rows = [",".join((f"{tmp_path}/elsewhere/img/{row[0]}", *row[1:])) for row in ROWS]
    table = write(tmp_path / "labels", HEADER, *rows)
    advice = refuse(table).rpartition("say data.root=")[2].partition(",")[0]
    for root in (Path(advice), Path("/")):
        source = read(table, DiskFiles(root), root=root)
        assert source.dropped.empty
        assert source.index["image"].tolist() == ["a.png", "b.png", "c.png"]
