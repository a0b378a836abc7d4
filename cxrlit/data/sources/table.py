"""Any table: a CSV, TSV or Parquet file with a row an image, whose columns the config names.

An image is called by its file name where no two images share one; else every image is called by its path below the
root, with ``_`` for ``/``. ``data.root`` is the folder of the images, by default that of the table.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import TableConfig
from cxrlit.core.errors import ConfigError, DataError, name_some
from cxrlit.core.labels import match_findings, simplify_name
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all
from cxrlit.data.index import MAX_AGE, check_index
from cxrlit.data.sources import Source
from cxrlit.data.tables.open_table import OpenTable, open_table
from cxrlit.data.tables.patient_ids import read_patients, refuse_unseen
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import check_unique, read_marks, refuse_cells, settle_uncertain

ENDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")

VIEWS = {
    "pa": "PA", "posteroanterior": "PA", "posterior anterior": "PA", "ap": "AP", "anteroposterior": "AP",
    "anterior posterior": "AP", "ap horizontal": "AP", "ap supine": "AP", "lateral": "LATERAL", "lat": "LATERAL",
    "l": "LATERAL", "ll": "LATERAL", "rl": "LATERAL", "left lateral": "LATERAL", "right lateral": "LATERAL",
}  # fmt: skip
SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_any_table(config: TableConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the table and find the files.

    Args:
        config: Where ``root`` is None, it is the folder of the table.
        files: What image files there are.
        labels: The labels in use.

    Raises:
        ConfigError: The config does not say which table, which patients, or where labels are; or it says it twice.
        DataError: The table lacks a column, a cell cannot be understood, or no image can be used. The message names
            the line.
    """
    if config.table is None:
        raise ConfigError("data=table needs data.table=PATH, your CSV or Parquet file")
    path = Path(config.table)
    if not path.name.lower().endswith(ENDS):
        raise ConfigError(f"data.table={path}: a table's name ends with one of {', '.join(ENDS)}")
    if not path.is_file():
        raise DataError(f"data.table={path}: there is no such file")

    columns = config.columns
    with open_table(path) as opened:
        _check_config(config, labels, opened)
        marks = {} if columns.findings is not None else find_columns(config, labels, opened)
        named = (columns.image, columns.patient, columns.study, columns.view, columns.age, columns.sex, columns.split)
        table = opened.read([name for name in (*named, columns.findings, *marks.values()) if name is not None])
    table.check_cells()
    cells = table.cells

    index = pd.DataFrame({"image_path": read_paths(cells[columns.image], Path(config.root or path.parent), table)})
    index["image"] = name_images_by_path(index["image_path"])
    check_unique(index["image_path"], table)
    check_unique(index["image"], table)  # a/b.png and a_b.png
    index["patient"] = index["image"] if columns.patient is None else read_patients(cells[columns.patient], table)
    index["study"] = None if columns.study is None else cells[columns.study].where(cells[columns.study] != "")
    index["view"] = None if columns.view is None else read_names(cells[columns.view], VIEWS, path)
    index["age"] = np.nan if columns.age is None else read_ages(cells[columns.age], table)
    index["sex"] = None if columns.sex is None else read_names(cells[columns.sex], SEXES, path)
    if columns.findings is None:
        targets = read_columns(table, marks, config, labels)
    else:
        targets = read_findings(cells[columns.findings], config.separator, labels, path)
    index = pd.concat([index, pd.DataFrame(targets, columns=list(labels), index=index.index)], axis=1)
    if columns.split is not None:
        parts = dict(zip(index["image"].tolist(), read_parts(cells[columns.split], table), strict=True))

    index, dropped = attach_files(index, ([file] for file in index["image_path"].tolist()), files)
    if index.empty:
        raise refuse_all(str(path), len(cells), dropped)
    index = check_index(index, labels, config.name, str(path))
    official = None
    if columns.split is not None:
        official = np.array([parts[image] for image in index["image"].tolist()], dtype=object)
    return Source(name=config.name, index=index, dropped=dropped, official=official)


def find_columns(config: TableConfig, labels: Sequence[str], table: OpenTable) -> dict[str, str]:
    """The column of each label: as the config says, else the one of the same name; labels without one are left out.

    Raises:
        DataError: No label has a column, or one has several.
    """
    if config.columns.labels is not None:
        return {label: column for label, column in config.columns.labels.items() if label in labels}
    path, header = table.path, table.header
    found = {label: [name for name in header if simplify_name(name) == simplify_name(label)] for label in labels}
    for label, names in found.items():
        if len(names) > 1:
            raise DataError(f"{path}: the columns {name_some(names)} may both be {label}: say data.columns.labels")
    if not any(found.values()):
        raise DataError(
            f"{path}: none of the labels {', '.join(labels)} has a column: name them with data.columns.labels, or one "
            f"column that lists what is present with data.columns.findings; the columns are "
            f"{name_some([clip(name) for name in header], limit=12)}"
        )
    return {label: names[0] for label, names in found.items() if names}


def read_columns(
    table: TextTable, marks: Mapping[str, str], config: TableConfig, labels: Sequence[str]
) -> NDArray[np.float32]:
    """(N, L) targets from a column of 1, 0 and blank for each label; unknown for a label without one.

    Raises:
        DataError: A cell is neither, nor ``uncertain_value``; the message names the line.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    values = np.full((len(table.cells), len(labels)), np.nan, dtype=np.float32)
    uncertain = np.zeros(values.shape, dtype=bool)
    meaning = {**dict.fromkeys(YES, 1.0), **dict.fromkeys(NO, 0.0), "": np.nan}
    for label, column in marks.items():
        cells = table.cells[column].str.lower()
        texts = {text for text in cells.unique() if text not in meaning and _is_number(text, config.uncertain_value)}
        if config.uncertain_value is None:
            odd = cells.isin([text for text in cells.unique() if text not in meaning and NUMBER.fullmatch(text)])
            fault = "is neither 1 nor 0: if that number means uncertain, say data.uncertain_value={}"
            refuse_cells(odd, table.cells[column], fault.format(cells[odd].iloc[0] if odd.any() else ""), table)
        numbers = read_marks(cells.to_frame(), [column], meaning | dict.fromkeys(texts, np.nan), table)
        values[:, labels.index(label)] = numbers[:, 0]
        uncertain[:, labels.index(label)] = cells.isin(texts)
    return settle_uncertain(values, uncertain, labels, config.uncertain)


def read_findings(cells: pd.Series, separator: str, labels: Sequence[str], path: Path) -> NDArray[np.float32]:
    """(N, L) targets from a column that names all that is present; a blank cell says that nothing is.

    Names that are no labels say nothing. A label that no row names is unknown, not absent: the table may not have it.

    Raises:
        DataError: No label is ever named; the message lists what is.
    """
    codes, texts = pd.factorize(cells)
    sets = [frozenset(simplify_name(name) for name in text.split(separator)) for text in texts]
    known = sorted(set().union(*sets) - {""})
    meanings = match_findings(labels, known, {})
    if not any(meanings.values()):
        raise DataError(
            f"{path}: {cells.name} names none of the labels {', '.join(labels)}; it names "
            f"{name_some([clip(name) for name in known], limit=12) or 'nothing'} (data.separator={separator!r})"
        )
    values = [[simplify_name(label) in names if meanings[label] else np.nan for label in labels] for names in sets]
    return np.array(values, dtype=np.float32)[codes]


def read_paths(cells: pd.Series, root: Path, table: TextTable) -> pd.Series:
    """Paths below the root, with ``/``.

    Raises:
        DataError: One is blank, leads out of the root, or is written with backslashes; the message names the line.
    """
    prefix = f"{str(root).rstrip('/')}/"
    paths = cells.str.removeprefix(prefix) if cells.str.startswith(prefix).any() else cells
    # "./" at the beginning and "//" say nothing.
    paths = paths.str.replace(r"/(\.?/)+", "/", regex=True).str.replace(r"^(\./)+", "", regex=True)
    elsewhere = paths.str.startswith("/") | paths.str.fullmatch(r"(.*/)?\.\.(/.*)?")
    faults = {
        "is blank": paths == "",
        f"is not in data.root: {_advise_root(cells)}": elsewhere,
        "is no path of a file: write folders with /": paths.str.contains("\\", regex=False)
        | paths.str.endswith(("/", "/.")) | (paths == "."),
    }  # fmt: skip
    for fault, odd in faults.items():
        refuse_cells(odd, cells, fault, table)
    refuse_unseen(cells, table)
    return paths


def _advise_root(cells: pd.Series) -> str:
    """What to do about paths that are not below the root."""
    if not cells.str.startswith("/").all():
        return "paths are relative to it, without .."
    home = os.path.commonpath([os.path.dirname(path) for path in cells])
    return f"the paths are absolute: say data.root={home}, which all of them lie in"


def name_images_by_path(paths: pd.Series) -> pd.Series:
    """File names where all differ, else paths with ``_`` for ``/``.

    >>> name_images_by_path(pd.Series(["a/1.png", "b/2.png"])).tolist()
    ['1.png', '2.png']
    >>> name_images_by_path(pd.Series(["a/1.png", "b/1.png"])).tolist()
    ['a_1.png', 'b_1.png']
    """
    names = paths.str.rpartition("/")[2]
    return names if names.is_unique else paths.str.replace("/", "_", regex=False)


def read_names(cells: pd.Series, known: Mapping[str, str], path: Path) -> pd.Series:
    """Names in the index's own words; missing where they are others.

    Raises:
        DataError: None of them is known.
    """
    names = cells.map({text: known.get(simplify_name(text)) for text in cells.unique()})
    if names.isna().all() and (cells != "").any():
        there = name_some([clip(text) for text in cells[cells != ""].unique()])
        raise DataError(f"{path}: {cells.name} is never one of {', '.join(known)}; it is {there}")
    return names


def read_ages(cells: pd.Series, table: TextTable) -> pd.Series:
    """Years, from ``58``, ``58.5`` or ``058Y``; missing where blank.

    Raises:
        DataError: One is no number of years from 0 to 120; the message names the line.
    """
    years = pd.to_numeric(cells.str.replace(r"(?<=\d)[Yy]$", "", regex=True), errors="coerce")
    fault = f"is no age from 0 to {MAX_AGE} years: correct it, or leave the cell blank"
    refuse_cells((cells != "") & ~years.between(0, MAX_AGE), cells, fault, table)
    return years


def read_parts(cells: pd.Series, table: TextTable) -> list[str]:
    """The part of each row: train, val or test; ``train_val`` for train where no row is val.

    Raises:
        DataError: One is none of them; the message names the line.
    """
    parts = cells.map({text: PARTS.get(text.lower()) for text in cells.unique()})
    refuse_cells(parts.isna(), cells, "is no part of a split: train, val or test", table)
    return parts.tolist() if (parts == "val").any() else parts.replace("train", "train_val").tolist()


def _check_config(config: TableConfig, labels: Sequence[str], table: OpenTable) -> None:
    """The config says who the patients are and where the labels are, each once."""
    columns = config.columns
    if columns.patient is None and config.patient is None:
        raise DataError(
            f"{table.path}: no column says which images are of the same patient, so no split can keep patients apart: "
            f"name it with data.columns.patient (the columns are {name_some([clip(name) for name in table.header], 12)}"
            "), or say data.patient=image to take every image for a patient of its own"
        )
    if columns.patient is not None and config.patient is not None:
        raise ConfigError("data.patient=image and data.columns.patient both say who the patients are: drop one of them")
    if columns.findings is not None and columns.labels is not None:
        raise ConfigError(
            "data.columns.findings and data.columns.labels both say where the labels are: drop one of them"
        )
    if columns.findings is not None and config.uncertain_value is not None:
        raise ConfigError("data.uncertain_value goes with a column for each label, not with data.columns.findings")
    if config.uncertain_value in {0, 1}:
        raise ConfigError(f"data.uncertain_value={config.uncertain_value:g}: 0 is absent and 1 is present")
    if columns.labels is not None:
        unknown = [label for label in columns.labels if label not in labels]
        if unknown or not columns.labels:
            what = f"{unknown[0]} is none of the labels" if unknown else "no label has a column"
            raise ConfigError(f"data.columns.labels: {what}; they are {', '.join(labels)}")


def _is_number(text: str, number: float | None) -> bool:
    """Whether a text is this number, however it is written."""
    try:
        return number is not None and float(text) == number
    except ValueError:
        return False
