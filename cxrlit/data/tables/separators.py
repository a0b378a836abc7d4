"""Column separator of a text table, from its file name, and from a first line ``sep=`` for Excel."""

import re
from pathlib import Path

from cxrlit.core.errors import DataError

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}

PREAMBLE = re.compile(r'"?sep=(.)"?(?=[\r\n])', re.IGNORECASE)


def find_separator(path: Path) -> str:
    """The column separator of a file, by its name."""
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def drop_preamble(text: str, path: Path) -> str:
    """The beginning of a file without extra byte-order marks, and with a blank line in place of ``sep=,``.

    Raises:
        DataError: The line states another separator than the file name.
    """
    text = text.lstrip("\ufeff")
    found = PREAMBLE.match(text)
    if found is None:
        return text
    mark, wanted = found[1], find_separator(path)
    if mark != wanted:
        names = SEPARATORS.get(mark, ascii(mark))
        raise DataError(
            f"{path}: its columns are separated by {names}, as its first line says, not by {SEPARATORS[wanted]}: save "
            f"it with {SEPARATORS[wanted]}"
        )
    return text[found.end() :]
