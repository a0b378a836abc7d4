"""The embedded data set: synthetic radiographs in NIH ChestX-ray14's layout, so that the NIH reader reads them.

Patients are sampled, not images: follow-ups of a patient share the anatomy and most findings, as in a hospital. So
a split by image is as misleading here as on real data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from cxrlit.core.console import track
from cxrlit.core.cores import count_cores, open_pool
from cxrlit.core.files import replace_folder
from cxrlit.core.labels import LABELS, NO_FINDING
from cxrlit.data.synthetic.anatomy import Anatomy, Exposure, Lesion, sample_anatomy, sample_exposure
from cxrlit.data.synthetic.radiograph import Box, draw_radiograph

SYNTHETIC_VERSION = 1
"""Increases with every change of the drawing; part of the key of everything cached."""

TEST_FRACTION = 0.2
"""Fraction of the patients in the official test list."""

PATIENT_PREVALENCE = {
    "Atelectasis": 0.09,
    "Cardiomegaly": 0.06,
    "Effusion": 0.12,
    "Infiltration": 0.165,
    "Mass": 0.07,
    "Nodule": 0.08,
    "Pneumonia": 0.06,
    "Pneumothorax": 0.06,
}
"""Probability that a patient ever has a finding, before ``COMPANIONS``."""

COMPANIONS = (
    ("Cardiomegaly", "Effusion", 0.20),
    ("Effusion", "Atelectasis", 0.25),
    ("Effusion", "Infiltration", 0.15),
    ("Infiltration", "Pneumonia", 0.08),
    ("Pneumothorax", "Atelectasis", 0.08),
)
"""Cause, companion, and the probability that the cause brings the companion along."""

PERSISTENCE = 0.92
"""Probability that an image shows a finding that its patient has."""

MISSED_BY_PATIENT = 0.02
MISSED_BY_IMAGE = 0.02
INVENTED_BY_PATIENT = 0.0015
INVENTED_BY_IMAGE = 0.0015
"""Label noise of each label: the fraction of visible findings without a label (in all of a patient's reports, or in
one), and the probability that an absent finding is labelled. Labels mined from reports err in both ways."""

MAX_IMAGES = 8
"""Maximum number of images per patient."""

FURTHER_IMAGES_WELL, FURTHER_IMAGES_ILL = 1.8, 3.0
"""Mean number of images beyond the first, before the limit ``MAX_IMAGES``: ill patients have more X-rays."""

PORTABLE_WELL, PORTABLE_ILL = 0.35, 0.45
"""Fraction of images taken at the bedside (AP)."""

BOX_PX = 1024
"""Side of NIH's images, pixels; boxes refer to it, whatever size the images have."""

FIELD_OF_VIEW_MM = 400.0
"""Side of the plate, for the column of pixel spacings."""

TABLE_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOX_NAMES = {"Infiltration": "Infiltrate"}
"""The box list's name of a finding, as in NIH's."""

MAX_THREADS = 4
"""Maximum number of threads: drawing has many short steps, and more threads only wait. ``chest.py`` caches as many."""


@dataclass(frozen=True)
class Visit:
    """One image of a patient: its content, and the labels of its report."""

    follow_up: int
    age: int  # years
    lesions: tuple[Lesion, ...]
    labels: tuple[str, ...]
    exposure: Exposure

    @property
    def view(self) -> str:
        """AP if taken at the bedside, else PA."""
        return "AP" if self.exposure.portable else "PA"


@dataclass(frozen=True)
class Patient:
    """A patient with all images."""

    number: int  # from 1
    female: bool
    anatomy: Anatomy
    visits: tuple[Visit, ...]

    def file_name(self, visit: Visit) -> str:
        """File name of an image in NIH's form."""
        return f"{self.number:08d}_{visit.follow_up:03d}.png"


def write_synthetic(root: Path, *, n_patients: int, seed: int, image_px: int = 256, workers: int | None = None) -> None:
    """Draw the data set into a new folder, in the layout of NIH ChestX-ray14.

    An image depends on ``seed``, its patient, its follow-up number and ``image_px``: the bytes are the same for any
    number of threads, and patient 17 looks the same in a small set as in a large one. The test list also depends on
    ``n_patients``. 1,000 patients take half a minute.

    Args:
        root: Folder to create; it appears only when it is complete.
        n_patients: Number of patients, at least 2, with 1 to ``MAX_IMAGES`` images each.
        seed: Seed of the whole drawing, >= 0.
        image_px: Side of the square images, in pixels.
        workers: Number of drawing threads; None: one per core, at most ``MAX_THREADS``.

    Raises:
        FileExistsError: ``root`` exists.
        ValueError: There are too few patients for a test list and a train_val list.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists; remove it to draw the synthetic data set again")
    if n_patients < 2:
        raise ValueError(f"n_patients={n_patients}: at least 2, one for each list of the official split")
    root.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(root) as folder:
        images = folder / "images_001" / "images"
        images.mkdir(parents=True)
        patients = [sample_patient(seed, number) for number in range(1, n_patients + 1)]
        boxes: dict[str, list[Box | None]] = {}
        cv2.setNumThreads(0)  # parallelism comes from the threads below
        with open_pool(min(workers or count_cores(), MAX_THREADS)) as pool:
            drawn = pool.map(lambda patient: _draw_patient(patient, image_px, images), patients)
            for of_patient in track(drawn, description="Drawing radiographs", total=n_patients):
                boxes |= of_patient
        _write_tables(folder, patients, boxes, seed, image_px)


def sample_patient(seed: int, number: int) -> Patient:
    """Sample anatomy, findings and labels of a patient; every image has its own random generator."""
    rng = np.random.default_rng([seed, number, 0])
    female = bool(rng.random() < 0.45)
    anatomy = sample_anatomy(rng, female=female)
    age = int(np.clip(rng.normal(48, 17), 5, 88))
    has = {label: bool(rng.random() < PATIENT_PREVALENCE[label]) for label in LABELS}
    for cause, companion, probability in COMPANIONS:
        draw = rng.random()
        has[companion] = has[companion] or (has[cause] and draw < probability)
    lesions = [_sample_lesion(rng, label) for label in LABELS if has[label]]
    missed = {label for label in LABELS if rng.random() < MISSED_BY_PATIENT}
    invented = {label for label in LABELS if rng.random() < INVENTED_BY_PATIENT}
    further = FURTHER_IMAGES_ILL if lesions else FURTHER_IMAGES_WELL
    n_images = min(MAX_IMAGES, int(rng.geometric(1 / (1 + further))))

    visits = []
    for follow_up in range(n_images):
        rng = np.random.default_rng([seed, number, 1 + follow_up])
        shown = tuple(_change_lesion(rng, lesion) for lesion in lesions if rng.random() < PERSISTENCE)
        labels = []
        for label in LABELS:
            visible = any(lesion.label == label for lesion in shown)
            is_missed = rng.random() < MISSED_BY_IMAGE or label in missed
            is_invented = rng.random() < INVENTED_BY_IMAGE or label in invented
            if (visible and not is_missed) or (not visible and is_invented):
                labels.append(label)
        exposure = sample_exposure(rng, portable=bool(rng.random() < (PORTABLE_ILL if shown else PORTABLE_WELL)))
        visits.append(Visit(follow_up, age + follow_up // 3, shown, tuple(labels), exposure))
    return Patient(number, female, anatomy, tuple(visits))


def _sample_lesion(rng: np.random.Generator, label: str) -> Lesion:
    """Sample a finding at a typical place: fluid and collapse at the base, others anywhere in the lungs."""
    side = int(rng.choice((-1, 1)))
    if label == "Infiltration" and rng.random() < 0.4:
        side = 0
    return Lesion(
        label=label,
        side=side,
        depth=rng.uniform(0.15, 0.85),
        height=rng.uniform(0.05, 0.5) if label == "Atelectasis" else rng.uniform(0.05, 0.95),
        size=rng.uniform(),
        opacity=rng.uniform(),
        seed=int(rng.integers(2**31)),
    )


def _change_lesion(rng: np.random.Generator, lesion: Lesion) -> Lesion:
    """The finding at another visit: larger or smaller, at the same place."""
    return replace(
        lesion,
        depth=float(np.clip(lesion.depth + rng.normal(0, 0.03), 0.1, 0.9)),
        height=float(np.clip(lesion.height + rng.normal(0, 0.03), 0, 1)),
        size=float(np.clip(lesion.size + rng.normal(0, 0.15), 0, 1)),
        opacity=float(np.clip(lesion.opacity + rng.normal(0, 0.15), 0, 1)),
    )


def _draw_patient(patient: Patient, image_px: int, folder: Path) -> dict[str, list[Box | None]]:
    """Write all images of a patient; return the boxes of each image's findings, by file name."""
    boxes = {}
    for visit in patient.visits:
        name = patient.file_name(visit)
        image, boxes[name] = draw_radiograph(patient.anatomy, visit.lesions, visit.exposure, image_px)
        encoded, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
        if not encoded:
            raise RuntimeError(f"{name}: OpenCV could not encode the image as PNG")
        (folder / name).write_bytes(png.tobytes())
    return boxes


def _write_tables(
    folder: Path, patients: Sequence[Patient], boxes: dict[str, list[Box | None]], seed: int, image_px: int
) -> None:
    """Write label table, official split and boxes."""
    order = np.random.default_rng([seed, 0]).permutation(len(patients))
    n_test = min(max(1, round(TEST_FRACTION * len(patients))), len(patients) - 1)
    test_numbers = {patients[index].number for index in order[:n_test]}

    rows, box_rows = [], []
    names: dict[bool, list[str]] = {True: [], False: []}
    spacing = round(FIELD_OF_VIEW_MM / image_px, 3)
    for patient in patients:
        is_test = patient.number in test_numbers
        for visit in patient.visits:
            name = patient.file_name(visit)
            names[is_test].append(name)
            labels = "|".join(visit.labels) or NO_FINDING
            person = (patient.number, visit.age, "F" if patient.female else "M", visit.view)
            rows.append((name, labels, visit.follow_up, *person, image_px, image_px, spacing, spacing))
            if is_test:
                for lesion, box in zip(visit.lesions, boxes[name], strict=True):
                    if box is not None and lesion.label in visit.labels:
                        label = BOX_NAMES.get(lesion.label, lesion.label)
                        box_rows.append((name, label, *(BOX_PX * side for side in box)))
    _write_csv(folder / "Data_Entry_2017_v2020.csv", TABLE_HEADER, rows)
    _write_csv(folder / "BBox_List_2017.csv", BOX_HEADER, box_rows)
    (folder / "train_val_list.txt").write_text("\n".join(names[False]))
    (folder / "test_list.txt").write_text("\n".join(names[True]))


def _write_csv(path: Path, header: str, rows: Iterable[tuple[object, ...]]) -> None:
    # NIH's headers have unquoted commas inside column names: no CSV writer produces them.
    path.write_text(header + "\n" + pd.DataFrame(rows).to_csv(index=False, header=False, lineterminator="\n"))
