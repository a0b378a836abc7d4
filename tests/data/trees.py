"""Small trees of noise in the layout of each data set, with a table that a test may change.

Every writer returns what it wrote as a frame of text, a row a row of the table, and takes ``images=False`` where no
image is needed. The real tables come from the package torchxrayvision, where that is installed.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from cxrlit.config import ConfigSection
from cxrlit.core.labels import LABELS, NO_FINDING
from cxrlit.data.image_files import FoundFile
from cxrlit.data.sources.chexpert import FINDINGS as CHEXPERT_FINDINGS
from cxrlit.data.sources.nih_google import QUESTIONS

SIDE = 32
SectionT = TypeVar("SectionT", bound=ConfigSection)

CHEXPERT_HEAD = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
PADCHEST_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
PADCHEST_TERMS = (
    "normal", "pleural effusion", "laminar atelectasis", "cardiomegaly", "infiltrates", "pulmonary mass", "nodule",
    "pneumonia", "pneumothorax", "scoliosis",
)  # fmt: skip
VINDR_FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
KAGGLE_CLASSES = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis",
)  # fmt: skip


HEADER_V2020 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
HEADER_2017 = HEADER_V2020 + ","


def save_noise(path: Path, seed: int) -> None:
    """A gray image of noise in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_nih_tree(
    root: Path,
    *,
    n_patients: int = 40,
    seed: int = 0,
    form: str = "v2020",
    folders: tuple[str, ...] = ("images_001/images", "images_002/images"),
    lists: bool = True,
) -> Path:
    """Random noise in the layout of NIH ChestX-ray14: 1 to 4 images of 48 x 48 pixels for each patient.

    A fifth of the patients is in the test list. Each label has a prevalence of about a third.
    """
    rng = np.random.default_rng(seed)
    rows, names = [], {True: [], False: []}
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for patient in range(1, n_patients + 1):
        for visit in range(int(rng.integers(1, 5))):
            name = f"{patient:08d}_{visit:03d}.png"
            present = [label for label in LABELS if rng.random() < 1 / 3]
            age = f"{patient:03d}Y" if form == "2017" else f"{patient}"
            row = [name, "|".join(present) or NO_FINDING, visit, patient, age, "FM"[patient % 2], "PA"]
            rows.append(",".join(map(str, [*row, 48, 48, 0.143, 0.143])))
            names[patient % 5 == 0].append(name)
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folders[len(rows) % len(folders)] / name)
    table, header, end = {
        "v2020": ("Data_Entry_2017_v2020.csv", HEADER_V2020, ""),
        "2017": ("Data_Entry_2017.csv", HEADER_2017, ","),
    }[form]
    (root / table).write_text("\n".join([header, *(row + end for row in rows)]) + "\n")
    if lists:
        (root / "train_val_list.txt").write_text("\n".join(names[False]))
        (root / "test_list.txt").write_text("\n".join(names[True]))
    return root


def write_chexpert_tree(
    root: Path,
    *,
    tables: tuple[str, ...] = ("train", "valid"),
    n_patients: int = 12,
    release: str = "CheXpert-v1.0-small",
    images: bool = True,
) -> dict[str, pd.DataFrame]:
    """Two studies for every third patient, two views for every second study."""
    rng = np.random.default_rng(0)
    first = {"train": 1, "valid": 64541, "test": 64741}
    written = {}
    for table in tables:
        rows = []
        for patient in range(first[table], first[table] + n_patients):
            for study in range(1, 3 if patient % 3 == 0 else 2):
                marks = rng.choice(["1.0", "0.0", "-1.0", ""] if table == "train" else ["1.0", "0.0"], 14).tolist()
                for view, side in enumerate(["frontal", "lateral"][: 1 + (patient + study) % 2], start=1):
                    file = f"{table}/patient{patient:05d}/study{study}/view{view}_{side}.jpg"
                    projection = ["AP", "PA"][patient % 2] if side == "frontal" else ""
                    head = (f"{release}/{file}", ["Male", "Female"][patient % 2], str(20 + patient % 70))
                    rows.append((*head, side.capitalize(), projection, *marks))
                    if images:
                        save_noise(root / file, len(rows))
        written[table] = write_rows(root / f"{table}.csv", rows, (*CHEXPERT_HEAD, *CHEXPERT_FINDINGS))
    return written


def write_mimic_tree(
    root: Path,
    *,
    n_patients: int = 12,
    labeler: str = "chexpert",
    suffix: str = ".csv.gz",
    split: bool = True,
    images: bool = True,
) -> dict[str, pd.DataFrame]:
    """One or two studies a patient and two images a study; a tenth of the patients validates, another tests."""
    rng = np.random.default_rng(0)
    metadata, parts, studies = [], [], []
    for number in range(n_patients):
        subject = str(10_000_032 + 700_001 * number % 80_000_000)
        part = {8: "validate", 9: "test"}.get(number % 10, "train")
        for visit in range(1 + number % 2):
            study = str(50_000_000 + 10 * number + visit)
            studies.append((subject, study, *rng.choice(["1.0", "0.0", "-1.0", ""], 14)))
            for view in (["PA", "LATERAL"], ["AP", "LL"])[visit]:
                dicom = "-".join(rng.bytes(4).hex() for _ in range(5))
                metadata.append((dicom, subject, study, view, "2500", "3056"))
                parts.append((dicom, study, subject, part))
                if images:
                    save_noise(root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg", len(metadata))
    name = "mimic-cxr-2.0.0-{}" + suffix
    written = {
        "metadata": write_rows(
            root / name.format("metadata"),
            metadata,
            ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns"),
        ),
        "labels": write_rows(root / name.format(labeler), studies, ("subject_id", "study_id", *CHEXPERT_FINDINGS)),
    }
    if split:
        written["split"] = write_rows(
            root / name.format("split"), parts, ("dicom_id", "study_id", "subject_id", "split")
        )
    return written


def write_padchest_tree(
    root: Path, *, n_patients: int = 12, suffix: str = ".csv", folder: str | None = None, images: bool = True
) -> pd.DataFrame:
    """Two images a patient; ``folder`` is None for the folders 0 to 54, ``images``, or ``.`` for beside the table."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n_patients):
        patient, study = str(10**37 + 7919 * number), str(10**38 + number)
        terms = str(rng.choice(PADCHEST_TERMS, int(rng.integers(1, 4)), replace=False).tolist())
        for letter, projection in (("a", "PA"), ("b", "L")):
            image, archive = f"{study}_{letter}{number}.png", str(number % 3)
            person = (patient, f"{1930 + number}.0", "MF"[number % 2])
            rows.append(
                (
                    str(len(rows)),
                    image,
                    archive,
                    "20140915",
                    study,
                    *person,
                    projection,
                    "a report\nof two lines",
                    terms,
                )
            )
            if images:
                save_noise(root / (archive if folder is None else folder) / image, len(rows))
    columns = (
        "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
        "Projection", "Report", "Labels",
    )  # fmt: skip
    return write_rows(root / f"{PADCHEST_TABLE}{suffix.removeprefix('.csv')}", rows, columns)


def write_vindr_tree(
    root: Path,
    *,
    form: str = "physionet",
    n_images: int = 12,
    suffix: str = ".png",
    save: Callable[[Path, int], None] | None = save_noise,
) -> dict[str, pd.DataFrame]:
    """Three readers a training image; every third image has a test image, PhysioNet's form alone.

    Args:
        root: Folder to write.
        form: ``physionet`` or ``kaggle``.
        n_images: Training images.
        suffix: Of the image files.
        save: Writes an image, given its path and a seed; None: no images.
    """
    rng = np.random.default_rng(0)
    names = [rng.bytes(16).hex() for _ in range(n_images)]
    written = {}
    if form == "kaggle":
        rows = []
        for name in names:
            for reader in ("R8", "R9", "R10"):
                seen = [finding for finding in KAGGLE_CLASSES if rng.random() < 0.4]
                boxes = ["10.0", "20.0", "110.0", "220.0"]
                # Two boxes of one finding by one reader are one opinion.
                opinions = [(name, finding, str(KAGGLE_CLASSES.index(finding)), reader, *boxes) for finding in seen]
                rows += opinions + opinions[:1] if seen else [(name, "No finding", "14", reader, "", "", "", "")]
        columns = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
        written["train"] = write_rows(root / "train.csv", rows, columns)
        files = [f"train/{name}{suffix}" for name in names]
    else:
        tests = [rng.bytes(16).hex() for _ in range(n_images // 3)]
        votes = [(name, reader, *_vote(rng)) for name in names for reader in ("R1", "R2", "R3")]
        folder = root / "annotations"
        header = ("image_id", "rad_id", *VINDR_FINDINGS)
        written["train"] = write_rows(folder / "image_labels_train.csv", votes, header)
        consensus = [(name, *_vote(rng)) for name in tests]
        written["test"] = write_rows(folder / "image_labels_test.csv", consensus, ("image_id", *VINDR_FINDINGS))
        files = [f"train/{name}{suffix}" for name in names] + [f"test/{name}{suffix}" for name in tests]
    if save is not None:
        for seed, file in enumerate(files):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            save(root / file, seed)
    return written


def _vote(rng: np.random.Generator) -> list[str]:
    return [str(int(rng.random() < 0.3)) for _ in VINDR_FINDINGS]


def write_rows(path: Path, rows: Any, columns: tuple[str, ...]) -> pd.DataFrame:
    """Write rows of text as CSV, gzipped by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(columns), dtype=str)
    table.to_csv(path, index=False)
    return table


def write_nih_answers(tree: Path, path: Path) -> pd.DataFrame:
    """Answers for all images of a tree, in the columns of the real table: those of its test list are the test."""
    listed = pd.read_csv(tree / "Data_Entry_2017_v2020.csv", index_col=False)
    tests = set((tree / "test_list.txt").read_text().split())
    rng = np.random.default_rng(5)
    answers = {column: rng.choice(["YES", "NO"], len(listed)) for column in QUESTIONS.values()}
    sets = ["test" if image in tests else "val" for image in listed["Image Index"]]
    table = listed.assign(**answers, **{"Set Id": sets})
    table.to_csv(path, index=False)
    return table


def make_config(schema: type[SectionT], root: Path, **changes: Any) -> SectionT:
    """The values of ``conf/data/source/<source>.yaml`` with a root and with changes."""
    name = str(schema.model_fields["source"].annotation.__args__[0])  # type: ignore[union-attr]
    values: Any = OmegaConf.to_container(
        OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "source" / f"{name}.yaml")
    )
    for key, value in changes.items():
        values[key] = {**values[key], **value} if key == "columns" else value
    return schema.model_validate({**values, "root": str(root)})


class EveryFile:
    """Files of which every one is there."""

    def find(self, file: str) -> FoundFile | str:
        return (f"/every/{file}", len(file), 0)

    def list_folder(self, folder: str) -> list[str]:
        return []

    def locate(self, file: str) -> str:
        return f"/every/{file}"


def find_real_table(name: str) -> Path:
    """A table of the package torchxrayvision; skips the test where that is not installed."""
    package = importlib.util.find_spec("torchxrayvision")  # its import takes seconds, and is not needed
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package torchxrayvision, which has the real tables, is not installed")
    return Path(package.submodule_search_locations[0]) / "data" / name
