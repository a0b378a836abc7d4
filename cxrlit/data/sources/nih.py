"""NIH ChestX-ray14 as its users have it on disk.

One folder with the label table (``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``), the images in
``images_001/images`` to ``images_012/images``, in ``images_001`` ... or in one ``images``, and, for the official
split, ``train_val_list.txt`` and ``test_list.txt``.

Source: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017.
"""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.data.index import check_index
from cxrlit.data.sources import Source
from cxrlit.errors import DataError, first_line, name_some
from cxrlit.labels import LABELS, NIH_NO_FINDING, NIH_OTHER_FINDINGS

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN_VAL_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
NEEDED = ("Image Index", "Finding Labels", "Patient ID")
OPTIONAL = ("Patient Age", "Patient Gender", "View Position")


def read_nih(root: Path, name: str = "nih") -> Source:
    """Read the label table, find the files, and read the official lists where they are there.

    Args:
        root: The data set's folder.
        name: What to call it.

    Raises:
        DataError: There is no such folder, no table, no image, a column is missing, a finding is unknown, an
            image stands in the table twice, or only one of the official lists is there.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder")
    table_path = next((root / table for table in TABLES if (root / table).is_file()), None)
    if table_path is None:
        raise DataError(f"data.root={root}: there is no label table in it ({' or '.join(TABLES)})")
    table = read_table(table_path)
    files, unreadable = find_images(root)
    if not files and not unreadable:
        raise DataError(f"data.root={root}: there are no PNG images in images_001/images ... or images/")

    found = table["image"].isin(files.keys())
    absent = table.loc[~found, "image"]
    dropped = pd.DataFrame(
        {"image": absent, "path": "", "reason": [unreadable.get(image, "not on disk") for image in absent]}
    )
    index = table[found].copy()
    if index.empty:
        raise DataError(f"{table_path}: none of its {len(table)} images is among the {len(files)} files in {root}")
    index["path"] = [files[image][0] for image in index["image"]]
    index["n_bytes"] = [files[image][1] for image in index["image"]]
    index = check_index(index, str(table_path))

    lists = read_official_lists(root)
    official = None
    if lists is not None:
        listed = index["image"].map(lists)
        unlisted = index.loc[listed.isna(), ["image", "path"]]
        dropped = pd.concat([dropped, unlisted.assign(reason=f"neither in {TRAIN_VAL_LIST} nor in {TEST_LIST}")])
        index = index[listed.notna()].reset_index(drop=True)
        official = listed.dropna().to_numpy(dtype=object)
    return Source(name=name, index=index, dropped=dropped.reset_index(drop=True), official=official)


def read_table(path: Path) -> pd.DataFrame:
    """The label table with the index's columns, but for those of the files.

    The header's unquoted commas (``OriginalImage[Width,Height]``) split its last two names into four, as the
    rows have it; the 2017 form has a comma more at each line's end.

    Raises:
        DataError: It cannot be read, a column is missing, a finding is unknown, or an image stands in it twice.
    """
    try:
        table = pd.read_csv(
            path,
            dtype=str,
            index_col=False,
            usecols=lambda column: column in {*NEEDED, *OPTIONAL},
            encoding="utf-8-sig",
            keep_default_na=False,
        )
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: it cannot be read as a CSV table: {first_line(error)}") from None
    absent = [column for column in NEEDED if column not in table]
    if absent:
        raise DataError(f"{path}: the column {name_some(absent)} is missing; NIH's own table has it")
    if table.empty:
        raise DataError(f"{path}: the table has no rows")
    findings = table["Finding Labels"]
    duplicates = table.loc[table["Image Index"].duplicated(), "Image Index"].unique().tolist()
    if duplicates:
        raise DataError(f"{path}: {len(duplicates)} images stand in it twice ({name_some(duplicates)}): keep one row")

    sets = {text: frozenset(text.split("|")) for text in findings.unique()}
    known = {*LABELS, *NIH_OTHER_FINDINGS, NIH_NO_FINDING}
    for text, names in sets.items():
        if names - known:
            row = int((findings == text).to_numpy().argmax())
            raise DataError(
                f"{path}, line {row + 2}: unknown finding {name_some(sorted(names - known))!r}; "
                f"the table's findings are {', '.join(sorted(known))}"
            )
    columns = {
        label: findings.map({text: np.float32(label in names) for text, names in sets.items()}) for label in LABELS
    }
    optional = {name: table[name] if name in table else pd.Series("", index=table.index) for name in OPTIONAL}
    return pd.DataFrame(
        {
            "image": table["Image Index"],
            "patient": table["Patient ID"].str.strip().str.replace(r"^0+(?=\d)", "", regex=True),
            **columns,
            "age": _read_age(optional["Patient Age"]),
            "sex": optional["Patient Gender"].where(optional["Patient Gender"].isin(["M", "F"])),
            "view": optional["View Position"].where(optional["View Position"].isin(["PA", "AP"])),
        }
    )


def find_images(root: Path) -> tuple[dict[str, tuple[str, int]], dict[str, str]]:
    """Every PNG in the folders where NIH's archives put them.

    Returns:
        Path and size by file name, and the reason by file name for those that cannot be read. These leave the index,
        and with it the split's and the phases' hashes: once they can be read, nothing made without them is reused.

    Raises:
        DataError: Two folders hold a file of the same name.
    """
    folders = [root / "images", *sorted(root.glob("images_[0-9][0-9][0-9]"))]
    folders = [inner for folder in folders for inner in (folder, folder / "images") if inner.is_dir()]
    files: dict[str, tuple[str, int]] = {}
    unreadable: dict[str, str] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.lower().endswith(".png"):
                    continue
                try:
                    status = entry.stat()
                except OSError as error:  # a link that leads nowhere
                    unreadable[entry.name] = f"cannot be read: {error.strerror}"
                    continue
                if not stat.S_ISREG(status.st_mode):
                    unreadable[entry.name] = "not a file"
                    continue
                if not os.access(entry.path, os.R_OK):
                    unreadable[entry.name] = "cannot be read: Permission denied"
                    continue
                if entry.name in files:
                    raise DataError(f"{entry.path} and {files[entry.name][0]} have the same name: keep one of them")
                files[entry.name] = (os.path.abspath(entry.path), status.st_size)
    return files, unreadable


def read_official_lists(root: Path) -> dict[str, str] | None:
    """``train_val`` or ``test`` by image name; None where neither list is there.

    Raises:
        DataError: Only one of the two lists is there, one cannot be read, or an image stands in both.
    """
    paths = {"train_val": root / TRAIN_VAL_LIST, "test": root / TEST_LIST}
    there = [path.name for path in paths.values() if path.is_file()]
    if not there:
        return None
    if len(there) == 1:
        other = TEST_LIST if there[0] == TRAIN_VAL_LIST else TRAIN_VAL_LIST
        raise DataError(
            f"{root}: {there[0]} is there and {other} is not: add it, or remove both for a split of our own"
        )
    try:
        names = {part: path.read_text(encoding="utf-8-sig").split() for part, path in paths.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{root}: an official list cannot be read as text: {error}") from None
    both = sorted(set(names["train_val"]) & set(names["test"]))
    if both:
        raise DataError(f"{root}: {len(both)} images stand in both official lists: {name_some(both)}")
    return {image: part for part, images in names.items() for image in images}


def _read_age(text: pd.Series) -> pd.Series:
    """Years from ``58``, ``058Y``, ``011M`` or ``003D``; missing where it is none of these or above 120.

    The table has a few ages such as 411, which are errors of entry.
    """
    parts = text.str.extract(r"^\s*(\d+)\s*([YMD]?)\s*$")
    years = pd.to_numeric(parts[0]) / parts[1].map({"Y": 1, "M": 12, "D": 365.25}).fillna(1)
    return years.where(years <= 120).astype("float32")
