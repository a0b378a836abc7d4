"""Read one side of a comparison: a phase folder, an evaluation, or a file of predictions."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.command_line import format_command
from cxrlit.core.errors import CheckpointError, DataError, first_line, format_count, name_some
from cxrlit.data.tables.open_table import open_table
from cxrlit.data.tables.patient_ids import list_people_keys
from cxrlit.evaluation.predictions import PROB, TARGET, list_labels, read_open_predictions, split_arrays
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.checkpoint import read_checkpoint

PREDICTIONS, THRESHOLDS, SUMMARY = "predictions_", "thresholds.json", "eval_summary.csv"


@dataclass(frozen=True)
class ModelPredictions:
    """A model's predictions of one part, with their origin.

    Attributes:
        path: File of the predictions.
        name: Name of the model, ``finetune-1a2b3c4d/best.ckpt``, or of the file.
        predictions: The predictions table.
        is_evaluation: Whether they come from an evaluation, and so from one model.
        thresholds: File of ``point``.
        point: Operating point, or the reason why there is none.
        split_name, split_hash: Name and hash of the split, if known.
        predicted: How the probs were computed (``EvaluatedModel``); None if unknown.
        history: Phases before the model, ``name-id``; None if unknown.
        caveat: Caveat for its results if its starting weights saw the images; else empty.
    """

    path: Path
    name: str
    predictions: pd.DataFrame
    is_evaluation: bool
    thresholds: Path | None
    point: OperatingPoint | str
    split_name: str | None
    split_hash: str | None
    predicted: str | None
    history: tuple[str, ...] | None
    caveat: str = ""

    @property
    def phase(self) -> str:
        """Its phase, ``name-id``, if it has one."""
        return Path(self.name).parent.name

    @property
    def slug(self) -> str:
        """The name, usable as a folder name."""
        name = self.name.removesuffix("/best.ckpt") if self.is_evaluation else self.path.stem
        return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100] or "model"


def read_model_predictions(path: Path, part: str, thresholds: Path | None = None) -> ModelPredictions:
    """Read the predictions that a path names.

    Args:
        path: A phase folder, the folder of an evaluation, or a file of predictions.
        part: Part to read from a folder, such as test.
        thresholds: File that replaces ``thresholds.json`` beside the predictions.

    Raises:
        DataError: There are no such predictions, or they cannot be read.
    """
    file = _find_predictions(path.expanduser(), part)
    with open_table(file) as table:
        if "split" in table.header:
            command = format_command(f"evaluate predictions={file}")
            raise DataError(f"{file}: it has a column split: run {command}, and compare that")
        predictions = read_open_predictions(table)
    origin = _read_origin(file)
    is_evaluation = origin is not None
    beside = file.parent / THRESHOLDS
    if thresholds is None and is_evaluation and beside.is_file():
        thresholds = beside
    point: OperatingPoint | str = f"there is no {THRESHOLDS} beside {file.name}"
    if thresholds is not None:
        point = read_operating_point(thresholds)
        if is_evaluation and not origin and thresholds == beside:
            origin = {name: value for name, value in point.origin.items() if value}
    origin = origin or {}
    name = origin.get("checkpoint")
    return ModelPredictions(
        path=file,
        name=name or file.name,
        predictions=predictions,
        is_evaluation=is_evaluation,
        thresholds=thresholds,
        point=point,
        split_name=origin.get("split_name"),
        split_hash=origin.get("split_hash"),
        predicted=origin.get("predicted"),
        history=read_history(file.parent.parent / Path(name).name) if name else None,
        caveat=origin.get("caveat", ""),
    )


def _find_predictions(path: Path, part: str) -> Path:
    if path.is_file():
        if path.suffix == ".ckpt":
            raise DataError(f"{path}: a checkpoint: name its phase folder, or the folder of its evaluation")
        return path
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder or file")
    is_phase = (path / "phase.json").is_file() or (path / "best.ckpt").is_file()
    folder = path / "eval" if is_phase else path
    file = folder / f"{PREDICTIONS}{part}.csv"
    if file.is_file():
        return file
    others = sorted(other.stem.removeprefix(PREDICTIONS) for other in folder.glob(f"{PREDICTIONS}*.csv"))
    if others:
        raise DataError(f"{folder}: there is no {file.name} in it: say split={' or split='.join(others)}")
    evaluate = format_command(f"evaluate ckpt={path}")
    remedy = f": run {evaluate}" if is_phase else ": name a phase folder or that of an evaluation"
    if is_phase and (other := next(iter(sorted(path.glob(f"eval-*/{PREDICTIONS}{part}.csv"))), None)):
        remedy += f", or name one that is there as it is: {other.parent}"
    raise DataError(f"{folder}: there are no predictions in it{remedy}")


def _read_origin(file: Path) -> dict[str, str] | None:
    """Read split and model of a file from the summary beside it; None if the file is not from an evaluation.

    Without a summary, a file ``predictions_<part>`` still counts as from an evaluation.
    """
    if not file.name.startswith(PREDICTIONS):
        return None
    path = file.with_name(SUMMARY)
    try:
        summary = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = summary[summary["split"] == file.stem.removeprefix(PREDICTIONS)]
        further = [column for column in ("predicted", "caveat") if column in rows]
        rows = rows[["split_name", "split_hash", "checkpoint", *further]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not the summary of an evaluation: {first_line(error)}") from None
    return {str(name): value for name, value in rows.iloc[0].items() if value} if len(rows) else None


def read_history(checkpoint: Path) -> tuple[str, ...] | None:
    """Read the phases before a checkpoint, ``name-id``; None if it is missing or unreadable."""
    if not checkpoint.is_file():
        return None
    try:
        return tuple(read_checkpoint(checkpoint).metadata.history)
    except CheckpointError:
        return None


def find_concerns(baseline: ModelPredictions, candidate: ModelPredictions, part: str) -> list[str]:
    """List caveats of the comparison, a sentence each.

    Raises:
        DataError: The two have different splits.
    """
    if baseline.split_hash and candidate.split_hash and baseline.split_hash != candidate.split_hash:
        raise DataError(
            f"the split of {baseline.path} is {baseline.split_hash}, that of {candidate.path} is "
            f"{candidate.split_hash}: models are compared on one split"
        )
    concerns = []
    if baseline.predictions.equals(candidate.predictions):
        concerns.append("the two have the same predictions")
    if candidate.phase and candidate.phase in (baseline.history or ()):
        concerns.append("the baseline started from the candidate: name the earlier of the two first")
    if baseline.phase and baseline.phase in (candidate.history or ()):
        concerns.append("the candidate started from the baseline: the change is what its further training made of it")
    # fp32 is named only if the training was in bf16
    ways = {(side.predicted or "").removesuffix(" in fp32") for side in (baseline, candidate)}
    if baseline.predicted and candidate.predicted and len(ways) > 1:
        concerns.append(
            f"the two were predicted in different ways: the baseline by {baseline.predicted}, the candidate by "
            f"{candidate.predicted}: the change is of both the model and the way"
        )
    for side, name in ((baseline, "baseline"), (candidate, "candidate")):
        if side.caveat:
            concerns.append(f"of the {name}, {side.caveat}")
    if part == "val":
        concerns.append("epochs and thresholds were chosen on these images: the numbers flatter both")
    return [*concerns, *_compare_points(baseline, candidate)]


def _compare_points(baseline: ModelPredictions, candidate: ModelPredictions) -> list[str]:
    """Describe how the operating points differ."""
    concerns, said = [], []
    for side in (baseline, candidate):
        point = side.point
        if isinstance(point, str):
            return []
        origin, thresholds = point.origin, point.thresholds
        of = origin.get("checkpoint")
        if of and of != side.name:
            concerns.append(f"the thresholds of {side.name} were tuned for {of}")
        wanted = "" if thresholds.wanted is None else f" {thresholds.wanted:g}"
        calibration = point.calibration.method if point.calibration else "no"
        where = f"on {origin.get('tuned_on') or 'images unknown'} of split {origin.get('split_hash') or 'unknown'}"
        said.append(f"by {thresholds.rule or 'hand'}{wanted} after {calibration} calibration, {where}")
    if said[0] != said[1]:
        concerns.append(f"F1: the thresholds of the baseline were tuned {said[0]}; those of the candidate {said[1]}")
    return concerns


def pair_rows(baseline: pd.DataFrame, candidate: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """Reorder the rows and labels of the baseline to match the candidate.

    Args:
        baseline: A predictions table.
        candidate: Another with the same images, patients, labels and targets, in any order; the spelling of patients
            may differ (``key_patients``).
        names: Names of the two in messages.

    Raises:
        DataError: The two do not agree; the message names the labels or images.
    """
    labels = list_labels(candidate)
    _check_same(set(list_labels(baseline)), set(labels), names, "label", "compare models of the same labels")
    for table, name in zip((baseline, candidate), names, strict=True):
        twice = table.loc[table["image"].duplicated(), "image"].unique().tolist()
        if twice:
            raise DataError(
                f"{name}: {format_count(len(twice), 'image stands', 'images stand')} "
                f"in it twice ({name_some(twice)}): keep one row"
            )
    _check_same(set(baseline["image"]), set(candidate["image"]), names, "image", "predict the same images with both")
    rows = pd.Index(baseline["image"]).get_indexer(pd.Index(candidate["image"]))
    aligned = baseline.iloc[rows].reset_index(drop=True)
    before, after = (list_people_keys(table["patient"].astype(str).tolist()) for table in (aligned, candidate))
    others = np.array([own != other for own, other in zip(before, after, strict=True)], dtype=bool)
    _check_equal(others, candidate, names, "patient")
    columns = [f"{kind}{label}" for kind in (PROB, TARGET) for label in labels]
    paired: pd.DataFrame = aligned.loc[:, [*aligned.columns.difference(columns, sort=False), *columns]]
    (_, ours), (_, theirs) = split_arrays(paired), split_arrays(candidate)
    other = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    for column in np.flatnonzero(other.any(axis=0)):
        _check_equal(other[:, column], candidate, names, f"{TARGET}{labels[column]}")
    return paired


def _check_same(before: set[str], after: set[str], names: tuple[str, str], what: str, remedy: str) -> None:
    alone = [
        f"{format_count(len(own - other), f'{what} is', f'{what}s are')} in {name} alone "
        f"({name_some(sorted(own - other))})"
        for own, other, name in ((before, after, names[0]), (after, before, names[1]))
        if own - other
    ]
    if alone:
        raise DataError(f"{', and '.join(alone)}: {remedy}")


def _check_equal(other: NDArray[np.bool_], table: pd.DataFrame, names: tuple[str, str], column: str) -> None:
    if other.any():
        images = table.loc[other, "image"].tolist()
        raise DataError(
            f"{column} of {format_count(len(images), 'image')} is another in {names[0]} than in {names[1]} "
            f"({name_some(images)}): these are predictions of other data"
        )
