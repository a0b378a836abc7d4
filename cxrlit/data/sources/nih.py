"""NIH ChestX-ray14, in its published layout.

One folder contains the label table (``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``; ``sample_labels.csv``
in Kaggle's sample), the images in ``images_001/images`` to ``images_012/images``, in ``images_001`` ... or in a single
``images``, and, for the official split, ``train_val_list.txt`` and ``test_list.txt``; ``nih_files.py`` describes the
layouts of copies. ``BBox_List_2017.csv`` has boxes for some of the test images.

Source: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.core.errors import DataError, name_some
from cxrlit.core.labels import NO_FINDING, match_findings
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all, say_endings
from cxrlit.data.index import MAX_AGE, check_index
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih_files import TEST_LIST, TRAIN_VAL_LIST, locate_images, match_lists, read_official_lists
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.patient_ids import refuse_nobody, refuse_spellings, refuse_unseen, spell_numbers
from cxrlit.data.tables.text_table import TextTable, clip, find_table
from cxrlit.data.tables.validate_cells import check_unique

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
BOX_LIST = "BBox_List_2017.csv"
NEEDED = ("Image Index", "Finding Labels", "Patient ID")
OPTIONAL = ("Patient Age", "Patient Gender", "View Position")

FINDINGS: tuple[str, ...] = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
"""The findings of the table."""


MEANINGS = {"Infiltrate": ("Infiltration",)}
"""The box list's name of a finding, and the label table's."""


def read_nih(root: Path, files: ImageFiles, labels: Sequence[str], name: str = "nih") -> Source:
    """Read the label table, find the files, and read the official lists if they exist.

    Args:
        root: The data set's folder.
        files: The existing image files.
        labels: The labels in use.
        name: Name of the data set.

    Raises:
        DataError: The folder or the table is missing, no image is found, a column is missing, a finding is unknown, an
            image is in the table twice, or only one of the official lists exists.
    """
    path = find_table(root, TABLES)
    table = read_labels(path, labels)
    places = locate_images(files, table["image"].tolist())
    if not any(places):
        image = clip(table["image"].iloc[0])
        raise DataError(
            f"data.root={root}: none of the table's {len(table)} images, such as {image}, is in images_001/images ..., "
            "images/ or another folder there"
        )
    index, dropped = attach_files(table, ([place] if place else [] for place in places), files)
    if index.empty:
        raise refuse_all(str(path), len(table), dropped)
    index = check_index(index, labels, name, str(path))
    say_endings(index, name)

    lists = read_official_lists(root)
    official = None
    if lists is not None:
        listed = match_lists(index["image"], lists, root)
        unlisted = index.loc[listed.isna(), ["image", "path"]]
        dropped = pd.concat([dropped, unlisted.assign(reason=f"neither in {TRAIN_VAL_LIST} nor in {TEST_LIST}")])
        index = index[listed.notna()].reset_index(drop=True)
        official = listed.dropna().to_numpy(dtype=object)
    return Source(
        name=name,
        index=index,
        dropped=dropped.reset_index(drop=True),
        official=official,
        findings=(*FINDINGS, NO_FINDING),
    )


def read_labels(path: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Read the label table into the columns of the index, without those of the files.

    The header's unquoted commas (``OriginalImage[Width,Height]``) split its last two names into four, as in the
    rows; the 2017 form has one more comma at the end of each line.

    Raises:
        DataError: The table cannot be read, lacks a column, has an unknown finding, has an image twice, or has an
            unnamed patient or two spellings of one.
    """
    table = read_table(path, NEEDED, OPTIONAL)
    cells = table.cells
    check_unique(cells["Image Index"], table)
    findings = cells["Finding Labels"]
    codes, texts = pd.factorize(findings)
    sets = [frozenset(text.split("|")) for text in texts]
    known = {*FINDINGS, NO_FINDING}
    for code, names in enumerate(sets):
        if names - known:
            row = int((codes == code).argmax())
            raise DataError(
                f"{path}, {table.format_lines([row])}: unknown finding {name_some(sorted(names - known))!r}; "
                f"the table's findings are {', '.join(sorted(known))}"
            )
    meanings = match_findings(labels, known, MEANINGS)
    present = [[float(not names.isdisjoint(meanings[label])) for label in labels] for names in sets]
    targets = np.array(present, dtype=np.float32)
    targets[:, [not meanings[label] for label in labels]] = np.nan
    return read_people(table).assign(**dict(zip(labels, targets[codes].T, strict=True)))


def read_people(table: TextTable) -> pd.DataFrame:
    """``image``, ``patient``, ``age``, ``sex`` and ``view`` of a table with NIH's columns.

    Raises:
        DataError: A patient is unnamed, or spelled in two ways.
    """
    cells = table.cells
    optional = {name: cells[name] if name in cells else pd.Series("", index=cells.index) for name in OPTIONAL}
    refuse_nobody(cells["Patient ID"], table)
    refuse_unseen(cells["Patient ID"], table)
    patients = spell_numbers(cells["Patient ID"])
    refuse_spellings(patients, table)
    return pd.DataFrame(
        {
            "image": cells["Image Index"],
            "patient": patients,
            "age": _read_age(optional["Patient Age"]),
            "sex": optional["Patient Gender"].where(optional["Patient Gender"].isin(["M", "F"])),
            "view": optional["View Position"].where(optional["View Position"].isin(["PA", "AP"])),
        }
    )


def read_boxes(path: Path) -> pd.DataFrame:
    """The boxes of ``BBox_List_2017.csv``, in the pixels of the 1024 x 1024 images.

    Returns:
        One row per box: ``image``, ``label`` (``Infiltrate`` is Infiltration), ``x``, ``y``, ``width``, ``height``
        (float64, pixels).

    Raises:
        DataError: The file cannot be read, or a box is not four numbers inside the image.
    """
    columns = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
    table = read_table(path, columns)
    cells = table.cells
    numbers = cells[list(columns[2:])].apply(pd.to_numeric, errors="coerce")
    x, y, width, height = (numbers[column].to_numpy(np.float64) for column in columns[2:])
    inside = (x >= 0) & (y >= 0) & (width > 0) & (height > 0) & (x + width <= BOX_PX) & (y + height <= BOX_PX)
    if not inside.all():
        row = int((~inside).argmax())
        raise DataError(f"{path}, {table.format_lines([row])}: not a box inside {BOX_PX} x {BOX_PX} pixels")
    label = cells["Finding Label"].replace({alias: names[0] for alias, names in MEANINGS.items()})
    return pd.DataFrame(
        {"image": cells["Image Index"], "label": label, "x": x, "y": y, "width": width, "height": height}
    )


BOX_PX = 1024
"""Side of the images that the boxes refer to, pixels."""


def _read_age(text: pd.Series) -> pd.Series:
    """Years from ``58``, ``058Y``, ``011M`` or ``003D``; missing for other text and above 120.

    The table has a few ages such as 411, which are data entry errors.
    """
    codes, texts = pd.factorize(text)
    parts = pd.Series(texts).str.extract(r"^\s*(\d+)\s*([YMD]?)\s*$")
    years = pd.to_numeric(parts[0]) / parts[1].map({"Y": 1, "M": 12, "D": 365.25}).fillna(1)
    return pd.Series(years.where(years <= MAX_AGE).to_numpy(np.float32)[codes], index=text.index)
