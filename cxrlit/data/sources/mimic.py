"""MIMIC-CXR-JPG, in its published layout.

One folder contains ``mimic-cxr-2.0.0-metadata.csv``, ``mimic-cxr-2.0.0-chexpert.csv`` (or ``-negbio.csv``: another
labeler, the same findings) and, for the official split, ``mimic-cxr-2.0.0-split.csv``, each optionally as ``.csv.gz``.
The images are in ``files/p10/p10000032/s50414267/<dicom_id>.jpg``; MIMIC-CXR's own ``.dcm``, and ``.png``, are found
too. Age and sex of the patients are in MIMIC-IV, not here.

Source: Johnson et al., "MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs", arXiv
1901.07042, 2019.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.config import MIMICConfig
from cxrlit.core.errors import DataError
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all, say_endings
from cxrlit.data.index import check_index
from cxrlit.data.near_files import vary_ending
from cxrlit.data.sources import Source
from cxrlit.data.sources.chexpert import FINDINGS, MEANINGS, find_label_columns, read_mentions
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.text_table import TextTable, clip, find_table
from cxrlit.data.tables.validate_cells import check_unique

LABELERS = ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-negbio.csv")
METADATA = ("mimic-cxr-2.0.0-metadata.csv",)
SPLIT = "mimic-cxr-2.0.0-split.csv"
PARTS = {"train": "train", "validate": "val", "test": "test"}
VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL", "LL": "LATERAL"}
"""``ViewPosition`` has a dozen more values with a few images each: their view is unknown."""

ID = r"\d{8}"

NO_LABELS = "its study has no labels"
NOT_IN_SPLIT = f"not in {SPLIT}"


def read_mimic(config: MIMICConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the tables, join the labels of each study to its images, and find the files.

    Images of a study without a row of the labeler are dropped.

    Args:
        config: Section of the config; its ``root`` is not None.
        files: The existing image files.
        labels: The labels in use.

    Raises:
        DataError: The folder or a table is missing, no image is found, or a row is invalid.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    root = Path(str(config.root))
    studies = read_studies(find_table(root, LABELERS), labels, config)
    images = read_metadata(find_table(root, METADATA))
    table = images.merge(studies, on=["patient", "study"], how="left", indicator="joined")
    table["reason"] = np.where(table["joined"] == "both", "", NO_LABELS)
    has_split = any((root / f"{SPLIT}{end}").is_file() for end in ("", ".gz"))
    if has_split:
        table["part"] = table["dicom"].map(read_parts(find_table(root, (SPLIT,))))
        table.loc[(table["reason"] == "") & table["part"].isna(), "reason"] = NOT_IN_SPLIT
    usable = table[table["reason"] == ""].drop(columns="reason")
    unusable = table.loc[table["reason"] != "", ["image", "reason"]].assign(path="")[["image", "path", "reason"]]

    index, absent = attach_files(usable, map(vary_ending, usable["image_path"].tolist()), files)
    dropped = pd.concat([unusable, absent], ignore_index=True)
    if index.empty:
        raise refuse_all(f"data.root={root}", len(table), dropped)
    index = check_index(index, labels, "mimic", str(root))
    say_endings(index, "mimic")
    official = None
    if has_split:
        parts = dict(zip(table["image"].tolist(), table["part"].tolist(), strict=True))
        official = np.array([parts[image] for image in index["image"].tolist()], dtype=object)
    return Source(name="mimic", index=index, dropped=dropped, official=official, findings=(*FINDINGS, *MEANINGS))


def read_studies(path: Path, labels: Sequence[str], config: MIMICConfig) -> pd.DataFrame:
    """The targets of each study: ``patient``, ``study`` and the labels.

    Raises:
        DataError: The table cannot be read, lacks a column, has an invalid cell, or has a study twice.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    table = read_table(path, ("subject_id", "study_id", *find_label_columns(labels)))
    patient, study = (_read_ids(table, column, ID) for column in ("subject_id", "study_id"))
    check_unique(patient + "/" + study, table)
    return pd.DataFrame({"patient": patient, "study": study, **read_mentions(table, labels, config)})


def read_metadata(path: Path) -> pd.DataFrame:
    """Image, patient, study, view and path of each image of the metadata.

    Raises:
        DataError: The table cannot be read, lacks a column, has an invalid id, or has an image twice.
    """
    table = read_table(path, ("dicom_id", "subject_id", "study_id"), ("ViewPosition",))
    cells = table.cells
    check_unique(cells["dicom_id"], table)
    forms = {"dicom_id": r"[0-9a-f-]+", "subject_id": ID, "study_id": ID}
    dicom, subject, study = (_read_ids(table, column, form) for column, form in forms.items())
    view = cells.get("ViewPosition", pd.Series("", index=cells.index))
    return pd.DataFrame(
        {
            "dicom": dicom,
            "image": dicom + ".jpg",
            "image_path": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + dicom + ".jpg",
            "patient": subject,
            "study": study,
            "view": view.map(VIEWS),
        }
    )


def read_parts(path: Path) -> dict[str, str]:
    """The official part of each image, by ``dicom_id``.

    Raises:
        DataError: The table cannot be read, lacks a column, has an unknown part, or has an image twice.
    """
    table = read_table(path, ("dicom_id", "split"))
    cells = table.cells
    check_unique(cells["dicom_id"], table)
    parts = cells["split"].map(PARTS)
    if parts.isna().any():
        row = int(parts.isna().to_numpy().argmax())
        raise DataError(
            f"{path}, {table.format_lines([row])}: the part {clip(cells['split'][row])!r} is none of {', '.join(PARTS)}"
        )
    return dict(zip(cells["dicom_id"].tolist(), parts.tolist(), strict=True))


def _read_ids(table: TextTable, column: str, form: str) -> pd.Series:
    """A column of ids; numbers saved as 10000032.0 become 10000032."""
    cells = table.cells[column].str.replace(r"^(\d+)\.0*$", r"\1", regex=True)
    odd = ~cells.str.fullmatch(form).to_numpy(dtype=bool)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(f"{table.path}, {table.format_lines([row])}: {clip(cells[row])!r} is no {column} of MIMIC's")
    return cells
