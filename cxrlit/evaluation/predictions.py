"""Predictions tables: a row per image, with its patient, and a prob and a target of each label.

All evaluation works from them.

| column | what |
| --- | --- |
| image, patient | names; ``source/name`` if the data have several sources |
| view, age, sex | as in the index; a column is present only if known for some image |
| prob_<label> | in [0, 1], of each label in order: raw output of the model |
| calibrated_<label> | written by an evaluation, not read: the prob that is compared with the threshold |
| pred_<label> | written by an evaluation, not read: 1 present, 0 absent, blank without a threshold |
| fold | in the file of out-of-fold predictions, not read: the fold whose model predicts the image |
| target_<label> | 1 present, 0 absent, NaN (a blank cell) unknown |
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from cxrlit.config.data import View
from cxrlit.config.types import Labels
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.files import write_csv
from cxrlit.data.index import read_targets
from cxrlit.data.tables.label_cells import read_marks
from cxrlit.data.tables.open_table import OpenTable, open_table
from cxrlit.data.tables.patient_ids import read_patients, refuse_unseen
from cxrlit.data.tables.person_cells import SEXES, read_ages
from cxrlit.data.tables.read_scores import narrow_probs, read_scores
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.data.tables.validate_cells import check_unique, refuse_cells
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.types import Floats

PROB, TARGET = "prob_", "target_"
"""Prefixes of the columns of a label."""
CALIBRATED, PRED = "calibrated_", "pred_"
"""Prefixes of columns that an evaluation adds, computed from the probs and its operating point."""

PEOPLE = ("view", "age", "sex")


def make_predictions(part: pd.DataFrame, labels: Sequence[str], probs: Floats) -> pd.DataFrame:
    """Make the predictions table of a part.

    Args:
        part: Index rows of the part, with the names of ``name_rows``.
        labels: The labels, in the order of the probs.
        probs: (N, L), in the order of the rows; float64 stays float64.
    """
    people = {column: part[column] for column in PEOPLE if column in part and part[column].notna().any()}
    for column in ("view", "sex"):
        if column in people:
            people[column] = people[column].astype(object).where(people[column].notna(), None)
    if "age" in people:
        people["age"] = people["age"].astype(np.float32)
    named = pd.DataFrame(probs, columns=[f"{PROB}{label}" for label in labels])
    targets = pd.DataFrame(read_targets(part, labels), columns=[f"{TARGET}{label}" for label in labels])
    return pd.concat([part[["image", "patient"]], pd.DataFrame(people, index=part.index), named, targets], axis=1)


def list_labels(predictions: pd.DataFrame) -> list[str]:
    """List the labels of a predictions table, in its order."""
    return [column.removeprefix(PROB) for column in predictions.columns if column.startswith(PROB)]


def write_predictions(path: Path, predictions: pd.DataFrame, point: OperatingPoint | None = None) -> None:
    """Write a predictions table as CSV.

    Probs have all digits, including those of float32: read as float64, they are the same numbers and give the same
    decisions.

    Args:
        path: The file.
        predictions: A predictions table; it may have decisions and further columns.
        point: Operating point, whose calibrated probs and decisions are added as columns.
    """
    labels = list_labels(predictions)
    probs, targets = split_arrays(predictions)
    kinds = {PROB: pd.DataFrame(probs.astype(np.float64))}
    if f"{PRED}{labels[0]}" in predictions:
        kinds[PRED] = predictions[[f"{PRED}{label}" for label in labels]].reset_index(drop=True).astype("Int64")
    if point is not None:
        preds = pd.DataFrame(point.decide(probs)).astype("Int64")
        kinds |= {CALIBRATED: pd.DataFrame(point.calibrate(probs)), PRED: preds}
    kinds[TARGET] = pd.DataFrame(targets).astype("Int64")  # 1 and 0, not 1.0 and 0.0
    named = {f"{kind}{label}" for kind in (PROB, PRED, TARGET) for label in labels}
    people = predictions[[column for column in predictions.columns if column not in named]].reset_index(drop=True)
    if "age" in people:
        people["age"] = [None if np.isnan(age) else f"{age:.9g}" for age in people["age"]]
    tables = [table.set_axis([f"{kind}{label}" for label in labels], axis=1) for kind, table in kinds.items()]
    write_csv(path, pd.concat([people, *tables], axis=1))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a file of ``write_predictions``, bit-exact and checked, since it may have been edited.

    Raises:
        DataError: ``image``, ``patient``, or a ``prob_`` or ``target_`` column of a label is missing; an image has no
            name or occurs twice; or a cell is invalid. The message names the lines.
    """
    with open_table(path) as table:
        return read_open_predictions(table)


def read_open_predictions(opened: OpenTable) -> pd.DataFrame:
    """Read predictions from an open table; raises like ``read_predictions``."""
    path, header = opened.path, opened.header
    labels = [name.removeprefix(PROB) for name in header if name.startswith(PROB)]
    if not labels:
        there = name_some([clip(name) for name in header if name], limit=12)
        raise DataError(f"{path}: no column begins with {PROB}, so it is no predictions table; there are {there}")
    unpaired = {name.removeprefix(TARGET) for name in header if name.startswith(TARGET)} - set(labels)
    if unpaired:
        raise DataError(f"{path}: the column {PROB}{clip(min(unpaired))} is missing")
    check_label_names(labels, path)
    probs, targets = ([f"{kind}{label}" for label in labels] for kind in (PROB, TARGET))
    table = opened.read(("image", "patient", *probs, *targets), PEOPLE)
    table.check_cells()
    cells = table.cells
    part = read_image_names(cells["image"], table).to_frame().assign(patient=read_patients(cells["patient"], table))
    for column, known in (("view", get_args(View)), ("sex", sorted(set(SEXES.values())))):
        if column in cells:
            refuse_cells(~cells[column].isin([*known, ""]), cells[column], f"is none of {', '.join(known)}", table)
            part[column] = cells[column].where(cells[column] != "")
    if "age" in cells:
        part["age"] = read_ages(cells["age"], table)
    marks = read_marks(cells, targets, table)
    part = pd.concat([part, pd.DataFrame(marks, columns=labels)], axis=1)
    return make_predictions(part, labels, narrow_probs(read_scores(table, probs)))


def read_image_names(cells: pd.Series, table: TextTable) -> pd.Series:
    """Read the column ``image``, unchanged.

    Raises:
        DataError: A name is blank, has invisible characters, or occurs twice; the message names the lines.
    """
    refuse_cells(cells == "", cells, "is blank: every row needs the name of its image", table)
    refuse_unseen(cells, table)
    check_unique(cells, table)
    return cells.rename("image")


def check_label_names(labels: Sequence[str], path: Path) -> None:
    """Check that the labels of a file are valid names.

    Raises:
        DataError: A name is invalid.
    """
    try:
        TypeAdapter(Labels).validate_python(list(labels))
    except ValidationError as error:
        fault: Any = error.errors(include_url=False)[0]
        name = f"the label {clip(str(fault['input']))!r}: " if isinstance(fault["input"], str) else ""
        message = fault["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {name}{message[0].lower()}{message[1:]}") from None


def split_arrays(predictions: pd.DataFrame) -> tuple[Floats, NDArray[np.float32]]:
    """Return (N, L) probs, float32 or, if the table has more digits, float64; and (N, L) targets, NaN unknown."""
    labels = list_labels(predictions)
    probs, targets = ([f"{kind}{label}" for label in labels] for kind in (PROB, TARGET))
    return predictions[probs].to_numpy(), predictions[targets].to_numpy(np.float32)
