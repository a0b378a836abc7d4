"""Tables as text: what is read, and what a bad one is told, with its lines."""

import gzip
import resource
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlit.core.errors import ConfigError, CXRLitError, DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.tables import csv_rows, open_table
from cxrlit.data.tables.csv_rows import MAX_LINE
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.text_table import MAX_ROWS, find_table
from cxrlit.data.tables.validate_cells import check_unique, settle_uncertain

MARK = b"\xef\xbb\xbf"
PLAIN = b"image,split\na.png,train\nb.png,test\n"


def write(folder: Path, content: bytes, name: str = "table.csv") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def read_header(path: Path) -> list[str]:
    with open_table.open_table(path) as table:
        return table.header


@pytest.mark.slow
@pytest.mark.parametrize(("line", "name"), [(b"a,b\n", "table.csv.gz"), (b"a\tb\r", "table.tsv"), (b"\n", "t.csv")])
def test_too_many_rows_are_not_read(tmp_path: Path, line: bytes, name: str) -> None:
    block = line * 2**16 + b"\n"
    separator = b"\t" if name.endswith("tsv") else b","
    content = b"image" + separator + b"split\n" + block * (MAX_ROWS // 2**16 + 1)
    path = write(tmp_path, gzip.compress(content, 1) if name.endswith("gz") else content, name)
    with pytest.raises(DataError, match=r"it has more than 10,000,000 lines: that is no label table$"):
        read_table(path, ("image", "split"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "table.csv"),
        (b"\xef\xbb\xbf" + PLAIN, "table.csv"),
        (PLAIN.replace(b"\n", b"\r\n"), "table.csv"),
        (PLAIN.rstrip(), "table.csv"),
        (PLAIN.replace(b",", b" , "), "table.csv"),
        (PLAIN.replace(b"\n", b"\n\n"), "table.csv"),
        (PLAIN.replace(b"image", b'"image"'), "table.csv"),
        (PLAIN.replace(b",", b"\t"), "table.tsv"),
        (gzip.compress(PLAIN, mtime=0), "table.csv.gz"),
        (gzip.compress(PLAIN.replace(b",", b"\t"), mtime=0), "table.TSV.GZ"),
    ],
    ids=["plain", "mark", "crlf", "no end", "spaces", "blank lines", "quotes", "tabs", "gzip", "tabs, gzip"],
)
def test_forms_of_one_table(tmp_path: Path, content: bytes, name: str) -> None:
    path = write(tmp_path, content, name)
    assert read_header(path) == ["image", "split"]
    cells = read_table(path, ("image",), ("split", "absent")).cells
    assert cells.to_dict("list") == {"image": ["a.png", "b.png"], "split": ["train", "test"]}
    assert read_table(path, ("split",)).cells.columns.tolist() == ["split"]


@pytest.mark.parametrize(
    ("name", "separator", "there", "wanted"),
    [("a.csv", ";", "semicolons", "commas"), ("a.csv", "\t", "tabs", "commas"), ("a.tsv", ",", "commas", "tabs")],
)
def test_another_separator_is_named(tmp_path: Path, name: str, separator: str, there: str, wanted: str) -> None:
    path = write(tmp_path, PLAIN.replace(b",", separator.encode()), name)
    with pytest.raises(
        DataError, match=f"its columns are separated by {there}, not by {wanted}: save it with {wanted}$"
    ):
        read_table(path, ("image", "split"))


def test_a_quote_that_is_never_closed_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + b'\n"c\nd",train\n"e.png,test\nf.png,test\n')
    with pytest.raises(DataError, match=r"line 7: a quotation mark is opened there and never closed$"):
        read_table(path, ("image", "split"))


def test_cells_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    path = write(tmp_path, b"image,n\nNA,007\nnan,1e5\n,x\n")
    cells = read_table(path, ("image", "n")).cells
    assert cells.to_dict("list") == {"image": ["NA", "nan", ""], "n": ["007", "1e5", "x"]}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "table.csv", "it is empty"),
        (b"\n \n", "table.csv", "it is empty"),
        (b"image,split\n", "table.csv", "has no rows"),
        (b"a,b\n1,2\n", "table.csv", "the column image, split is missing; there are a, b"),
        (b"image;split\na;b\n", "table.csv", "separated by semicolons"),
        (b"image,split,image\na,b,c\n", "table.csv", "two columns image"),
        (PLAIN.decode().encode("utf-16"), "table.csv", "line 1: there is a NUL byte"),
        (PLAIN + b"\0\0\0", "table.csv", "line 4: there is a NUL byte"),
        (PLAIN + "é,train\n".encode("latin-1"), "table.csv", "line 4: it is not UTF-8 text"),
        (PLAIN + "é".encode()[:1], "table.csv", "line 4: it is not UTF-8 text"),
        (b'image,split\n"a,b\nc,d\n', "table.csv", "line 2: a quotation mark is opened there and never closed"),
        (PLAIN, "table.csv.gz", "cannot be read: Not a gzipped file"),
        (gzip.compress(PLAIN, mtime=0)[:-12], "table.csv.gz", "cannot be read"),
        (gzip.compress(PLAIN * 100, mtime=0)[:30] + b"\xff" * 40, "table.csv.gz", "cannot be read"),
        (b"image,split\n" + b"a" * (MAX_LINE + 1) + b",train\n", "table.csv", "line 2: it has more than 1048576 bytes"),
        (b"image" + b",c" * 10**6 + b"\n", "table.csv", "line 1: it has more than 1048576 bytes"),
        (b"image,split" + b",c" * 10**4 + b"\n", "table.csv", "it has 10002 columns"),
    ],
)
def test_what_is_no_table_gets_one_line(tmp_path: Path, content: bytes, name: str, message: str) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(DataError) as caught:
        read_table(path, ("image", "split"))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text
    assert len(text.splitlines()) == 1
    assert len(text) < len(str(path)) + 300


def test_the_line_of_a_bad_byte_is_known_behind_the_first_megabyte(tmp_path: Path) -> None:
    rows = b"".join(b"%07d.png,train\n" % row for row in range(200_000))
    path = write(tmp_path, b"image,split\n" + rows + b"\xff\n")
    assert path.stat().st_size > 3 * MAX_LINE
    with pytest.raises(DataError, match="line 200002: it is not UTF-8"):
        read_table(path, ("image",))


def test_a_huge_cell_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"image,split\n")
        for _ in range(256):
            file.write(b"a" * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="line 2: it has more than"):
        read_table(path, ("image",))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read: "):
        read_table(tmp_path / "table.csv", ("image",))


def test_lines_count_blank_ones_and_cells_that_span_several(tmp_path: Path) -> None:
    path = write(tmp_path, b'image,text\n\na,"one\ntwo"\n  \nb,x\nc,y\n')
    table = read_table(path, ("image",))
    assert table.cells["image"].tolist() == ["a", "b", "c"]
    assert table.format_lines([0]) == "line 3"
    assert table.format_lines([1, 2]) == "lines 6, 7"
    assert table.format_lines(np.array([2])) == "line 7"


LINES = b'image,text\n\na,x\nb,"one\ntwo"\n \t\nc,\xc3\xa9\nd,x\n"e\n",x\nf,"\r\n"\n\n\ng,x\nh,x\ni,x'
"""Rows that begin in lines 3, 4, 7, 8, 9, 11, 15, 16 and 17."""


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 5, 8, 13, 21, 34, 2**18])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_are_the_same_wherever_the_reading_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, n_bytes: int
) -> None:
    monkeypatch.setattr(csv_rows, "CHUNK", n_bytes)
    content = LINES.replace(b"\r\n", b"\n").replace(b"\n", end)
    table = read_table(write(tmp_path, content), ("image", "text"))
    assert table.cells["image"].tolist() == list("abcdefghi")
    assert [table.format_lines([row]) for row in range(9)] == [f"line {n}" for n in (3, 4, 7, 8, 9, 11, 15, 16, 17)]
    table.check_cells()
    for row, line in (("d,x", 8), ("h,x", 16)):
        content = LINES.replace(row.encode(), b"y").replace(b"\r\n", b"\n").replace(b"\n", end)
        with pytest.raises(DataError, match=rf"line {line}: it has 1 cell and the header 2: complete the row"):
            read_table(write(tmp_path, content), ("image",)).check_cells()


@pytest.mark.parametrize("n_bytes", [1, 7, 2**18])
def test_cells_in_quotes_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr(csv_rows, "CHUNK", n_bytes)
    path = write(tmp_path, b'image,text\na,"1\n\n2"\n"b,","x ""y"", \r\nz"\n"""c""",""\nd,3"4\n"e",5\n')
    table = read_table(path, ("image", "text"))
    assert table.cells["image"].tolist() == ["a", "b,", '"c"', "d", "e"]
    assert table.cells["text"].tolist() == ["1\n\n2", 'x "y", \r\nz', "", '3"4', "5"]
    assert table.format_lines(range(5)) == "lines 2, 5, 7, 8, 9"
    table.check_cells()


def test_a_line_of_two_quotation_marks_is_a_row(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b'image\n\na\n""\n" "\nb\n'), ("image",))
    assert table.cells["image"].tolist() == ["a", "", "", "b"]
    assert table.format_lines(range(4)) == "lines 3, 4, 5, 6"


def test_a_row_that_pandas_passes_over_is_missed(tmp_path: Path) -> None:
    """It takes the first comma behind a blank line that ends in a carriage return for the end of that line."""
    path = write(tmp_path, b"image,n\ra,1\r\r,\rc,3\r")
    with pytest.raises(
        DataError, match=r"of 3 rows pandas sees 2: end lines with a line feed, and take out blank ones$"
    ):
        read_table(path, ("image", "n"))


@pytest.mark.parametrize("cell", ["x" * 131073, f'"{"x" * 131073}"'])
def test_a_cell_that_no_label_table_has(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, f"image,text\na,b\nc,{cell}\n".encode())
    with pytest.raises(DataError, match=r"line 3: field larger than field limit \(131072\)$"):
        read_table(path, ("image",))


def test_a_table_is_opened_once_and_still_names_its_lines(tmp_path: Path, table_opens: list[Path]) -> None:
    paths = [
        write(tmp_path, b'image,n\n\na,"1\n"\nb,2,3\n'),
        write(tmp_path, b"image\tn\n\na\t1\n\nb\n", "t.tsv"),
        write(tmp_path, gzip.compress(b"image,n\n\n\na,1\nb,2,3\n"), "t.csv.gz"),
    ]
    for path in paths:
        with open_table.open_table(path) as opened:
            assert opened.header == ["image", "n"]
            table = opened.read(["image"])
        assert table.format_lines([1]) == "line 5"
        with pytest.raises(DataError, match=r"line 5: it has \d cells? and the header 2"):
            table.check_cells()
    assert table_opens == paths


def test_lines_that_are_not_named_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, b"image\n" + b"".join(b"%d\n" % row for row in range(3000)))
    assert read_table(path, ("image",)).format_lines(range(1, 3000)) == "lines 3, 4, 5, 6, 7 and 2994 more"


def test_images_that_stand_twice_are_named_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b"image\nb\na\n\nc\na\nc\na\n")
    table = read_table(path, ("image",))
    with pytest.raises(DataError, match=r"2 images stand in it twice \(a in lines 3, 6, 8\): keep one row"):
        check_unique(table.cells["image"], table)
    check_unique(pd.Series(["a", "b"]), table)


@pytest.mark.parametrize(("row", "line"), [("b", 3), ("b,1,2", 3), ("b,1,", None), ('"b,c",1', None)])
def test_cells_that_are_too_many_or_too_few(tmp_path: Path, row: str, line: int | None) -> None:
    table = read_table(write(tmp_path, f"image,Mass\na,1\n{row}\n".encode()), ("image",))
    if line is None:
        table.check_cells()
    else:
        with pytest.raises(DataError, match=rf"line {line}: it has \d cells? and the header 2"):
            table.check_cells()


def test_the_rule_for_uncertain_targets() -> None:
    values = np.array([[1, -1], [-1, 0]], dtype=np.float32)
    for rule, number in (("ignore", np.nan), ("zero", 0), ("one", 1)):
        settled = settle_uncertain(values, values == -1, LABELS[:2], rule)  # type: ignore[arg-type]
        np.testing.assert_array_equal(settled, [[1, number], [number, 0]])
    settled = settle_uncertain(values, values == -1, LABELS[:2], {"Cardiomegaly": "one"})
    np.testing.assert_array_equal(settled, [[1, 1], [np.nan, 0]])
    with pytest.raises(ConfigError, match=r"data\.uncertain: Mass is none of the labels"):
        settle_uncertain(values, values == -1, LABELS[:2], {"Mass": "one"})


def test_the_first_of_several_names_counts(tmp_path: Path) -> None:
    write(tmp_path, b"", "b.csv.gz")
    assert find_table(tmp_path, ("a.csv", "b.csv")).name == "b.csv.gz"
    write(tmp_path, b"", "a.csv")
    assert find_table(tmp_path, ("a.csv", "b.csv")).name == "a.csv"
    with pytest.raises(DataError, match=r"no label table in it \(c\.csv or d\.csv\)"):
        find_table(tmp_path, ("c.csv", "d.csv"))
    with pytest.raises(DataError, match="there is no such folder"):
        find_table(tmp_path / "absent", ("a.csv",))


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {"image": ["a.png", " b.png", None], "n": [1, 0, 1], "x": [1.0, np.nan, 0.5], "y": [True, False, None]}
    )
    frame.to_parquet(tmp_path / "table.parquet")
    path = tmp_path / "table.parquet"
    assert read_header(path)[:4] == ["image", "n", "x", "y"]
    table = read_table(path, ("image", "n", "x"), ("y", "absent"))
    assert table.cells.to_dict("list") == {
        "image": ["a.png", "b.png", ""],
        "n": ["1", "0", "1"],
        "x": ["1.0", "", "0.5"],
        "y": ["True", "False", ""],
    }
    assert table.format_lines([2]) == "row 3"
    with pytest.raises(DataError, match="the column z is missing"):
        read_table(path, ("z",))
    for content in (b"", b"PAR1", path.read_bytes()[:-20], b"x" * 100):
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read_table(write(tmp_path, content, "bad.parquet"), ("image",))
    damaged = bytearray(path.read_bytes())
    damaged[4:200] = bytes(196)
    try:  # whether it is noticed depends on where the damage is; a traceback is never the outcome
        read_table(write(tmp_path, bytes(damaged), "damaged.parquet"), ("image",))
    except CXRLitError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_a_parquet_table_is_opened_once(tmp_path: Path, table_opens: list[Path]) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    pd.DataFrame({"image": ["a", "b"], "n": [1, 2]}).to_parquet(path)
    table = read_table(path, ("n", "image"))
    assert table.cells.to_dict("list") == {"n": ["1", "2"], "image": ["a", "b"]}
    assert table_opens == [path]


def test_parquet_without_pyarrow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="Parquet needs pyarrow: pip install 'cxrlit"):
        read_table(write(tmp_path, b"PAR1", "table.parquet"), ("image",))


@pytest.mark.parametrize("n_bytes", [1, 7, 2**18])
@pytest.mark.parametrize(
    "left", [b",\n,\n", b" , \n\t,\n", b'"",""\n', b",,,,\n", b",\r\n\r\n,\r\n", b",", b'"  ",\n', b",\n\n \n,,\n"]
)
def test_rows_of_separators_are_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes, n_bytes: int
) -> None:
    monkeypatch.setattr(csv_rows, "CHUNK", n_bytes)
    table = read_table(write(tmp_path, PLAIN + left), ("image", "split"))
    table.check_cells()
    assert table.cells.to_dict("list") == {"image": ["a.png", "b.png"], "split": ["train", "test"]}
    table = read_table(write(tmp_path, PLAIN.replace(b"b.png", b",\n,\nb.png") + left), ("image", "split"))
    assert table.cells["image"].tolist() == ["a.png", "b.png"]
    assert table.format_lines([0, 1]) == "lines 2, 5"
    short = write(tmp_path, b"a,b,c,d\n1,,,\n,,\n,,,4\n,\n")
    table = read_table(short, ("a", "d"))
    assert table.cells.to_numpy().tolist() == [["1", ""], ["", "4"]]
    table.check_cells()


@pytest.mark.parametrize("n_bytes", [1, 5, 2**18])
@pytest.mark.parametrize(
    "front",
    [
        b"sep=,\n",
        b"sep=,\r\n",
        b"SEP=,\n",
        b'"sep=,"\r\n',
        MARK + b"sep=,\n",
        b"\xef\xbb\xbf" * 2,
        b"\xef\xbb\xbf\n\n",
    ],
)
def test_what_a_spreadsheet_writes_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, front: bytes, n_bytes: int
) -> None:
    monkeypatch.setattr(csv_rows, "CHUNK", n_bytes)
    path = write(tmp_path, front + PLAIN)
    assert read_header(path) == ["image", "split"]
    table = read_table(path, ("image", "split"))
    assert table.cells.to_dict("list") == {"image": ["a.png", "b.png"], "split": ["train", "test"]}
    assert table.format_lines([1]) == f"line {3 + front.count(10)}"


@pytest.mark.parametrize(
    ("name", "front", "message"),
    [
        ("t.csv", b"sep=;\n", "separated by semicolons, as its first line says, not by commas: save it with commas"),
        ("t.csv", b"sep=\t\r\n", "separated by tabs, as its first line says, not by commas: save it with commas"),
        ("t.tsv", b"sep=,\n", "separated by commas, as its first line says, not by tabs: save it with tabs"),
        ("t.csv", b"sep=|\n", r"separated by '\|', as its first line says, not by commas: save it with commas"),
    ],
)
def test_a_first_line_that_says_another_separator(tmp_path: Path, name: str, front: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"its columns are {message}$"):
        read_table(write(tmp_path, front + PLAIN, name), ("image",))
