"""Read predictions of any program, and targets of their images, from tables. ``join.py`` joins the two."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.config.evaluate import PredictionsConfig
from cxrlit.core.errors import ConfigError, DataError, format_count, name_some
from cxrlit.data.dataset import SplitData
from cxrlit.data.index import read_targets
from cxrlit.data.tables.label_cells import UNCERTAIN, read_marks
from cxrlit.data.tables.open_table import OpenTable, open_table
from cxrlit.data.tables.patient_ids import read_patients
from cxrlit.data.tables.person_cells import SEXES, VIEWS, read_ages, read_names, read_parts
from cxrlit.data.tables.read_scores import read_scores
from cxrlit.data.tables.text_table import TextTable, clip
from cxrlit.evaluation.predictions import PEOPLE, read_image_names, split_arrays
from cxrlit.evaluation.third_party.columns import find_labels, find_roles
from cxrlit.evaluation.third_party.join import JoinedPredictions, Truth, join_predictions


def read_foreign(predictions: Path, labels: Path | SplitData | None, config: PredictionsConfig) -> JoinedPredictions:
    """Read predictions of any program.

    Args:
        predictions: CSV, TSV or Parquet, a row per image. A table of cxrlit needs no settings.
        labels: A table of targets, patients and the split, or a data source; None: the predictions have all of these.
        config: Names of columns, and the kind of scores.

    Raises:
        DataError: A table cannot be read, a cell is invalid, an image occurs twice in a table or is not predicted, or
            patients or targets are missing. The message names rows, images or labels.
        LeakageError: A patient is in two parts.
        ConfigError: The config contradicts itself or the tables.
    """
    truth_path = labels if isinstance(labels, Path) else None
    with ExitStack() as stack:
        paths = dict.fromkeys(path for path in (predictions, truth_path) if path is not None)
        opened = {path: stack.enter_context(open_table(path)) for path in paths}
        headers = {path: table.header for path, table in opened.items()}
        roles = find_roles(headers, config.columns)
        others = {path: [name for name in headers[path] if name not in roles[path].values()] for path in paths}
        of_source = labels.labels if isinstance(labels, SplitData) else ()
        names = of_source if truth_path is None else others[truth_path]
        found = find_labels(predictions, others[predictions], truth_path, names, config.columns)
        _check_patients(headers, roles, labels, config)
        notes = list(found.notes)
        own_targets, true_targets = ({}, found.targets) if found.in_labels else (found.targets, {})
        scores, same = list(found.scores.values()), truth_path == predictions
        targets = found.targets if same else own_targets
        table = _read_cells(opened[predictions], [*roles[predictions].values(), *scores, *targets.values()])
        own = _read_people(table, roles[predictions], notes)
        with _explain(found.is_told):
            probs = read_scores(table, scores, config.scores)
            own = own.join(_read_marks(table, own_targets, notes))
        truth = None
        if isinstance(labels, SplitData):
            truth = _take_facts(labels, true_targets)
        elif truth_path is not None:
            if not same:
                table = _read_cells(opened[truth_path], [*roles[truth_path].values(), *true_targets.values()])
            people = _read_people(table, roles[truth_path], notes)
            with _explain(found.is_told):
                people = people.join(_read_marks(table, true_targets, notes))
            truth = Truth(str(truth_path), people.set_index("image"))
    own_facts = Truth(str(predictions), own.set_index("image"))
    joined = join_predictions(own_facts, probs, list(found.scores), truth, config)
    if not found.is_told:
        _check_not_targets(joined, list(found.scores), predictions)
    return replace(joined, notes=[*notes, *joined.notes])


@contextmanager
def _explain(is_told: bool) -> Iterator[None]:
    """Add a remedy to an error in a column that both tables have and that may not be a label."""
    try:
        yield
    except DataError as error:
        if is_told:
            raise
        raise DataError(f"{error}; if the column is no label, name those of the labels with columns.probs") from None


def _check_patients(
    headers: Mapping[Path, Sequence[str]],
    roles: Mapping[Path, Mapping[str, str]],
    labels: Path | SplitData | None,
    config: PredictionsConfig,
) -> None:
    """Check that either the tables or ``patient=image`` identify the patients, and not both."""
    sayers = [str(path) for path in roles if "patient" in roles[path]]
    if isinstance(labels, SplitData):
        sayers.append(labels.name)
    if sayers and config.patient is not None:
        raise ConfigError(f"patient=image, and {sayers[0]} says who the patients are: drop one of them")
    if not sayers and config.patient is None:
        path, header = list(headers.items())[-1]
        there = name_some([clip(name) for name in header if name], limit=12)
        raise DataError(
            f"{path}: no column says which images are of the same patient, so nothing can keep patients apart: name it "
            f"with columns.patient (the columns are {there}), or say patient=image to take every image for a patient "
            "of its own"
        )


def _read_cells(table: OpenTable, columns: Sequence[str]) -> TextTable:
    cells = table.read(columns)
    cells.check_cells()
    return cells


def _read_people(table: TextTable, roles: Mapping[str, str], notes: list[str]) -> pd.DataFrame:
    """Read ``image``, and the patient, split, view, age and sex that the table has."""
    people = read_image_names(table.cells[roles["image"]], table).to_frame()
    if "patient" in roles:
        people["patient"] = read_patients(table.cells[roles["patient"]], table)
    if "split" in roles:  # never take validation images from another program's training part
        parts = read_parts(table.cells[roles["split"]], table)
        people["split"] = ["train" if part == "train_val" else part for part in parts]
    for role, known in (("view", VIEWS), ("sex", SEXES)):
        if role in roles:
            cells = table.cells[roles[role]]
            people[role] = read_names(cells, known, table.path)
            n_unknown = int((people[role].isna() & (cells != "")).sum())
            if n_unknown:
                are = "is" if n_unknown == 1 else "are"
                odd = f"{format_count(n_unknown, 'cell')} of {clip(roles[role])} {are} not understood"
                notes.append(f"{table.path}: {odd}: {role} unknown")
    if "age" in roles:
        people["age"] = read_ages(table.cells[roles["age"]], table)
    return people


def _read_marks(table: TextTable, columns: Mapping[str, str], notes: list[str]) -> pd.DataFrame:
    """Read the targets of each label by ``read_marks``; -1 is uncertain.

    Raises:
        DataError: A cell is invalid, or a label has only 1 and -1, so that -1 may mean absent or uncertain.
    """
    values = read_marks(table.cells, list(columns.values()), table, uncertain=-1)
    n_uncertain = np.count_nonzero(values == UNCERTAIN)
    targets = format_count(int(n_uncertain), "target is", "targets are")
    if n_uncertain and not (values == 0).any():
        raise DataError(f"{table.path}: {targets} -1 and none is 0: if -1 means absent, write 0")
    if n_uncertain:
        notes.append(f"{table.path}: {targets} -1, which is uncertain: taken for unknown")
    values[values == UNCERTAIN] = np.nan
    return pd.DataFrame(values, columns=list(columns), index=table.cells.index)


def _take_facts(data: SplitData, targets: Mapping[str, str]) -> Truth:
    """Make the truth from a data source."""
    people = data.name_rows(data.index)[["image", "patient", *PEOPLE]].assign(split=data.split["split"].to_numpy())
    marks = pd.DataFrame(read_targets(data.index, list(targets.values())), columns=list(targets))
    unused = data.name_rows(pd.concat([data.dropped, data.excluded]))
    reasons = dict(zip(unused["image"], unused["reason"], strict=True))
    return Truth(data.name, people.dropna(axis=1, how="all").join(marks).set_index("image"), reasons)


def _check_not_targets(joined: JoinedPredictions, labels: Sequence[str], path: Path) -> None:
    """Check that scores are not the targets themselves, if two tables have the same column names.

    Raises:
        DataError: They are the targets.
    """
    pairs = [split_arrays(part) for part in joined.parts.values()]
    probs, targets = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    for column, label in enumerate(labels):
        known = ~np.isnan(targets[:, column])
        if len(np.unique(targets[known, column])) == 2 and (probs == targets)[known, column].all():
            raise DataError(
                f"{path}: the scores of {clip(label)} are its targets: name the columns of scores with columns.probs"
            )
