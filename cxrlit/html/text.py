"""Numbers and texts as a reader takes them in."""

from urllib.parse import urlsplit

import numpy as np
import pandas as pd

NOTHING = "–"
"""Stands for what is undefined."""


def format_number(number: int) -> str:
    """A number with its thousands apart.

    >>> format_number(112120)
    '112,120'
    """
    return f"{number:,}"


def format_share(share: float) -> str:
    """A share as percent; a dash where it is undefined.

    >>> format_share(0.10312), format_share(float("nan"))
    ('10.3 %', '–')
    """
    return NOTHING if np.isnan(share) else f"{100 * share:.1f} %"


def format_p(p: float) -> str:
    """A p-value.

    >>> format_p(0.0414), format_p(0.00014)
    ('0.0414', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.4f}"


def escape_unprintable(text: str) -> str:
    """A text without control characters and marks that turn its direction around, which names in tables may hold.

    >>> escape_unprintable("a\\x1b[31m"), escape_unprintable("é")
    ('a\\\\x1b[31m', 'é')
    """
    return text if text.isprintable() else ascii(text)[1:-1]


def count_reasons(table: pd.DataFrame) -> list[tuple[str, int, list[str]]]:
    """Each reason of a table of images that are not used: how many, and the names of the first few."""
    groups = table["image"].astype(str).groupby(table["reason"].astype(str))
    counted = [(str(reason), len(names), sorted(names)[:3]) for reason, names in groups]
    return sorted(counted, key=lambda item: (-item[1], item[0]))


def hide_secrets(address: str) -> str:
    """An address without what stands for a password in it.

    >>> hide_secrets("https://me:secret@host:8080/stores/nih?token=secret")
    'https://host:8080/stores/nih'
    """
    parts = urlsplit(address)
    if not parts.scheme:
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
