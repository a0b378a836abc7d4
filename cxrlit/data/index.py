"""The index: the one table that every source yields, a row an image, and its checks.

| column | what |
| --- | --- |
| image | name of the image, unique |
| path | absolute path of its file |
| n_bytes | size of that file |
| patient | the group that is never split |
| the 8 labels | float32: 1 present, 0 absent, NaN unknown |
| age, sex, view | years, M or F, PA or AP; missing where unknown |
"""

import hashlib
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.errors import DataError, name_some
from cxrlit.files import hash_value
from cxrlit.labels import LABELS

COLUMNS = ("image", "path", "n_bytes", "patient", *LABELS, "age", "sex", "view")


def check_index(index: pd.DataFrame, source: str) -> pd.DataFrame:
    """The index with its columns in order and its rows sorted by image, if it can be trusted.

    Args:
        index: A table with ``COLUMNS``.
        source: Where it came from, for messages.

    Raises:
        DataError: It is empty, has duplicate images, an image name that is a path, a name with control characters,
            an image without a patient, or a target that is not 0, 1 or NaN.
    """
    if index.empty:
        raise DataError(f"{source}: there are no images")
    index = index[list(COLUMNS)].sort_values("image", kind="stable", ignore_index=True)
    images = index["image"].astype(str)
    duplicates = images[images.duplicated()].unique().tolist()
    if duplicates:
        raise DataError(f"{source}: {len(duplicates)} images stand in it twice ({name_some(duplicates)}): keep one row")
    outside = [name for name in images if name != PurePosixPath(name).name or "\\" in name or name in {"", ".."}]
    if outside:
        raise DataError(f"{source}: image names must be file names without folders: {name_some(outside)}")
    nameless = images[index["patient"].isna() | (index["patient"].astype(str) == "")].tolist()
    if nameless:
        raise DataError(f"{source}: {len(nameless)} images have no patient: {name_some(nameless)}")
    patients = index["patient"].astype(str)
    odd_names = [name for name in [*images, *patients] if not name.isprintable()]
    if odd_names:
        raise DataError(f"{source}: names of images and patients hold no control characters: {odd_names[0]!r}")
    targets = read_targets(index)
    odd = ~(np.isnan(targets) | (targets == 0) | (targets == 1))
    if odd.any():
        row, column = np.argwhere(odd)[0]
        raise DataError(f"{source}: {LABELS[column]} of {images[row]} is {targets[row, column]}, not 0, 1 or unknown")
    return index


def read_targets(index: pd.DataFrame) -> NDArray[np.float32]:
    """(N, 8) targets of an index: 1 present, 0 absent, NaN unknown."""
    return index[list(LABELS)].to_numpy(dtype=np.float32)


def hash_rows(index: pd.DataFrame) -> list[str]:
    """A short hash of what each row says: image, size of its file, patient, targets. No image is read."""
    columns = [index["image"], index["n_bytes"], index["patient"], *(index[label] for label in LABELS)]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [hashlib.blake2b(repr(row).encode(), digest_size=6).hexdigest() for row in rows]


def hash_index(index: pd.DataFrame) -> str:
    """Hash of what a whole index says."""
    return hash_value(hash_rows(index))
