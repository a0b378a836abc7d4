"""The labels, their order, and matching of finding names."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The 8 findings that are trained unless ``labels`` says otherwise. Arrays (N, L), CSV columns and network outputs
keep the order of the labels in use."""

NO_FINDING = "No Finding"
"""NIH's entry for an image without a finding."""

NAME_PATTERN, NAME_LENGTH = r"^\w[\w ().+/-]*$", 60
"""Allowed characters and length of a label's name, which becomes part of columns, files and pages."""

FIXED_COLUMNS: tuple[str, ...] = (
    "image", "source", "path", "file", "n_bytes", "mtime_ns", "patient", "study", "view", "age", "sex",
)  # fmt: skip
"""Columns of an index other than its labels."""


def match_findings(
    labels: Sequence[str], known: Iterable[str], meanings: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The findings of a data set that make each label present; none where the data set lacks it.

    A label that ``meanings`` does not list is matched by name, ignoring case, underscores and spaces.

    Args:
        labels: The labels in use.
        known: The data set's finding names.
        meanings: Finding names for labels that do not match by name.

    >>> match_findings(["Effusion", "pleural_thickening", "Mass"], ["Pleural Effusion", "Pleural Thickening"],
    ...                {"Effusion": ("Pleural Effusion",)})
    {'Effusion': ('Pleural Effusion',), 'pleural_thickening': ('Pleural Thickening',), 'Mass': ()}
    """
    by_name = {simplify_name(name): name for name in known}
    special = {simplify_name(label): names for label, names in meanings.items()}
    found = {}
    for label in labels:
        name = simplify_name(label)
        found[label] = special[name] if name in special else (by_name[name],) if name in by_name else ()
    return found


def suggest_finding(label: str, known: Iterable[str]) -> str | None:
    """The finding that a label probably means: a few letters differ, or one has all words of the other.

    A label of ``LABELS`` may differ only in letters: Mass is not Nodule/Mass.

    >>> suggest_finding("Oedema", ["Effusion", "Edema"]), suggest_finding("Pleural_Effusion", ["Effusion", "Edema"])
    ('Edema', 'Effusion')
    """
    name, names = simplify_name(label), {simplify_name(finding): finding for finding in known}
    close = difflib.get_close_matches(name[:NAME_LENGTH], names, n=1, cutoff=0.8)
    if not close and label not in LABELS:
        words = set(name.split())
        close = [other for other in names if other and (words <= set(other.split()) or set(other.split()) <= words)]
    return names[close[0]] if close else None


def simplify_name(name: str) -> str:
    """A name for comparison: lower case, one space for every run of characters that are no letters or digits.

    >>> simplify_name("Pleural_Thickening")
    'pleural thickening'
    """
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
