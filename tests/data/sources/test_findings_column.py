"""A column that names what is present: what is not understood is told, and is no absent label."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import EveryFile, make_config

from cxrlit.config import TableConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.data.sources import Source
from cxrlit.data.sources.findings_column import read_findings
from cxrlit.data.sources.table import read_any_table
from cxrlit.data.tables.text_table import TextTable

WANTED = ("Effusion", "Mass")
U = np.nan


def read(folder: Path, *cells: str, labels: tuple[str, ...] = WANTED, separator: str = "|") -> Source:
    """Rows with these cells between one of Effusion, one of Mass and one of No Finding."""
    rows = ["Effusion", "Mass", *cells, "No Finding"]
    frame = pd.DataFrame({"image": [f"{row:02}.png" for row in range(len(rows))], "pid": range(len(rows))})
    frame.assign(found=rows).to_csv(folder / "t.csv", index=False)
    columns = {"patient": "pid", "findings": "found"}
    config = make_config(TableConfig, folder, table=str(folder / "t.csv"), separator=separator, columns=columns)
    return read_any_table(config, EveryFile(), labels)


def read_targets(folder: Path, *cells: str, **options: object) -> list[list[float]]:
    index = read(folder, *cells, **options).index  # type: ignore[arg-type]
    return index.loc[2 : 1 + len(cells), list(options.get("labels", WANTED))].to_numpy().tolist()  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("cell", "separator"),
    [
        ("Effusion, Mass", ","), ("Effusion;Mass", ";"), ("Effusion/Mass", "/"), ("Effusion + Mass", "+"),
        ("Effusion&Mass", "&"), ("['Effusion', 'Mass']", ","), ('["Effusion"; "Mass"]', ";"),
        ("Mass/Viral/COVID-19", "/"), ("effusion, pleural plaque", ","), ("Effusion - Mass", "-"),
        ("Effusion:Mass", ":"), ("Effusion and Mass", " and "), ("Effusion_Mass", "_"), ("Mass.Effusion", "."),
        ("Effusion\uff0cMass", "\uff0c"), ("Effusion^Mass", "^"), ("Effusion~Mass", "~"), ("Effusion#Mass", "#"),
        ("Effusion>Mass", ">"),
    ],
)  # fmt: skip
def test_another_separator_stops_with_a_remedy_that_works(tmp_path: Path, cell: str, separator: str) -> None:
    quoted = f"'{separator}'"
    with pytest.raises(DataError, match=r"t\.csv, line 4: found .* is no label as a whole") as caught:
        read(tmp_path, cell)
    assert f'say "data.separator={quoted}"; if it is one finding, add it to labels' in str(caught.value)
    [[effusion, mass]] = read_targets(tmp_path, cell, separator=separator)
    assert [effusion, mass] == [float("effusion" in cell.lower()), float("Mass" in cell)]


@pytest.mark.parametrize("cells", [("Effusion\nMass",), ("Effusion Mass",), ("Effusion\tMass",), ("Mass\\Effusion",),
                                   ("Mass|Effusion", "Mass;Effusion"), ("Mass,Effusion", "Mass;Effusion")])  # fmt: skip
def test_separators_that_no_key_can_say_or_that_are_mixed(tmp_path: Path, cells: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"write \| between the names of all cells"):
        read(tmp_path, *cells)
    assert read_targets(tmp_path, "Mass | Effusion", "Mass||Effusion", "|Mass|Effusion|") == [[1, 1]] * 3


def test_a_label_with_the_sign_is_one_label(tmp_path: Path) -> None:
    labels = ("Effusion", "Mass", "Nodule/Mass")
    with pytest.raises(DataError, match="if it is one finding, add it to labels"):
        read(tmp_path, "Nodule/Mass")
    assert read_targets(tmp_path, "Nodule/Mass", "nodule_mass|Mass", labels=labels) == [[0, 0, 1], [0, 1, 1]]
    with pytest.raises(ConfigError, match=r"data\.separator='/' stands in the label Nodule/Mass"):
        read(tmp_path, "Nodule/Mass", labels=labels, separator="/")


@pytest.mark.parametrize(
    "cell", ["todo", "Unknown", "NA", "N/A", "nan", "NULL", "None", "-", "?", "missing", "TBD", "#N/A", "not available"]
)
def test_placeholders_are_unknown_and_counted(tmp_path: Path, cell: str) -> None:
    np.testing.assert_array_equal(read_targets(tmp_path, cell, f"Mass|{cell}"), [[U, U], [U, 1]])
    [note] = read(tmp_path, cell, f"Mass|{cell}").notes
    assert note.endswith(f"found has cells that name nothing known, whose other labels are unknown: {cell} (2)")


@pytest.mark.parametrize(
    "name",
    [
        "Pleural Effusion",
        "Effusion (left)",
        "no effusion",
        "Effusion?",
        "possible effusion",
        "effusion=0",
        "~Effusion",
        "¬Effusion",
        "-Effusion",
        "\u2212Effusion",
        "Effusion#",
        ">Effusion",
        "^Effusion",
    ],
)
def test_names_that_contain_a_label_and_say_more_leave_it_unknown(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_targets(tmp_path, name, f"{name}|Mass"), [[U, 0], [U, 1]])
    [note] = read(tmp_path, name).notes
    assert f"say more, for which that label is unknown: {name} (1)" in note


def test_the_remedy_for_a_name_that_says_more_works(tmp_path: Path) -> None:
    remedy = '; if it is a finding of its own, name it as a label: "labels=[Pleural Effusion]"'
    [note] = read(tmp_path, "Pleural Effusion").notes
    assert note.endswith(remedy)
    with pytest.raises(DataError, match="names none of the labels Plural") as caught:
        read(tmp_path, "Pleural Effusion, left", labels=("Plural",), separator="|")
    assert "labels=" not in str(caught.value)
    assert read_targets(tmp_path, "Pleural Effusion", labels=("Pleural Effusion",)) == [[1]]


def test_a_label_beside_no_finding_counts_and_is_counted(tmp_path: Path) -> None:
    assert read_targets(tmp_path, "Mass|No Finding") == [[0, 1]]
    [note] = read(tmp_path, "Mass|No Finding").notes
    assert note.endswith("found: 1 cell names a label and No Finding: the label counts")


def test_other_names_are_listed_with_counts(tmp_path: Path) -> None:
    source = read(tmp_path, "Hernia", "Hernia|Efusion", "Mass|hernia", "0;3")
    assert [note.partition(": found ")[2] for note in source.notes] == [
        "has names that are none of the labels: Hernia (2), Efusion (1), hernia (1), 0;3 (1)"
    ]
    assert source.index.loc[2:5, list(WANTED)].to_numpy().tolist() == [[0, 0], [0, 0], [0, 1], [0, 0]]


def test_a_blank_cell_says_nothing_where_others_say_no_finding(tmp_path: Path) -> None:
    source = read(tmp_path, "", "[]")
    assert source.index.loc[2:3, list(WANTED)].isna().all(axis=None)
    assert source.notes[0].endswith("found: 2 blank cells are unknown, as other cells say No Finding")
    path = tmp_path / "t.csv"
    path.write_text(path.read_text().replace("No Finding", "Effusion"))
    config = make_config(TableConfig, tmp_path, table=str(path), columns={"patient": "pid", "findings": "found"})
    source = read_any_table(config, EveryFile(), WANTED)
    assert (source.index.loc[2:3, list(WANTED)] == 0).all(axis=None)
    assert source.notes[0].endswith("found: 2 blank cells are taken for no finding")


WORDS = [
    "Mass",
    "mass",
    "Effusion",
    "No Finding",
    "Hernia",
    "NA",
    "todo",
    "no",
    "left",
    "?",
    "'",
    "[",
    "]",
    "",
    " ",
    "1",
]
SIGNS = ["|", ",", ";", "/", " ", "+", "-", "_", "\n", "="]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*WORDS, *SIGNS]) | st.text(max_size=3), max_size=7).map("".join), max_size=3))
def test_no_other_text_becomes_a_target(cells: list[str]) -> None:
    """Present is what a part says as a whole; absent is what no part says, in a cell that is understood."""
    column = pd.Series(["Effusion", "Mass", *map(str.strip, cells), "No Finding"], name="found")
    table = TextTable(Path("t.csv"), column.to_frame(), range(2, len(column) + 2))
    try:
        targets, _, notes = read_findings(column, "|", WANTED, table)
    except DataError:
        return
    assert all(note.isprintable() for note in notes)
    for cell, row in zip(column, targets, strict=True):
        parts = [part.strip(" '\"[](){}_-.,;:/+\n").lower() for part in cell.split("|")]
        for label, target in zip(WANTED, row, strict=True):
            if target == 1:
                assert any(re.sub(r"[\W_]", "", part) == label.lower() for part in parts)
                assert "?" not in cell or "|" in cell
            elif target == 0:
                assert cell
                assert not {label.lower(), "na", "todo", "?"} & set(parts)
