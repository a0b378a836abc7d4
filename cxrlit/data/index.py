"""The index: the table that every source yields, one row per image, and its checks.

| column | content |
| --- | --- |
| image | name of the image, unique in its source |
| source | name of the data set |
| path, file | absolute path of the file; path relative to the data set's root |
| n_bytes, mtime_ns | size and last change of the file |
| patient | the group that is never split, unique in its source |
| a column for each label | float32: 1 present, 0 absent, NaN unknown |
| study, view, age, sex | name; PA, AP or LATERAL; years; M or F; missing where unknown |
"""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.errors import DataError, format_count, name_some
from cxrlit.core.files import hash_value
from cxrlit.core.labels import FIXED_COLUMNS

MAX_AGE = 120

KEY, PATIENT_KEY = ["source", "image"], ["source", "patient"]
"""Keys of images and patients: the same name in another source is another image or patient."""


def check_index(index: pd.DataFrame, labels: Sequence[str], source: str, where: str) -> pd.DataFrame:
    """Check an index and return it with columns in order and rows sorted by image.

    Args:
        index: A table with ``FIXED_COLUMNS`` but for ``source``, and the labels; the optional columns ``study``,
            ``view``, ``age`` and ``sex`` may be absent.
        labels: The labels in use.
        source: Name of the data set.
        where: Origin of the table, for messages.

    Raises:
        DataError: The table is empty, or has duplicate images, an image name that is a path, a name with invisible
            characters, an image without a patient, or a target that is not 0, 1 or NaN.
    """
    if index.empty:
        raise DataError(f"{where}: there are no images")
    absent = {column: None for column in ("study", "view", "age", "sex") if column not in index}
    index = index.assign(source=source, **absent)[[*FIXED_COLUMNS, *labels]]
    index = index.sort_values("image", kind="stable", ignore_index=True)
    images = index["image"].astype(str)
    names, patients = images.tolist(), index["patient"].astype(str).tolist()
    if any(map(operator.eq, names, names[1:])):  # the names are sorted
        duplicates = images[images.duplicated()].unique().tolist()
        raise DataError(
            f"{where}: {format_count(len(duplicates), 'image stands', 'images stand')} "
            f"in it twice ({name_some(duplicates)}): keep one row"
        )
    # Check all names at once; the loops below only find the invalid one for the message.
    seen = "".join(names)
    if "/" in seen or "\\" in seen or not {"", ".", ".."}.isdisjoint(names):
        outside = [name for name in names if "/" in name or "\\" in name or name in {"", ".", ".."}]
        raise DataError(f"{where}: image names must be file names without folders: {name_some(outside)}")
    nameless = images[index["patient"].isna() | (index["patient"].astype(str) == "")].tolist()
    if nameless:
        raise DataError(
            f"{where}: {format_count(len(nameless), 'image has', 'images have')} no patient: {name_some(nameless)}"
        )
    if not (seen.isprintable() and "".join(patients).isprintable()):
        hidden = next(name for name in (*names, *patients) if not name.isprintable())
        raise DataError(f"{where}: {hidden!r} holds a character that cannot be seen: rename it")
    targets = read_targets(index, labels)
    odd = ~(np.isnan(targets) | (targets == 0) | (targets == 1))
    if odd.any():
        row, column = np.argwhere(odd)[0]
        raise DataError(f"{where}: {labels[column]} of {images[row]} is {targets[row, column]}, not 0, 1 or unknown")
    index["age"] = pd.to_numeric(index["age"], errors="coerce").astype("float32")
    return index


def name_rows(table: pd.DataFrame, several: bool) -> pd.DataFrame:
    """A table with display names, without the column ``source``.

    Args:
        table: ``source``, and ``image``, ``patient`` or both.
        several: Whether the data have several sources; then images and patients become ``source/name``.
    """
    named = table.drop(columns="source")
    if not several:
        return named
    front = (table["source"] + "/").fillna("")
    return named.assign(**{name: front + table[name].astype(str) for name in ("image", "patient") if name in table})


def parse_names(table: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """Undo ``name_rows``; ``source`` is NaN for a name without a source.

    Args:
        table: ``image`` and perhaps ``patient``.
        sources: Names of all sources of the data.

    Raises:
        DataError: A patient has another source than its image.
    """
    if len(sources) == 1:
        return table.assign(source=sources[0])
    parts = table["image"].str.extract(r"(?s)^(?:(.*)/)?(.*)$")  # an image's own name contains no /
    parsed = table.assign(source=parts[0], image=parts[1])
    if "patient" in table:
        pairs = zip(parts[0], table["patient"], strict=True)
        parsed["patient"] = [patient.removeprefix(f"{source}/") for source, patient in pairs]
        odd = name_rows(parsed, several=True)["patient"] != table["patient"]
        if odd.any():
            raise DataError(f"the source of the image {table['image'][odd].iloc[0]} is not that of its patient")
    return parsed


def sort_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by display name: ``a-b/1.png`` comes before ``a/1.png``."""
    return table.sort_values(KEY, key=lambda names: names + "/" if names.name == "source" else names, ignore_index=True)


def match_rows(table: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.intp]:
    """(N,) position of each row's image in another table with unique images; -1 if it is not there."""
    keys, others = (pd.MultiIndex.from_frame(rows[KEY]) for rows in (table, other))
    return others.get_indexer(keys)


def read_targets(index: pd.DataFrame, labels: Sequence[str]) -> NDArray[np.float32]:
    """(N, L) targets of an index: 1 present, 0 absent, NaN unknown."""
    return index[list(labels)].to_numpy(dtype=np.float32)


def hash_rows(index: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """A short hash of each row's image, file size, patient and targets. No image is read.

    The hashed names are display names (``name_rows``).
    """
    columns = [index["image"], index["n_bytes"], index["patient"], *(index[label] for label in labels)]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [hashlib.blake2b(repr(row).encode(), digest_size=6).hexdigest() for row in rows]


def hash_index(index: pd.DataFrame, labels: Sequence[str]) -> str:
    """Hash of a whole index, with display names (``name_rows``)."""
    return hash_value(hash_rows(index, labels))


@dataclass(frozen=True)
class DataTables:
    """One data set, or several combined. No image has been read.

    Attributes:
        sources: Names of the data sets, in config order.
        labels: The labels in use.
        index: The checked index.
        dropped: Unusable images of the tables: ``source``, ``image``, ``path``, ``reason``.
        excluded: Images that the config excludes, in the same form.
        stores: Address of the prepared images, by source that has one.
        said: Lines about these data that were printed; they are not printed again.
        caveats: Printed lines that must accompany every number of these data.
    """

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    index: pd.DataFrame
    dropped: pd.DataFrame
    excluded: pd.DataFrame
    stores: Mapping[str, str]
    said: set[str] = field(default_factory=set, kw_only=True, repr=False, compare=False)
    caveats: list[str] = field(default_factory=list, kw_only=True, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the data set, or names joined as in ``nih+chexpert``."""
        return "+".join(self.sources)

    def name_rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of these images with display names, for files and the screen (``index.name_rows``)."""
        return name_rows(table, several=len(self.sources) > 1)

    @cached_property
    def index_hash(self) -> str:
        """Hash of the index with display names (``hash_index``)."""
        return hash_index(self.name_rows(self.index), self.labels)
