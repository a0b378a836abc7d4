"""The labels, their order, and how names of findings are matched."""

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
"""What NIH's label table says of an image without a finding."""

NAME_PATTERN, NAME_LENGTH = r"^\w[\w ().+/-]*$", 60
"""What the name of a label may be, and how long: it is a part of columns, files and pages."""

FIXED_COLUMNS: tuple[str, ...] = (
    "image", "source", "path", "file", "n_bytes", "mtime_ns", "patient", "study", "view", "age", "sex",
)  # fmt: skip
"""Columns of an index beside its labels."""


def match_findings(
    labels: Sequence[str], known: Iterable[str], meanings: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """For each label the findings of a data set that make it present; none where the set does not have it.

    A label that ``meanings`` does not list is matched by name, whatever its case, underscores and spaces.

    Args:
        labels: The labels in use.
        known: The data set's own names.
        meanings: For labels whose name is not enough, the names that mean them.

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

    Of a label of ``LABELS`` only the letters may differ: a Mass is no Nodule/Mass.

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
    """A name for comparison: lower case, a single space for whatever is no letter or digit.

    >>> simplify_name("Pleural_Thickening")
    'pleural thickening'
    """
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
