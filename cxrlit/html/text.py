"""Numbers and texts formatted for readers."""

import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

NOTHING = "–"
"""Text for an undefined value."""


def format_number(number: int) -> str:
    """A number with thousands separators.

    >>> format_number(112120)
    '112,120'
    """
    return f"{number:,}"


def format_share(share: float) -> str:
    """A fraction as a percentage; a dash where it is undefined.

    >>> format_share(0.10312), format_share(float("nan"))
    ('10.3 %', '–')
    """
    return NOTHING if np.isnan(share) else f"{100 * share:.1f} %"


def format_change(change: float) -> str:
    """A relative difference as a percentage with its sign; a dash where it is undefined.

    >>> format_change(-0.0312)
    '-3.1 %'
    """
    return NOTHING if np.isnan(change) else f"{100 * change:+.1f} %"


def format_part(number: int, total: int) -> str:
    """A number and its percentage of the total.

    >>> format_part(1500, 3000)
    '1,500 (50.0 %)'
    """
    return f"{number:,} ({format_share(number / total if total else float('nan'))})"


def format_bytes(number: float) -> str:
    """A size in bytes, in the unit that keeps the number below 1,000.

    >>> format_bytes(411234), format_bytes(45.2e9)
    ('411 kB', '45.2 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit in {"bytes", "kB"} else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def format_spread(values: ArrayLike, digits: int = 0) -> str:
    """Minimum, maximum and median of values; a dash where there are none.

    >>> format_spread([1, 2, 9])
    '1 to 9, median 2'
    """
    if not np.size(values):
        return NOTHING
    low, middle, high = (f"{value:,.{digits}f}" for value in np.quantile(np.asarray(values, float), (0, 0.5, 1)))
    return f"{low} to {high}, median {middle}"


def list_names(names: Sequence[str]) -> str:
    """Names joined for a sentence.

    >>> list_names(["Mass"]), list_names(["Mass", "Nodule", "Hernia"])
    ('Mass', 'Mass, Nodule and Hernia')
    """
    *first, last = names or [NOTHING]
    return f"{', '.join(first)} and {last}" if first else last


def format_p(p: float) -> str:
    """A p-value as text.

    >>> format_p(0.0414), format_p(0.00014)
    ('0.0414', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.4f}"


def name_files(labels: Sequence[str]) -> list[str]:
    """A unique file name for each label, of letters, digits and hyphens.

    >>> name_files(["Pleural Effusion", "pleural/effusion", "../", "胸水"])
    ['pleural-effusion', 'pleural-effusion-2', 'label-3', 'label-4']
    """
    names: list[str] = []
    for number, label in enumerate(labels, start=1):
        name = re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or f"label-{number}"
        names.append(f"{name}-{number}" if name in names else name)
    return names


def escape_unprintable(text: str) -> str:
    """Escape control characters and bidirectional marks, which names in tables may contain.

    >>> escape_unprintable("a\\x1b[31m"), escape_unprintable("é")
    ('a\\\\x1b[31m', 'é')
    """
    return text if text.isprintable() else ascii(text)[1:-1]


def count_reasons(table: pd.DataFrame) -> list[tuple[str, int, list[str]]]:
    """Each reason for excluding images, with its count and the names of the first few images."""
    groups = table["image"].astype(str).groupby(table["reason"].astype(str))
    counted = [(str(reason), len(names), sorted(names)[:3]) for reason, names in groups]
    return sorted(counted, key=lambda item: (-item[1], item[0]))


def list_versions(packages: Sequence[str]) -> list[tuple[str, str]]:
    """Installed versions of packages and of Python."""
    return [
        *((f"version of {name}", version(name)) for name in packages),
        ("version of Python", platform.python_version()),
    ]


def hide_secrets(address: str) -> str:
    """An address without user name, password and query, which may contain secrets.

    >>> hide_secrets("https://me:secret@host:8080/stores/nih?token=secret")
    'https://host:8080/stores/nih'
    """
    parts = urlsplit(address)
    if not parts.scheme:
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
