"""CheXpert, in its published layout.

One folder (``CheXpert-v1.0`` or ``CheXpert-v1.0-small``) contains ``train.csv``, ``valid.csv`` and, if available, the
test set (``test.csv`` or ``test_labels.csv``). Images are in ``train/patientNNNNN/studyN/viewN_frontal.jpg`` and so on.
Copies with ``.png`` images work too. The paths in the tables begin with the name of the release, which is ignored.

Labels of ``train.csv`` were mined from reports: 1, 0, -1 (uncertain) or blank (not mentioned). Radiologists labelled
the images of the other two tables.

Source: Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI
2019; Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence 2022,
for the test set.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import CheXpertConfig
from cxrlit.config.data import MinedConfig
from cxrlit.core.errors import DataError
from cxrlit.core.labels import match_findings
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all, say_endings
from cxrlit.data.index import MAX_AGE, check_index
from cxrlit.data.near_files import vary_ending
from cxrlit.data.sources import Source
from cxrlit.data.tables.label_cells import UNCERTAIN, read_marks
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.text_table import TextTable, clip, find_table
from cxrlit.data.tables.validate_cells import check_unique, settle_uncertain

TRAIN, VALID, TEST = ("train.csv",), ("valid.csv",), ("test.csv", "test_labels.csv")

FINDINGS: tuple[str, ...] = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
"""Findings of CheXpert's labeler. ``Lung Lesion`` is a mass or a nodule, so it is neither Mass nor Nodule, and
``Lung Opacity`` is much broader than Infiltration: those three labels are unknown here."""

MEANINGS = {"Effusion": ("Pleural Effusion",)}
"""Finding of each label, at most one."""

OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA")

IMAGE_PATH = r"([^/]+/)?(train|valid|test)/patient\d+/study\d+/view\d+_(frontal|lateral)\.\w+"


def read_chexpert(config: CheXpertConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the label tables and find the files.

    Papers test on radiologists' labels. So ``valid.csv`` is the official test part if the real test set, published
    years later, is missing; otherwise it is the validation part.

    Args:
        config: Section of the config; its ``root`` is not None.
        files: The existing image files.
        labels: The labels in use.

    Raises:
        DataError: The folder or ``train.csv`` is missing, no image is found, or a row is invalid.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    root = Path(str(config.root))
    tables = {"train": read_labels(find_table(root, TRAIN), labels, config)}
    for part, names in (("valid", VALID), ("test", TEST)):
        if any((root / f"{name}{end}").is_file() for name in names for end in ("", ".gz")):
            tables[part] = read_labels(find_table(root, names), labels, config)
    table = pd.concat(tables.values(), ignore_index=True)
    index, dropped = attach_files(table, map(vary_ending, table["image_path"].tolist()), files)
    if index.empty:
        raise refuse_all(f"data.root={root}", len(table), dropped)
    index = check_index(index, labels, "chexpert", str(root))
    say_endings(index, "chexpert")
    official = None
    if len(tables) > 1:
        images = np.repeat(list(tables), [len(rows) for rows in tables.values()])
        parts = _name_parts(set(tables))
        official = index["image"].map(dict(zip(table["image"].tolist(), (parts[name] for name in images), strict=True)))
    return Source(
        name="chexpert",
        index=index,
        dropped=dropped,
        official=None if official is None else official.to_numpy(dtype=object),
        findings=(*FINDINGS, *MEANINGS),
    )


def _name_parts(tables: set[str]) -> dict[str, str]:
    """The part of each table, which depends on the tables that exist."""
    if "test" not in tables:
        return {"train": "train_val", "valid": "test"}
    return {"train": "train" if "valid" in tables else "train_val", "valid": "val", "test": "test"}


def read_labels(path: Path, labels: Sequence[str], config: CheXpertConfig) -> pd.DataFrame:
    """Read a table into the columns of the index, without those of the files; ``image_path`` is below the root.

    Raises:
        DataError: The table cannot be read, lacks a column, has an invalid row, or has an image twice.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    table = read_table(path, ("Path", *find_label_columns(labels)), OPTIONAL)
    cells = table.cells
    check_unique(cells["Path"], table)
    texts = cells["Path"].tolist()
    pattern = re.compile(IMAGE_PATH)
    odd = [row for row, text in enumerate(texts) if not pattern.fullmatch(text)]
    if odd:
        raise DataError(
            f"{path}, {table.format_lines(odd)}: {clip(texts[odd[0]])!r} is no path of CheXpert's, such as "
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        )
    image_paths = ["/".join(text.split("/")[-4:]) for text in texts]
    images = [file.partition("/")[2].replace("/", "_") for file in image_paths]
    blank = pd.Series("", index=cells.index)
    sex, age, side, view = (cells.get(column, blank) for column in OPTIONAL)
    years = pd.to_numeric(age, errors="coerce")
    is_lateral = (side == "Lateral") | view.isin(["LL", "RL"]) | np.array(["_lateral." in image for image in images])
    return pd.DataFrame(
        {
            "image": images,
            "image_path": image_paths,
            "patient": [image.partition("_")[0] for image in images],
            "study": [image.rpartition("_view")[0] for image in images],
            "view": view.where(view.isin(["PA", "AP"])).mask(is_lateral, "LATERAL"),
            # All patients are adults; three rows have age 0.
            "age": years.where((years > 0) & (years <= MAX_AGE)).astype("float32"),
            "sex": sex.map({"Male": "M", "Female": "F"}),
            **read_mentions(table, labels, config),
        }
    )


def find_label_columns(labels: Sequence[str]) -> list[str]:
    """Columns of CheXpert's labeler that these labels need."""
    meanings = match_findings(labels, FINDINGS, MEANINGS)
    return list(dict.fromkeys(finding for findings in meanings.values() for finding in findings))


def read_mentions(table: TextTable, labels: Sequence[str], config: MinedConfig) -> dict[str, NDArray[np.float32]]:
    """(N,) targets of each label, from the columns of CheXpert's labeler.

    Args:
        table: Table with the columns of ``find_label_columns``.
        labels: The labels in use.
        config: Meaning of uncertain and unmentioned findings.

    Raises:
        DataError: A cell is invalid; the message names the line.
        ConfigError: ``uncertain`` names a label that is not in use.
    """
    columns = find_label_columns(labels)
    marks = dict(zip(columns, read_marks(table.cells, columns, table, uncertain=-1).T, strict=True))
    values = np.full((len(table.cells), len(labels)), np.nan, dtype=np.float32)
    for column, findings in enumerate(match_findings(labels, FINDINGS, MEANINGS).values()):
        for finding in findings:
            values[:, column] = marks[finding]
            if config.unmentioned == "zero":
                values[np.isnan(marks[finding]), column] = 0
    values = settle_uncertain(values, values == UNCERTAIN, labels, config.uncertain)
    return dict(zip(labels, values.T, strict=True))
