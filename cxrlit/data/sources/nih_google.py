"""Expert labels for part of NIH ChestX-ray14: radiologists answered four questions about each image.

The images are NIH's, in any layout that ``nih_files.py`` reads. The table has one row per image, with ``YES`` or
``NO`` to each question; the package torchxrayvision contains it, and ``data.table`` names another copy. Its ``Set Id``
is the split: 2,414 images of ``val`` are from NIH's official training part, 1,962 of ``test`` from the test part.

| label | question of the table | outputs that answer it |
| --- | --- | --- |
| Pneumothorax | Pneumothorax | Pneumothorax |
| Nodule/Mass | Nodule or mass | Nodule/Mass, else the larger of Nodule and Mass |
| Lung Opacity | Airspace opacity | Lung Opacity, or Airspace opacity |
| Fracture | Fracture | Fracture |

Infiltration, Consolidation, Pneumonia and others are kinds of airspace opacity, but none covers all of it, so they
answer no question here. torchxrayvision calls the question Lung Opacity.

Source: Majkowska et al., "Chest Radiograph Interpretation with Deep Learning Models: Assessment with
Radiologist-adjudicated Reference Standards and Population-adjusted Evaluation", Radiology 294, 2020.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxrlit.config import NIHGoogleConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import match_findings, simplify_name
from cxrlit.data.image_files import ImageFiles, attach_files, refuse_all
from cxrlit.data.index import check_index
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih import OPTIONAL, read_people
from cxrlit.data.sources.nih_files import locate_images
from cxrlit.data.tables.label_cells import read_marks
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.validate_cells import check_unique, refuse_cells

PACKAGE, TABLE = "torchxrayvision", "data/google2019_nih-chest-xray-labels.csv.gz"

QUESTIONS = {
    "Pneumothorax": "Pneumothorax",
    "Nodule/Mass": "Nodule or mass",
    "Lung Opacity": "Airspace opacity",
    "Fracture": "Fracture",
}
"""The column of each label."""

ANSWERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Pneumothorax": (("Pneumothorax",),),
    "Nodule/Mass": (("Nodule/Mass",), ("Nodule or mass",), ("Nodule", "Mass")),
    "Lung Opacity": (("Lung Opacity",), ("Airspace opacity",)),
    "Fracture": (("Fracture",),),
}
"""Network labels that answer each question; of several alternatives, the first that a network has."""


def find_answers(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Network labels that answer each question, without the questions that the network cannot answer.

    >>> find_answers(["Mass", "Nodule", "Pneumothorax", "Edema"])
    {'Pneumothorax': ('Pneumothorax',), 'Nodule/Mass': ('Nodule', 'Mass')}
    """
    names = {simplify_name(label): label for label in labels}
    found = {}
    for question, ways in ANSWERS.items():
        there = [way for way in ways if all(simplify_name(name) in names for name in way)]
        if there:
            found[question] = tuple(names[simplify_name(name)] for name in there[0])
    return found


def read_nih_google(config: NIHGoogleConfig, files: ImageFiles, labels: Sequence[str]) -> Source:
    """Read the answers, and find the files in NIH's folders.

    Args:
        config: Section of the config; its ``root`` is not None.
        files: The existing image files.
        labels: The labels in use; labels that are no question are unknown.

    Raises:
        ConfigError: The table is missing.
        DataError: The table cannot be read, a cell is invalid, or no image is found.
    """
    path = find_answer_table(config)
    table = read_table(path, ("Image Index", "Patient ID", *QUESTIONS.values(), "Set Id"), OPTIONAL)
    check_unique(table.cells["Image Index"], table)
    people = read_people(table)
    sets = table.cells["Set Id"].str.strip().str.casefold()
    refuse_cells(~sets.isin(["val", "test"]), table.cells["Set Id"], "is none of val, test", table)
    aliases = {label: (column,) for label, column in QUESTIONS.items()}
    meanings = match_findings(labels, QUESTIONS.values(), aliases)
    marks = dict(zip(QUESTIONS.values(), read_marks(table.cells, list(QUESTIONS.values()), table).T, strict=True))
    unknown = np.full(len(people), np.nan, np.float32)
    targets = {label: marks[names[0]] if names else unknown for label, names in meanings.items()}
    places = locate_images(files, people["image"].tolist())
    rows = people.assign(**targets, set=sets)
    index, dropped = attach_files(rows, ([place] if place else [] for place in places), files)
    if index.empty:
        raise refuse_all(f"data.root={config.root}", len(rows), dropped)
    parts = dict(zip(index["image"], index["set"], strict=True))
    index = check_index(index, labels, config.source, str(path))
    return Source(
        name=config.source,
        index=index,
        dropped=dropped,
        official=np.array([parts[image] for image in index["image"]], dtype=object),
        findings=tuple(QUESTIONS),
    )


def find_answer_table(config: NIHGoogleConfig) -> Path:
    """Path of the table: ``data.table``, else the package's file, without importing the package.

    Raises:
        ConfigError: Neither exists.
        DataError: ``data.table`` is no file.
    """
    if config.table is not None:
        if not Path(config.table).is_file():
            raise DataError(f"data.table={config.table}: there is no such file")
        return Path(config.table)
    spec = importlib.util.find_spec(PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / TABLE
    if path is None or not path.is_file():
        raise ConfigError(
            f"data=nih_google needs the table of {PACKAGE}: pip install 'cxrlit[xrv]', or name the table: "
            "data.table=PATH"
        )
    return path
