"""PadChest, in its published layout.

One folder contains ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` (or ``.csv.gz``) and the PNG files: in
the folders ``0/`` to ``54/`` of the archives, all in ``images/``, or all beside the table; JPEG copies are found too.

Labels are terms of a hierarchy, and reports have the most specific terms: a label of ours is present if its term or a
descendant is. A label that ``MEANINGS`` does not list means the term of the same name.

Source: Bustos et al., "PadChest: A large chest x-ray image dataset with multi-label annotated reports", Medical Image
Analysis 66, 2020; the hierarchy is its appendix.
"""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.config import PadChestConfig
from cxrlit.core.errors import DataError
from cxrlit.core.labels import match_findings, simplify_name
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all, say_endings
from cxrlit.data.index import MAX_AGE, check_index
from cxrlit.data.near_files import vary_ending
from cxrlit.data.sources import Source
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.patient_ids import refuse_spellings
from cxrlit.data.tables.text_table import TextTable, clip, find_table
from cxrlit.data.tables.validate_cells import check_unique

TABLES = ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",)
NEEDED = ("ImageID", "PatientID", "Labels")
OPTIONAL = ("ImageDir", "StudyID", "StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM", "Projection")

MEANINGS: dict[str, tuple[str, ...]] = {
    "Atelectasis": (
        "atelectasis", "total atelectasis", "lobar atelectasis", "segmental atelectasis", "laminar atelectasis",
        "round atelectasis", "atelectasis basal",
    ),  # not volume loss and hypoexpansion, which are sibling terms
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": (
        "pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax", "empyema",
        "hemothorax",
    ),  # not pericardial effusion, nor costophrenic angle blunting, which may be a scar
    "Infiltration": (
        "infiltrates", "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
        "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern", "consolidation",
        "air bronchogram",
    ),  # not increased density, bronchovascular markings and pulmonary edema, which are sibling terms
    "Mass": ("pulmonary mass",),  # not mediastinal, pleural, breast or soft tissue mass: NIH's Mass is in the lung
    "Nodule": ("nodule", "multiple nodules"),  # not pseudonodule, nipple shadow, granuloma
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    # NIH's other findings whose name is not a term
    "No Finding": ("normal",),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Edema": ("pulmonary edema",),
    "Fibrosis": ("pulmonary fibrosis", "post radiotherapy changes", "asbestosis signs"),
    "Hernia": ("hiatal hernia",),
    "Pleural_Thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
}  # fmt: skip

OPEN_TERMS = ("unchanged", "suboptimal study")
"""Terms that leave unnamed findings unknown: they may persist, or be hidden."""

OPEN_FOR = {"mass": ("mass",)}
"""Terms that leave one label unknown: a mass whose organ the report does not state."""

EXCLUDED = "exclude"
NO_LABELS, NO_PATIENT = "the table has no labels for it", "the table has no patient for it"
SAID_EXCLUDE = "the table says exclude"

VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP", "L": "LATERAL"}
"""``Projection`` also has COSTAL (ribs) and UNK: their view is unknown."""

TERM_LIST = re.compile(r"\[(?:'[^'\\]*'(?:, *'[^'\\]*')*)?\]")
"""The text of a Python list of strings. It is never evaluated."""

MISSING = frozenset({"", "nan", "None"})


def read_padchest(config: PadChestConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the label table and find the files. PadChest has no official split.

    Rows without labels or patient, and rows that the table itself excludes, are dropped.

    Args:
        config: Section of the config; its ``root`` is not None.
        files: The existing image files.
        labels: The labels in use.

    Raises:
        DataError: The folder or the table is missing, no image is found, or a row is invalid.
    """
    root = Path(str(config.root))
    path = find_table(root, TABLES)
    table = read_labels(path, labels)
    usable = table[table["reason"] == ""].drop(columns="reason")
    unusable = table.loc[table["reason"] != "", ["image", "reason"]].assign(path="")
    places = [
        [f"{folder}/{image}", f"images/{image}", image] if folder else [f"images/{image}", image]
        for folder, image in zip(usable["folder"].tolist(), usable["image"].tolist(), strict=True)
    ]
    candidates = (chain.from_iterable(map(vary_ending, names)) for names in places)
    index, absent = attach_files(usable, candidates, files)
    dropped = pd.concat([unusable[["image", "path", "reason"]], absent], ignore_index=True)
    if index.empty:
        raise refuse_all(str(path), len(table), dropped)
    index = check_index(index, labels, "padchest", str(path))
    say_endings(index, "padchest")
    return Source(name="padchest", index=index, dropped=dropped, official=None, findings=tuple(MEANINGS))


def read_labels(path: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Read the label table into the columns of the index, without those of the files.

    Returns:
        These columns, ``folder`` below the root, and ``reason``: why a row cannot be used, or empty.

    Raises:
        DataError: The table cannot be read, lacks a column, has an invalid cell, or has an image twice.
    """
    table = read_table(path, NEEDED, OPTIONAL)
    cells = table.cells
    check_unique(cells["ImageID"], table)
    _check_form(cells["ImageID"], r"[\w-]+\.png", table)
    # A spreadsheet rounds these numbers of up to 39 digits, and so merges patients.
    _check_form(cells["PatientID"].where(~cells["PatientID"].isin(MISSING), "0"), r"\d+", table)
    refuse_spellings(cells["PatientID"], table)
    folder, study, date, birth, sex, projection = (
        cells.get(column, pd.Series("", index=cells.index)) for column in OPTIONAL
    )
    codes, texts = pd.factorize(cells["Labels"])
    terms = [_read_terms(text) for text in texts]
    if None in terms:
        row = int((codes == terms.index(None)).argmax())
        raise DataError(f"{path}, {table.format_lines([row])}: {clip(texts[terms.index(None)])!r} is no list of labels")
    sets = [frozenset(names or ()) for names in terms]
    meanings = match_findings(labels, sorted(set().union(*sets)), MEANINGS)
    targets = {label: np.array([_read_target(names, label, meanings[label]) for names in sets]) for label in labels}
    reason = pd.Series(np.array([_find_reason(names) for names in sets], dtype=object)[codes], index=cells.index)
    reason = reason.mask((reason == "") & (projection == "EXCLUDE"), SAID_EXCLUDE)
    reason = reason.mask((reason == "") & cells["PatientID"].isin(MISSING), NO_PATIENT)
    years = pd.to_numeric(date.str[:4], errors="coerce") - pd.to_numeric(birth, errors="coerce")
    return pd.DataFrame(
        {
            "image": cells["ImageID"],
            "folder": folder.where(folder.str.fullmatch(r"\d+"), ""),
            "patient": join_patients(cells["PatientID"], study),
            "study": study.where(~study.isin(MISSING)),
            "view": projection.map(VIEWS),
            "age": years.where((years >= 0) & (years <= MAX_AGE)).astype("float32"),
            "sex": sex.where(sex.isin(["M", "F"])),
            "reason": reason,
            **{label: values.astype(np.float32)[codes] for label, values in targets.items()},
        }
    )


def join_patients(patients: pd.Series, studies: pd.Series) -> pd.Series:
    """Merge patients that share a study: in one study, an image has another patient id.

    >>> join_patients(pd.Series(["1", "2", "2", "3"]), pd.Series(["a", "a", "b", "c"])).tolist()
    ['1', '1', '1', '3']
    """
    known = ~studies.isin(MISSING) & ~patients.isin(MISSING)
    while True:
        pairs = pd.DataFrame({"study": studies[known], "patient": patients[known]}).drop_duplicates()
        shared = pairs[pairs["study"].duplicated(keep=False)]
        if shared.empty:
            return patients
        first = shared.groupby("study")["patient"].transform("min")
        others = shared["patient"] != first
        patients = patients.replace(dict(zip(shared["patient"][others], first[others], strict=True)))


def _read_terms(text: str) -> frozenset[str] | None:
    """The terms of a cell; None if it is no list of strings."""
    if text in MISSING:
        return frozenset()
    if not TERM_LIST.fullmatch(text):
        return None
    # Some terms begin with a space, and some lists contain an empty term.
    return frozenset(term.strip() for term in re.findall(r"'([^']*)'", text)) - {""}


def _find_reason(names: frozenset[str]) -> str:
    if EXCLUDED in names:
        return SAID_EXCLUDE
    return "" if names else NO_LABELS


def _read_target(names: frozenset[str], label: str, findings: Sequence[str]) -> float:
    """1, 0 or NaN for a label, given the terms of an image."""
    if not findings:
        return np.nan
    if not names.isdisjoint(findings):
        return 1
    return np.nan if not names.isdisjoint((*OPEN_TERMS, *OPEN_FOR.get(simplify_name(label), ()))) else 0


def _check_form(cells: pd.Series, form: str, table: TextTable) -> None:
    odd = ~cells.str.fullmatch(form).to_numpy(dtype=bool)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(
            f"{table.path}, {table.format_lines([row])}: {clip(cells[row])!r} is no {cells.name} of PadChest's"
        )
