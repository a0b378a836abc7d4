"""A column that lists the findings of each image, such as ``Mass|Nodule``."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import quote
from cxrlit.core.errors import ConfigError, DataError, format_count, name_some
from cxrlit.core.labels import simplify_name
from cxrlit.data.tables.placeholders import is_placeholder
from cxrlit.data.tables.text_table import TextTable, clip

NOTHING = frozenset(
    {
        "no finding", "no findings", "normal", "healthy", "negative", "no abnormality", "no abnormalities",
        "no abnormality detected", "unremarkable", "no disease",
    }
)  # fmt: skip
"""Names for no finding."""

SEPARATORS = (
    ",",
    ";",
    "/",
    "|",
    "+",
    "&",
    "\n",
    "\t",
    "\\",
    "^",
    "~",
    "#",
    ">",
    "\uff0c",
    "\uff1b",
    "\uff5c",
    "\u3001",
)
"""Separators between names: one label among the pieces is enough to recognize them."""

JOINTS = (" ", "_", "-", ".", ":", " and ", " with ")
"""Separators that may also occur within a name: all pieces must be labels."""

BRACKETS = " \t\n[](){}'\""
"""Characters that may surround names, or stand in an empty list."""

DOUBT = re.compile(r"[?!~<>=*%^¬#]|^\s*[-\u2010-\u2015\u2212]")
"""Characters that change the meaning of a name: ``Mass?``."""


def read_findings(
    cells: pd.Series, separator: str, labels: Sequence[str], table: TextTable
) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Targets from a column of finding names.

    A label that no cell names is unknown, not absent: the table may not record it. A label is also unknown in a row
    whose cell contains a placeholder, or a longer name that contains the label (``no mass``). A blank cell means no
    finding, unless other cells state that in words: then it is unknown.

    Args:
        cells: (N,) the column.
        separator: Separator between names.
        labels: The L labels.
        table: The table, for messages.

    Returns:
        (N, L) targets; names that are not labels; and notes for the user, one line each.

    Raises:
        DataError: No cell names a label, or cells use another separator.
        ConfigError: A label contains the separator.
    """
    torn = [label for label in labels if separator in label]
    if torn:
        raise ConfigError(
            f"data.separator={quote(separator)} stands in the label {torn[0]}: write another between names"
        )
    wanted = {simplify_name(label): column for column, label in enumerate(labels)}
    codes, texts = pd.factorize(cells)
    counts = np.bincount(codes, minlength=len(texts)).tolist()
    parts = [text.split(separator) for text in texts]
    _refuse_separators(cells, codes, parts, wanted, separator, table)
    says_nothing = any(simplify_name(part) in NOTHING for names in parts for part in names)
    is_blank = [not any(part.strip(BRACKETS) for part in names) for names in parts]
    values = np.zeros((len(texts), len(labels)), dtype=np.float32)
    n_both = 0
    odd: Counter[str] = Counter()
    unclear: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for row, names in enumerate(parts):
        found: list[int] = []
        for part in names:
            name = simplify_name(part)
            column = _find(part, wanted)
            if column is not None:
                found.append(column)
            elif not part.strip(BRACKETS):
                continue
            elif is_placeholder(part) or is_placeholder(name):
                unknown[part.strip()] += counts[row]
                values[row] = np.nan
            elif name not in NOTHING:
                like = [place for label, place in wanted.items() if set(label.split()) <= set(name.split())]
                (unclear if like else odd)[part.strip()] += counts[row]
                values[row, like] = np.nan
        if says_nothing and is_blank[row]:
            values[row] = np.nan
        n_both += counts[row] * (bool(found) and any(simplify_name(part) in NOTHING for part in names))
        values[row, found] = 1
    is_named = (values == 1).any(axis=0)
    if not is_named.any():
        known = [clip(name) for name in (*unclear, *odd, *unknown)]
        raise DataError(
            f"{table.path}: {clip(str(cells.name))} names none of the labels {', '.join(labels)}; it names "
            f"{name_some(known, limit=12) or 'nothing'} (data.separator={quote(separator)})"
            f"{_advise(unclear, separator)}"
        )
    values[:, ~is_named] = np.nan
    where = f"{table.path}: {clip(str(cells.name))}"
    notes = [
        f"{where} {text}: {_list_counts(names)}{_advise(names if names is unclear else (), separator)}"
        for text, names in (
            ("has names that contain a label and say more, for which that label is unknown", unclear),
            ("has names that are none of the labels", odd),
            ("has cells that name nothing known, whose other labels are unknown", unknown),
        )
        if names
    ]
    if n_both:
        notes.append(
            f"{where}: {format_count(n_both, 'cell names', 'cells name')} a label and No Finding: the label counts"
        )
    n_blank = sum(count for count, blank in zip(counts, is_blank, strict=True) if blank)
    if n_blank:
        blank = "unknown, as other cells say No Finding" if says_nothing else "taken for no finding"
        notes.append(f"{where}: {format_count(n_blank, 'blank cell is', 'blank cells are')} {blank}")
    return values[codes], [*unclear, *odd], notes


def _find(part: str, wanted: dict[str, int]) -> int | None:
    """The label that a part of a cell names, ignoring case, brackets and quotation marks."""
    return None if DOUBT.search(part) else wanted.get(simplify_name(part))


def _refuse_separators(
    cells: pd.Series,
    codes: NDArray[np.intp],
    parts: Sequence[Sequence[str]],
    wanted: dict[str, int],
    separator: str,
    table: TextTable,
) -> None:
    """Check that no part of a cell lists several names with another separator.

    Raises:
        DataError: A part does; the message names that separator, and what to do.
    """
    joined: dict[str, list[int]] = {}  # by separator, the different cells with it
    for row, names in enumerate(parts):
        for part in names:
            sign = (
                None if simplify_name(part) in wanted or is_placeholder(part) else _find_sign(part, wanted, separator)
            )
            if sign is not None:
                joined.setdefault(sign, []).append(row)
    if not joined:
        return
    sign = max(joined, key=lambda mark: len(joined[mark]))
    rows = np.flatnonzero(np.isin(codes, joined[sign]))
    is_mixed = len(joined) > 1 or any(sum(_find(part, wanted) is not None for part in names) > 1 for names in parts)
    example = cells.iloc[rows[0]]
    if is_mixed or not sign.strip() or sign == "\\":
        remedy = f"write {separator} between the names of all cells"
    else:
        remedy = f'if several are meant, say "data.separator={quote(sign)}"'
    raise DataError(
        f"{table.path}, {table.format_lines(rows)}: {clip(str(cells.name))} {clip(example)!r} is no label as a whole, "
        f"and between {sign!a} it names some: {remedy}; if it is one finding, add it to labels"
    )


def _find_sign(part: str, wanted: dict[str, int], separator: str) -> str | None:
    """The separator of a part that lists several names, of which one or all are labels; else None."""
    for sign in (*SEPARATORS, *JOINTS):
        pieces = [piece for piece in part.split(sign) if piece.strip()]
        if sign == separator or len(pieces) < 2:
            continue
        named = [_find(piece, wanted) is not None for piece in pieces]
        if any(named) if sign in SEPARATORS else all(named):
            return sign
    return None


def _advise(unclear: Iterable[str], separator: str) -> str:
    """Advice to use a name that contains a label as a label of its own; empty if none is suitable."""
    plain = [name for name in unclear if re.fullmatch(r"[A-Za-z][\w -]*", name) and separator not in name]
    return f'; if it is a finding of its own, name it as a label: "labels=[{plain[0]}]"' if plain else ""


def _list_counts(names: Counter[str]) -> str:
    return name_some([f"{clip(name)} ({count:,})" for name, count in names.most_common()], limit=12)
