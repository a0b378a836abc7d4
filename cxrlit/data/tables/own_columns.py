"""Columns of a user's table that are called as what they plainly are: patient, split, view, age and sex."""

from collections.abc import Sequence

from cxrlit.config import ColumnsConfig, TableConfig, TableData
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.labels import simplify_name
from cxrlit.data.tables.open_table import OpenTable
from cxrlit.data.tables.text_table import clip

NAMES: dict[str, frozenset[str]] = {
    "patient": frozenset({"patient", "patientid", "patientnumber", "subject", "subjectid"}),
    "split": frozenset({"split", "datasplit", "datasetsplit", "subset", "partition"}),
    "view": frozenset({"view", "viewposition"}),
    "age": frozenset({"age", "patientage", "ageyears"}),
    "sex": frozenset({"sex", "gender", "patientsex", "patientgender"}),
}
"""By role, the names in lower case without spaces and underscores."""


def find_own_columns(header: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each role, by name; a role without one is left out.

    >>> find_own_columns(["image", "Patient_ID", "Split", "Mass"])
    {'patient': ['Patient_ID'], 'split': ['Split']}
    """
    plain = {name: simplify_name(name).replace(" ", "") for name in header}
    found = {role: [name for name in plain if plain[name] in names] for role, names in NAMES.items()}
    return {role: columns for role, columns in found.items() if columns}


def adopt_columns(config: TableConfig, table: OpenTable) -> tuple[ColumnsConfig, list[str]]:
    """The columns of the config, and those that it does not name and that are called as what they plainly are.

    Returns:
        The columns; and what is used or not used of those with such names, a line each.

    Raises:
        DataError: Two columns may say who the patients are, or how they are split.
    """
    columns, notes = config.columns, []
    labels = columns.labels or {}
    claimed = {*columns.model_dump(exclude={"labels"}).values(), *labels.values()}
    # What the config says in another way, a column cannot say, too.
    otherwise = {"patient": "data.patient=image" if config.patient is not None else ""}
    if isinstance(config, TableData) and (config.split not in ("auto", "official") or config.fold is not None):
        otherwise["split"] = f"data.split={'kfold' if config.fold is not None else config.split}"
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
    if adopted:
        used = ", ".join(f"{clip(name)} as {role}" for role, name in adopted.items())
        notes.insert(0, f"{table.path}: columns that no key names are used for what they are called: {used}")
    return columns.model_copy(update=adopted), notes
