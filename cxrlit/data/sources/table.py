"""Any CSV, TSV or Parquet table with one row per image; the config names its columns.

An image's name is its file name if those are unique; otherwise every image's name is its path below the root, with
``_`` for ``/``. ``data.root`` is the folder of the images, by default that of the table.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import ColumnsConfig, TableConfig, TableData
from cxrlit.core.errors import ConfigError, DataError, name_some
from cxrlit.core.labels import simplify_name
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all
from cxrlit.data.index import check_index
from cxrlit.data.sources import Source
from cxrlit.data.sources.findings_column import read_findings
from cxrlit.data.tables.label_cells import UNCERTAIN, read_marks
from cxrlit.data.tables.open_table import OpenTable, open_table
from cxrlit.data.tables.own_columns import NAMES, adopt_columns, find_likely, say_adopted, say_likely
from cxrlit.data.tables.patient_ids import read_patients, refuse_unseen
from cxrlit.data.tables.person_cells import (
    SEXES,
    read_likely_ages,
    read_names,
    read_parts,
    read_views,
    say_unknown,
)
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import check_unique, refuse_cells, settle_uncertain

T = TypeVar("T")

ENDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def read_any_table(config: TableConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the table and find the files.

    Args:
        config: Section of the config; ``root`` None means the folder of the table.
        files: The existing image files.
        labels: The labels in use.

    Raises:
        ConfigError: The config does not give the table, the patients or the labels, or gives one of them twice.
        DataError: The table lacks a column, a cell is invalid, or no image can be used. The message names the
            line.
    """
    if config.table is None:
        raise ConfigError("data=table needs data.table=PATH, your CSV or Parquet file")
    path = Path(config.table)
    if not path.name.lower().endswith(ENDS):
        raise ConfigError(f"data.table={path}: a table's name ends with one of {', '.join(ENDS)}")
    if not path.is_file():
        raise DataError(f"data.table={path}: there is no such file")

    with open_table(path) as opened:
        columns, notes = adopt_columns(config, opened)
        columns = _find_images(columns, opened)
        adopted = {
            role: getattr(columns, role)
            for role in ("image", *NAMES)
            if getattr(columns, role) != getattr(config.columns, role)
        }
        _check_config(config, columns, labels, opened)
        marks = {} if columns.findings is not None else find_columns(config, labels, opened)
        named = (columns.image, columns.patient, columns.study, columns.view, columns.age, columns.sex, columns.split)
        used = [name for name in (*named, columns.findings, *marks.values()) if name is not None]
        likely = find_likely(config, columns, opened, used)
        table = opened.read(used, [name for _, name in likely])
    table.check_cells()
    notes += say_likely(likely, table)
    cells = table.cells

    def read_role(role: str, read: Callable[[pd.Series], T]) -> T | None:
        """Read a column. A column that was adopted by its name but has other content is skipped, with a note."""
        column = getattr(columns, role)
        if column is None:
            return None
        try:
            return read(cells[column])
        except DataError as error:
            if role not in adopted:
                raise
            notes.append(f"{error}; the column is not used as data.columns.{role}")
            del adopted[role]
            return None

    index = pd.DataFrame({"image_path": read_paths(cells[columns.image], Path(config.root or path.parent), table)})
    index["image"] = name_images_by_path(index["image_path"])
    check_unique(index["image_path"], table)
    check_unique(index["image"], table)  # a/b.png and a_b.png
    index["patient"] = index["image"] if columns.patient is None else read_patients(cells[columns.patient], table)
    index["study"] = None if columns.study is None else cells[columns.study].where(cells[columns.study] != "")
    index["view"] = read_role("view", lambda view: read_views(view, path))
    index["age"] = read_role("age", lambda age: read_likely_ages(age, table, notes if "age" in adopted else None))
    index["sex"] = read_role("sex", lambda sex: read_names(sex, SEXES, path))
    views_key = "data.views" if isinstance(config, TableData) else f"data.{config.source}.views"
    remedy = "" if config.views is None else f"; {views_key}=null includes such images"
    for role, advice in (("view", remedy), ("sex", "")):
        column = getattr(columns, role)
        if column is not None and (role in adopted or getattr(config.columns, role) is not None):
            notes += say_unknown(cells[column], index[role], f"{path}: {clip(column)}", f"{role} unknown{advice}")
    notes[:0] = say_adopted(adopted, path)
    if columns.findings is None:
        targets, known = read_columns(table, marks, config, labels), opened.header
    else:
        targets, known, said = read_findings(cells[columns.findings], config.separator, labels, table)
        notes += said
    index = pd.concat([index, pd.DataFrame(targets, columns=list(labels), index=index.index)], axis=1)
    parts = None
    if columns.split is not None:
        remedy = "rename the column" if not isinstance(config, TableData) else "say data.split=grouped to draw a split"
        if "split" not in adopted:
            remedy = "drop data.columns.split"
        own = read_parts(cells[columns.split], table, f"correct it, or {remedy}")
        parts = dict(zip(index["image"].tolist(), own, strict=True))

    index, dropped = attach_files(index, ([file] for file in index["image_path"].tolist()), files)
    if index.empty:
        raise refuse_all(str(path), len(cells), dropped)
    index = check_index(index, labels, config.name, str(path))
    official = None
    if parts is not None:
        official = np.array([parts[image] for image in index["image"].tolist()], dtype=object)
    return Source(
        name=config.name, index=index, dropped=dropped, official=official, findings=tuple(known), notes=tuple(notes)
    )


def find_columns(config: TableConfig, labels: Sequence[str], table: OpenTable) -> dict[str, str]:
    """The column of each label: the config's, else the one of the same name; labels without a column are omitted.

    Raises:
        DataError: No label has a column, or a label has several.
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
    """(N, L) targets from one column of marks per label; unknown for a label without a column.

    Raises:
        DataError: A cell is invalid; the message names the line.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    values = np.full((len(table.cells), len(labels)), np.nan, dtype=np.float32)
    numbers = read_marks(
        table.cells, list(marks.values()), table, config.uncertain_value, uncertain_key="data.uncertain_value"
    )
    values[:, [labels.index(label) for label in marks]] = numbers
    return settle_uncertain(values, values == UNCERTAIN, labels, config.uncertain)


def read_paths(cells: pd.Series, root: Path, table: TextTable) -> pd.Series:
    """Paths below the root, with ``/`` as separator.

    Raises:
        DataError: A path is blank, leads out of the root, or uses backslashes; the message names the line.
    """
    prefix = f"{str(root).rstrip('/')}/"
    paths = cells.str.removeprefix(prefix) if cells.str.startswith(prefix).any() else cells
    # Leading "./" and double "//" are redundant.
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
    """Advice about paths that are not below the root."""
    if not cells.str.startswith("/").all():
        return "paths are relative to it, without .."
    home = os.path.commonpath([os.path.dirname(path) for path in cells])
    return f"the paths are absolute: say data.root={home}, which all of them lie in"


def name_images_by_path(paths: pd.Series) -> pd.Series:
    """File names if all differ, else paths with ``_`` for ``/``.

    >>> name_images_by_path(pd.Series(["a/1.png", "b/2.png"])).tolist()
    ['1.png', '2.png']
    >>> name_images_by_path(pd.Series(["a/1.png", "b/1.png"])).tolist()
    ['a_1.png', 'b_1.png']
    """
    names = paths.str.rpartition("/")[2]
    return names if names.is_unique else paths.str.replace("/", "_", regex=False)


def _find_images(columns: ColumnsConfig, table: OpenTable) -> ColumnsConfig:
    """The columns, with the image column matched in any case.

    Raises:
        DataError: There is no image column.
    """
    if columns.image in table.header:
        return columns
    like = [name for name in table.header if simplify_name(name) == simplify_name(columns.image)]
    if len(like) != 1:
        there = name_some([clip(name) for name in table.header if name], limit=12)
        raise DataError(
            f"{table.path}: the column {columns.image} is missing; there are {there}: name that of the images with "
            "data.columns.image"
        )
    return columns.model_copy(update={"image": like[0]})


def _check_config(config: TableConfig, columns: ColumnsConfig, labels: Sequence[str], table: OpenTable) -> None:
    """Check that the config or a column gives the patients and the labels, each once."""
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
