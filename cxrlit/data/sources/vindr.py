"""VinDr-CXR in its published layouts, from PhysioNet or Kaggle.

| from | tables | images |
| --- | --- | --- |
| PhysioNet | ``annotations/image_labels_train.csv``: a row per image and reader; ``annotations/image_labels_test.csv``: a row per image | ``train/<id>.dicom``, ``test/<id>.dicom`` |
| Kaggle | ``train.csv``: a row per box, or per ``No finding`` of a reader | ``train/<id>.dicom`` |

Converted images are found too: ``.dcm``, ``.png``, ``.jpg`` and ``.jpeg``. Kaggle's own test images have no labels.

Three readers read each training image independently; ``data.agreement`` sets how many of them make a finding. The
test labels are the consensus of five. "Nodule/Mass" is a single finding, so Nodule and Mass alone are unknown here. All
images are PA views, and there are no patient ids.

Source: Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations", Scientific Data 9,
2022.
"""  # noqa: E501

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import VinDrConfig
from cxrlit.core.errors import DataError
from cxrlit.core.labels import match_findings
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all
from cxrlit.data.index import check_index
from cxrlit.data.sources import Source
from cxrlit.data.tables.label_cells import read_marks
from cxrlit.data.tables.open_table import open_table, read_table
from cxrlit.data.tables.text_table import TextTable, clip, find_table
from cxrlit.data.tables.validate_cells import check_unique, refuse_cells

PHYSIONET_TRAIN, PHYSIONET_TEST = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv"
KAGGLE_TRAIN = "train.csv"
SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")

KAGGLE_FINDINGS: tuple[str, ...] = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "No finding",
)  # fmt: skip

MEANINGS = {"Effusion": ("Pleural effusion",), "Fibrosis": ("Pulmonary fibrosis",)}


def read_vindr(config: VinDrConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the tables of either layout, count the readers' votes, and find the files.

    PhysioNet's layout has an official test part; Kaggle's has none.

    Args:
        config: Section of the config; its ``root`` is not None.
        files: The existing image files.
        labels: The labels in use.

    Raises:
        DataError: ``patient`` is not ``image``, the folder, the table or every image is missing, or a row is
            invalid.
    """
    if config.patient != "image":
        raise DataError(
            "VinDr-CXR does not say which images are of the same patient, so no split of it can keep patients apart: "
            "say data.patient=image to take every image for a patient of its own"
        )
    root = Path(str(config.root))
    path = find_table(root, (PHYSIONET_TRAIN, KAGGLE_TRAIN))
    if path.name.startswith(KAGGLE_TRAIN):
        table, has_test = read_kaggle(path, labels, config).assign(part="train"), False
    else:
        train = read_physionet(path, labels, config).assign(part="train")
        has_test = any((root / f"{PHYSIONET_TEST}{end}").is_file() for end in ("", ".gz"))
        tests = (
            [read_physionet(find_table(root, (PHYSIONET_TEST,)), labels, config).assign(part="test")]
            if has_test
            else []
        )
        table = pd.concat([train, *tests], ignore_index=True)
    table["image"] = table["patient"] + SUFFIXES[0]
    stems = (table["part"] + "/" + table["patient"]).tolist()
    index, dropped = attach_files(table, ([f"{stem}{suffix}" for suffix in SUFFIXES] for stem in stems), files)
    if index.empty:
        raise refuse_all(f"data.root={root}", len(table), dropped)
    index["image"] = index["file"].str.rpartition("/")[2]
    parts = dict(zip(index["image"].tolist(), index["part"].tolist(), strict=True))
    index = check_index(index.assign(view="PA"), labels, "vindr", str(root))
    official = None
    if has_test:
        names = {"train": "train_val", "test": "test"}
        official = np.array([names[parts[image]] for image in index["image"].tolist()], dtype=object)
    return Source(name="vindr", index=index, dropped=dropped, official=official, findings=(*KAGGLE_FINDINGS, *MEANINGS))


def read_physionet(path: Path, labels: Sequence[str], config: VinDrConfig) -> pd.DataFrame:
    """Read one of PhysioNet's tables: ``patient`` (the image's id) and the labels, one row per image.

    Raises:
        DataError: The table cannot be read, a cell is not 0 or 1, or a reader has two rows for an image.
    """
    with open_table(path) as opened:
        known = [name for name in opened.header if name not in {"image_id", "rad_id"}]
        aliases = {label: names for label, names in MEANINGS.items() if names[0] in known}
        meanings = match_findings(labels, known, aliases)
        columns = list(dict.fromkeys(finding for findings in meanings.values() for finding in findings))
        table = opened.read(("image_id", *columns), ("rad_id",))
    cells = table.cells
    _check_ids(cells["image_id"], table)
    check_unique(cells["image_id"] + " of " + cells["rad_id"] if "rad_id" in cells else cells["image_id"], table)
    marks = dict(zip(columns, read_marks(cells, columns, table).T, strict=True))
    for finding in columns:
        refuse_cells(np.isnan(marks[finding]), cells[finding], "is no vote of a reader: write 1 or 0", table)
    codes, images = pd.factorize(cells["image_id"])
    votes = {finding: np.bincount(codes, weights=marks[finding]) for finding in columns}
    return settle_votes(images, np.bincount(codes), votes, meanings, config)


def read_kaggle(path: Path, labels: Sequence[str], config: VinDrConfig) -> pd.DataFrame:
    """Read Kaggle's table: ``patient`` (the image's id) and the labels, one row per image.

    Raises:
        DataError: The table cannot be read, or a finding is unknown.
    """
    table = read_table(path, ("image_id", "class_name", "rad_id"))
    cells = table.cells
    _check_ids(cells["image_id"], table)
    unknown = ~cells["class_name"].isin(KAGGLE_FINDINGS).to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        raise DataError(
            f"{path}, {table.format_lines([row])}: unknown finding {clip(cells['class_name'][row])!r}; "
            f"the table's findings are {', '.join(KAGGLE_FINDINGS)}"
        )
    meanings = match_findings(labels, KAGGLE_FINDINGS, MEANINGS)
    codes, images = pd.factorize(cells["image_id"])
    opinions = cells.assign(code=codes).drop_duplicates(["code", "rad_id", "class_name"])
    readers = opinions.drop_duplicates(["code", "rad_id"])
    votes = {
        finding: np.bincount(opinions.loc[opinions["class_name"] == finding, "code"], minlength=len(images))
        for finding in KAGGLE_FINDINGS
    }
    return settle_votes(images, np.bincount(readers["code"]), votes, meanings, config)


def settle_votes(
    images: pd.Index,
    n_readers: NDArray[Any],
    votes: Mapping[str, NDArray[Any]],
    meanings: Mapping[str, Sequence[str]],
    config: VinDrConfig,
) -> pd.DataFrame:
    """The targets of each image: ``patient`` (the image's id) and the labels.

    Args:
        images: Ids of the N images.
        n_readers: (N,) number of readers of each image.
        votes: (N,) number of readers who saw each finding.
        meanings: The finding of each label; empty for none.
        config: Number of votes that make a finding.
    """
    needed = {"any": np.ones_like(n_readers), "majority": n_readers // 2 + 1, "all": n_readers}[config.agreement]
    targets = {
        label: (votes[findings[0]] >= needed).astype(np.float32) if findings else np.float32(np.nan)
        for label, findings in meanings.items()
    }
    return pd.DataFrame({"patient": images, **targets})


def _check_ids(ids: pd.Series, table: TextTable) -> None:
    odd = ~ids.str.fullmatch(r"[\w-]+").to_numpy(dtype=bool)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(f"{table.path}, {table.format_lines([row])}: {clip(ids[row])!r} is no image_id of VinDr-CXR's")
