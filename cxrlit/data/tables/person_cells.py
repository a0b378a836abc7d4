"""Convert cells about patient and image to the index's terms: views, ages, sexes and parts of a split."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxrlit.core.errors import DataError, format_count, name_some
from cxrlit.core.labels import simplify_name
from cxrlit.data.index import MAX_AGE
from cxrlit.data.tables.placeholders import is_placeholder
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import refuse_cells

VIEWS = {
    "pa": "PA", "posteroanterior": "PA", "posterior anterior": "PA", "ap": "AP", "anteroposterior": "AP",
    "anterior posterior": "AP", "ap horizontal": "AP", "ap supine": "AP", "lateral": "LATERAL", "lat": "LATERAL",
    "l": "LATERAL", "ll": "LATERAL", "rl": "LATERAL", "left lateral": "LATERAL", "right lateral": "LATERAL",
}  # fmt: skip
QUALIFIERS = frozenset({
    "view", "projection", "position", "chest", "cxr", "x", "ray", "portable", "mobile", "bedside", "upright", "erect",
    "standing", "sitting", "semi", "semierect", "supine", "recumbent",
})  # fmt: skip
"""Words that may accompany a view without changing it."""
SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
WORDS = {"split": PARTS, "view": {word: view for word, view in VIEWS.items() if word != "l"}}
"""Words by which a column without a key is recognized as a role's."""


def read_names(cells: pd.Series, known: Mapping[str, str], path: Path) -> pd.Series:
    """Convert names to the index's terms, ignoring ``QUALIFIERS`` beside them; missing for other names.

    Raises:
        DataError: No name is known.
    """
    words = {text: simplify_name(text) for text in cells.unique()}
    plain = {text: " ".join(part for part in word.split() if part not in QUALIFIERS) for text, word in words.items()}
    names = cells.map({text: known.get(word, known.get(plain[text])) for text, word in words.items()})
    if names.isna().all() and (cells != "").any():
        there = name_some([clip(text) for text in cells[cells != ""].unique()])
        raise DataError(f"{path}: {cells.name} is never one of {', '.join(known)}; it is {there}")
    return names


def read_views(cells: pd.Series, path: Path) -> pd.Series:
    """Convert views to the index's terms; missing for other names.

    Raises:
        DataError: No view is known, or they are sides of the body.
    """
    there = {simplify_name(text) for text in cells.unique()} - {""}
    if there <= {"l", "r", "left", "right"} and there - {"l"}:
        raise DataError(f"{path}: {clip(str(cells.name))} names sides ({name_some(sorted(there))}), no views")
    return read_names(cells, VIEWS, path)


def say_unknown(cells: pd.Series, names: pd.Series, where: str, then: str) -> list[str]:
    """The line about cells that were not understood, with counts; empty if there are none."""
    odd = cells[names.isna() & ~cells.isin([text for text in cells.unique() if is_placeholder(text)])]
    counts = [f"{clip(str(text))} ({count:,})" for text, count in odd.value_counts().items()]
    return [f"{where} has spellings that are not known: {name_some(counts, limit=12)}: {then}"] if counts else []


def read_ages(cells: pd.Series, table: TextTable) -> pd.Series:
    """Years from ``58``, ``58.5`` or ``058Y``; missing for blank cells and placeholders.

    Raises:
        DataError: A cell is no number of years from 0 to 120; the message names the line.
    """
    cells = cells.mask(cells.isin([text for text in cells.unique() if is_placeholder(text)]), "")
    years = _to_years(cells)
    fault = f"is no age from 0 to {MAX_AGE} years: correct it, or leave the cell blank"
    refuse_cells((cells != "") & ~years.between(0, MAX_AGE), cells, fault, table)
    return years


def read_likely_ages(cells: pd.Series, table: TextTable, notes: list[str] | None) -> pd.Series:
    """Years as in ``read_ages``; if ``notes`` is given, some impossible ages become unknown, with a note there.

    Raises:
        DataError: As raised by ``read_ages``.
    """
    if notes is None:
        return read_ages(cells, table)
    names = cells.unique()
    good = set(names[_to_years(pd.Series(names)).between(0, MAX_AGE).to_numpy()])
    odd = ~(cells.isin(good) | cells.isin([name for name in names if is_placeholder(name)]))
    if not good or not odd.any():
        return read_ages(cells, table)
    counts = [f"{clip(str(text))} ({count:,})" for text, count in cells[odd].value_counts().items()]
    what = f"no ages from 0 to {MAX_AGE} years and taken for unknown"
    notes.append(f"{table.path}: {format_count(int(odd.sum()), 'cell')} of {clip(str(cells.name))} are {what}: "
                 f"{name_some(counts, limit=12)}")  # fmt: skip
    return read_ages(cells.mask(odd, ""), table)


def read_parts(cells: pd.Series, table: TextTable, remedy: str = "correct it") -> list[str]:
    """The part of each row: train, val or test; ``train_val`` for train if no row is val.

    Args:
        cells: (N,) the column.
        table: The table, for messages.
        remedy: Advice about other cells.

    Raises:
        DataError: A cell is none of these; the message names the line.
    """
    parts = cells.map({text: PARTS.get(text.lower()) for text in cells.unique()})
    refuse_cells(parts.isna(), cells, f"is no part of a split (train, val or test): {remedy}", table)
    return parts.tolist() if (parts == "val").any() else parts.replace("train", "train_val").tolist()


def _to_years(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells.str.replace(r"(?<=\d)[Yy]$", "", regex=True), errors="coerce")
