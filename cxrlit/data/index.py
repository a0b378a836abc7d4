"""The index: the one table that every source yields, a row an image, and its checks.

| column | what |
| --- | --- |
| image | name of the image, unique |
| source | name of the data set |
| path, file | where its file is; the same, relative to the data set's root |
| n_bytes, mtime_ns | size of that file, and when it last changed |
| patient | the group that is never split |
| a column for each label | float32: 1 present, 0 absent, NaN unknown |
| study, view, age, sex | name; PA, AP or LATERAL; years; M or F; missing where unknown |
"""

import hashlib
import operator
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.errors import DataError, name_some, say_count
from cxrlit.core.files import hash_value
from cxrlit.core.labels import FIXED_COLUMNS

MAX_AGE = 120


def check_index(index: pd.DataFrame, labels: Sequence[str], source: str, where: str) -> pd.DataFrame:
    """The index with its columns in order and its rows sorted by image, if it can be trusted.

    Args:
        index: A table with ``FIXED_COLUMNS`` but for ``source``, and the labels; what may be missing (``study``,
            ``view``, ``age``, ``sex``) may be absent.
        labels: The labels in use.
        source: Name of the data set.
        where: Where it came from, for messages.

    Raises:
        DataError: It is empty, has duplicate images, an image name that is a path, a name with characters that cannot
            be seen, an image without a patient, or a target that is not 0, 1 or NaN.
    """
    if index.empty:
        raise DataError(f"{where}: there are no images")
    absent = {column: None for column in ("study", "view", "age", "sex") if column not in index}
    index = index.assign(source=source, **absent)[[*FIXED_COLUMNS, *labels]]
    index = index.sort_values("image", kind="stable", ignore_index=True)
    images = index["image"].astype(str)
    names, patients = images.tolist(), index["patient"].astype(str).tolist()
    if any(map(operator.eq, names, names[1:])):  # they are sorted
        duplicates = images[images.duplicated()].unique().tolist()
        raise DataError(
            f"{where}: {say_count(len(duplicates), 'image stands', 'images stand')} "
            f"in it twice ({name_some(duplicates)}): keep one row"
        )
    # All names at once: the loops that find the odd one are for the message.
    seen = "".join(names)
    if "/" in seen or "\\" in seen or not {"", ".", ".."}.isdisjoint(names):
        outside = [name for name in names if "/" in name or "\\" in name or name in {"", ".", ".."}]
        raise DataError(f"{where}: image names must be file names without folders: {name_some(outside)}")
    nameless = images[index["patient"].isna() | (index["patient"].astype(str) == "")].tolist()
    if nameless:
        raise DataError(
            f"{where}: {say_count(len(nameless), 'image has', 'images have')} no patient: {name_some(nameless)}"
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


def read_targets(index: pd.DataFrame, labels: Sequence[str]) -> NDArray[np.float32]:
    """(N, L) targets of an index: 1 present, 0 absent, NaN unknown."""
    return index[list(labels)].to_numpy(dtype=np.float32)


def hash_rows(index: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """A short hash of what each row says: image, size of its file, patient, targets. No image is read."""
    columns = [index["image"], index["n_bytes"], index["patient"], *(index[label] for label in labels)]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [hashlib.blake2b(repr(row).encode(), digest_size=6).hexdigest() for row in rows]


def hash_index(index: pd.DataFrame, labels: Sequence[str]) -> str:
    """Hash of what a whole index says."""
    return hash_value(hash_rows(index, labels))
