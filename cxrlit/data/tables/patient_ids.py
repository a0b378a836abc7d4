"""Patients from a text column. Two spellings of one patient would be two, in training and test at once."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache

import numpy as np
import pandas as pd

from cxrlit.core.errors import DataError
from cxrlit.data.tables.placeholders import is_placeholder
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import refuse_cells

NUMBER = re.compile(r"^(?!\d+$)[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?$", re.ASCII | re.MULTILINE)
"""A line with a decimal number that is not digits only."""

POINT = "\x00"
"""Stands for a decimal point in a key, so that zeros after it count."""

BARE_EXPONENT = re.compile(r"^\d+e\d+$", re.ASCII)
"""A number only in a column of numbers: hexadecimal pseudonyms look like this too."""

NOBODY = re.compile(r"-(?:1|9+)(?:\.0*)?", re.ASCII)
"""Numbers that programs write for an unknown patient; labels may contain them for another reason."""

ROUNDED = re.compile(r"[+-]?\d(?:(?:[.,]\d*)?e\+\d+|[.,]\d+e\d{2,})", re.ASCII | re.IGNORECASE)
"""A large number as spreadsheets and pandas write it, without its last digits: 1.2345E+11."""

EXACT_DIGITS = 15
"""Significant digits that a spreadsheet keeps; it replaces the rest by zeros."""

SPACES, ZEROS = re.compile(r"[^\S\n]+"), re.compile(rf"(?<![\d{POINT}])(?<!\d\.)0+(?=\d)", re.ASCII)


def read_patients(cells: pd.Series, table: TextTable) -> pd.Series:
    """The patients as written.

    Raises:
        DataError: A name is blank, a placeholder, rounded, invisible, or one of two spellings of a patient; the
            message names the lines.
    """
    refuse_nobody(cells, table)
    refuse_unseen(cells, table)
    refuse_spellings(cells, table)
    return cells


def refuse_nobody(cells: pd.Series, table: TextTable) -> None:
    """Check that every cell names a patient: not blank, no word for unknown, no number that lost digits.

    Raises:
        DataError: A cell does not; the message names the lines.
    """
    names = cells.unique().tolist()
    faults = {
        "is blank: every image needs a patient": [name for name in names if not name],
        "names nobody: every image needs a patient; if somebody is called so, write more of the name": [
            name for name in names if name and (is_placeholder(name) or NOBODY.fullmatch(name))
        ],
        "is a number without its last digits, which several patients may share: export the column as text": [
            name for name in names if ROUNDED.fullmatch(name)
        ],
    }
    for fault, odd in faults.items():
        if odd:
            refuse_cells(cells.isin(odd), cells, fault, table)
    long = [name for name in names if name.isdecimal() and len(name) > EXACT_DIGITS]
    if len(long) > 1 and not any(name[EXACT_DIGITS:].strip("0") for name in long):
        fault = (
            f"and all other long numbers end in zeros from digit {EXACT_DIGITS + 1} on, as a spreadsheet leaves them"
        )
        refuse_cells(cells.isin(long), cells, f"{fault}: export the column as text", table)


def refuse_unseen(cells: pd.Series, table: TextTable) -> None:
    """Check that no name contains an invisible character, or one that merely looks like a space.

    Raises:
        DataError: A name does; the message names the lines and the character.
    """
    if "".join(cells.unique().tolist()).isprintable():
        return
    odd = ~cells.map(str.isprintable).astype(bool)
    unseen = next(character for character in cells[odd].iloc[0] if not character.isprintable())
    name = unicodedata.name(unseen, "a control character").lower()
    refuse_cells(odd, cells, f"holds U+{ord(unseen):04X} ({name}): take it out", table)


def refuse_spellings(cells: pd.Series, table: TextTable) -> None:
    """Check that no two different names are spellings of one patient, as far as ``key_patients`` can tell.

    Raises:
        DataError: Two names are; the message names both, with a line of each.
    """
    names = pd.Series(cells.unique())
    keys = pd.Series(key_patients(names.tolist(), _are_numbers(names.tolist())))
    again = keys.duplicated(keep=False)
    if not again.any():
        return
    both = names[keys == keys[again].iloc[0]].tolist()[:2]
    rows = [int((cells == name).to_numpy().argmax()) for name in both]
    raise DataError(
        f"{table.path}, {table.format_lines(rows)}: {clip(str(cells.name))} is {' and '.join(map(clip, both))}: "
        "write each patient in one way, so that none can stand in two parts of a split"
    )


def key_patients(names: list[str], are_numbers: bool = False) -> list[str]:
    """A normalized key for each name: two names with the same key are one patient.

    Letters in Unicode's compatibility form without case, each dash as ``-``, white space as one space, decimal
    digits of all scripts as ASCII without leading zeros, a decimal number by its value.

    Args:
        names: Names without line breaks.
        are_numbers: Whether ``1e4`` is 10000, as in a column of numbers; otherwise it may be a pseudonym.

    >>> key_patients(["A 007", "a  7", "+1.0", "1.0e4", "1.05"])
    ['a 7', 'a 7', '1', '10000', '1\\x0005']
    """
    # All names at once: a call per name would take longer than reading the table.
    text = unicodedata.normalize("NFKC", "\n".join(names)).casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_list_signs())
    text = SPACES.sub(" ", text)
    text = NUMBER.sub(lambda found: _write_plainly(found[0], are_numbers), text)
    return ZEROS.sub("", text).split("\n")


def spell_numbers(cells: pd.Series) -> pd.Series:
    """Integers as digits without leading zeros and decimals; other names without leading zeros.

    >>> spell_numbers(pd.Series(["00007", "7.0", "7", "A7"])).tolist()
    ['7', '7', '7', 'A7']
    """
    codes, names = pd.factorize(cells)
    keys = key_patients(names.tolist(), _are_numbers(names.tolist()))
    spelled = [
        key if key.isdecimal() else re.sub(r"^0+(?=\d)", "", name) for key, name in zip(keys, names, strict=True)
    ]
    return pd.Series(np.array(spelled, dtype=object)[codes], index=cells.index, name=cells.name)


def key_people(names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Patients named ``source/patient``, by their source and the key of their own name.

    >>> key_people(["nih/007", "table/7.0"])
    {('nih', '7'): 'nih/007', ('table', '7'): 'table/7.0'}
    """
    texts = list(names)
    return dict(zip(list_people_keys(texts), texts, strict=True))


def list_people_keys(names: Sequence[str]) -> list[tuple[str, str]]:
    """Source and key of each patient.

    Args:
        names: ``source/patient``, or just the patient if all have one source.

    >>> list_people_keys(["nih/007", "7.0"])
    [('nih', '7'), ('', '7')]
    """
    parts = [f"{'' if '/' in name else '/'}{name}".replace("\n", " ").partition("/") for name in names]
    keys = key_patients([patient for _, _, patient in parts]) if parts else []
    return [(source, key) for (source, _, _), key in zip(parts, keys, strict=True)]


def _are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are numbers; 00e1 is none, but a hexadecimal pseudonym."""
    texts = [name.casefold() for name in names]
    return all(
        name.isdecimal() or (NUMBER.match(name) and not (name[0] == "0" and BARE_EXPONENT.match(name)))
        for name in texts
    )


def _write_plainly(number: str, are_numbers: bool) -> str:
    if not are_numbers and BARE_EXPONENT.match(number):
        return number
    whole, _, fraction = format(Decimal(number), "f").partition(".")
    fraction = fraction.rstrip("0")
    plain = whole if not fraction else f"{whole}{POINT}{fraction}"
    return plain if plain != "-0" else "0"


@cache
def _list_signs() -> dict[int, str]:
    """Translation of dashes, the minus sign and the decimal digits of all scripts to ASCII."""
    signs = {0x2212: "-"}
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category in ("Pd", "Nd"):
            signs[code] = "-" if category == "Pd" else str(unicodedata.decimal(chr(code)))
    return signs
