"""Recognize columns of a user's table by their names: patient, split, view, age and sex."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cxrlit.config import ColumnsConfig, TableConfig, TableData, quote
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.labels import simplify_name
from cxrlit.data.tables.open_table import OpenTable
from cxrlit.data.tables.person_cells import WORDS
from cxrlit.data.tables.text_table import TextTable, clip

NAMES: dict[str, frozenset[str]] = {
    "patient": frozenset({"patient", "patientid", "patientnumber", "subject", "subjectid"}),
    "split": frozenset({"split", "datasplit", "datasetsplit", "subset", "partition"}),
    "view": frozenset({"view", "viewposition"}),
    "age": frozenset({"age", "patientage", "ageyears"}),
    "sex": frozenset({"sex", "gender", "patientsex", "patientgender"}),
}
"""Column names by role, in lower case without spaces and underscores."""

FLAGS = frozenset({"istest", "istrain", "istraining", "isval", "isvalid", "isvalidation", "test", "train", "val"})
FLAG_CELLS = frozenset({"0", "1", "true", "false", "yes", "no", "0 0", "1 0"})


def find_own_columns(header: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each role, by name; a role without a column is omitted.

    >>> find_own_columns(["image", "Patient_ID", "Split", "Mass"])
    {'patient': ['Patient_ID'], 'split': ['Split']}
    """
    plain = {name: simplify_name(name).replace(" ", "") for name in header}
    found = {role: [name for name in plain if plain[name] in names] for role, names in NAMES.items()}
    return {role: columns for role, columns in found.items() if columns}


def adopt_columns(config: TableConfig, table: OpenTable) -> tuple[ColumnsConfig, list[str]]:
    """The config's columns, completed by columns with recognized names.

    Returns:
        The columns; and notes on columns with such names that are not used, one line each.

    Raises:
        DataError: Two columns may give the patients, or the split.
    """
    columns, notes = config.columns, []
    labels = columns.labels or {}
    claimed = {*columns.model_dump(exclude={"labels"}).values(), *labels.values()}
    # A role that the config gives in another way takes no column.
    otherwise = {"patient": "data.patient=image" if config.patient is not None else ""}
    otherwise["split"] = _name_split(config)
    adopted: dict[str, str] = {}
    for role, names in find_own_columns(table.header).items():
        free = [name for name in names if name not in claimed]
        listed = name_some([clip(name) for name in free])
        said = getattr(columns, role)
        why = f"data.columns.{role}={said}" if said is not None else otherwise.get(role, "")
        if not free:
            continue
        if why:
            notes.append(f"{table.path}: the column {listed} is not used: {why}")
        elif len(free) == 1:
            adopted[role] = free[0]
        elif role in ("patient", "split"):
            raise DataError(
                f"{table.path}: the columns {listed} may each be the {role}: name the one "
                f"that is with data.columns.{role}"
            )
        else:
            notes.append(f"{table.path}: of the columns {listed} none is used: data.columns.{role} names one")
    return columns.model_copy(update=adopted), notes


def say_adopted(adopted: Mapping[str, str], path: Path) -> list[str]:
    """The line about adopted columns, by role; empty if there are none."""
    if not adopted:
        return []
    used = ", ".join(f"{clip(name)} as {role}" for role, name in adopted.items())
    return [f"{path}: columns that no key names are used for what they are called: {used}"]


def find_likely(
    config: TableConfig, columns: ColumnsConfig, table: OpenTable, used: Collection[str]
) -> list[tuple[str, str]]:
    """Role and name of unused columns whose first cells are all words of a missing role, or flags of a part.

    Args:
        config: Section of the config; if it gives the split in another way, no column can.
        columns: The config's columns, with adopted ones.
        table: The table.
        used: Names of all columns in use.
    """
    said = {*used, *(name for names in find_own_columns(table.header).values() for name in names)}
    free = {role: known for role, known in WORDS.items() if getattr(columns, role) is None}
    if _name_split(config):
        free.pop("split", None)
    likely = []
    for place, name in enumerate(table.header):
        if not name or name in said or table.header.count(name) > 1:
            continue
        cells = {simplify_name(row[place]) for row in table.first if place < len(row)} - {""}
        is_flag = simplify_name(name).replace(" ", "") in FLAGS and cells <= FLAG_CELLS
        roles = [role for role, known in free.items() if cells <= set(known) or (role == "split" and is_flag)]
        likely += [(role, name) for role in roles[:1] if cells]
    return likely


def say_likely(likely: Sequence[tuple[str, str]], table: TextTable) -> list[str]:
    """A line for each column of ``find_likely`` whose other cells also match the role."""
    notes = []
    for role, name in likely:
        cells = {simplify_name(text) for text in table.cells[name].unique()} - {""}
        what = f"{table.path}: the column {clip(name)} looks like the {role} of each image and is not used"
        if cells <= set(WORDS[role]):
            said = name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else quote(name)
            notes.append(f"{what}: to use it, say data.columns.{role}={said}")
        elif cells <= FLAG_CELLS:
            notes.append(f"{what}: to use it, write train, val or test and name it with data.columns.{role}")
    return notes


def _name_split(config: TableConfig) -> str:
    """The key that gives the split in another way than a column; empty if none does."""
    if not isinstance(config, TableData) or (config.split in ("auto", "official") and config.fold is None):
        return ""
    return f"data.split={'kfold' if config.fold is not None else config.split}"
