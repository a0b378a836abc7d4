"""Join scores and targets by the exact names of images.

An image that does not match is an error that names it, or is excluded, counted and listed, so that every number is of
exactly the images that its reader expects.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config.evaluate import PredictionsConfig
from cxrlit.core.errors import DataError, format_count, name_some
from cxrlit.data.split import check_patients_apart
from cxrlit.data.tables.read_scores import narrow_probs
from cxrlit.data.tables.text_table import clip
from cxrlit.evaluation.predictions import make_predictions

SPELLINGS: dict[str, Callable[[str], str]] = {
    "without .0": lambda name: name.removesuffix(".0"),
    "without folders": lambda name: name.replace("\\", "/").rpartition("/")[2],
    "without the end of the file name": lambda name: name.rpartition(".")[0] or name,
    "without folders and the end of the file name": lambda name: Path(name.replace("\\", "/")).stem,
    "in lower case": str.casefold,
    "without zeros in front": lambda name: name.lstrip("0"),
}
"""Spellings of image names in which two tables may differ. They are suggested, never applied."""


@dataclass(frozen=True)
class Truth:
    """Facts and targets of images from one table.

    Attributes:
        where: The table, for messages.
        rows: Indexed by image: those of ``patient``, ``split``, ``view``, ``age``, ``sex`` that it has, and the
            targets, under the names of the labels.
        excluded: Why an image is not in it, by image, if known.
    """

    where: str
    rows: pd.DataFrame
    excluded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JoinedPredictions:
    """Predictions joined with targets.

    Attributes:
        parts: Predictions tables of ``val``, if there is one, and ``test``, sorted by image.
        split: ``image``, ``patient``, ``split`` of all images whose part is known, sorted by image; for ``hash_split``.
        dropped: Excluded images: ``image``, ``path`` (empty), ``reason``.
        notes: Notes for the user, a line each.
    """

    parts: dict[str, pd.DataFrame]
    split: pd.DataFrame
    dropped: pd.DataFrame
    notes: list[str]


def join_predictions(
    own: Truth, probs: NDArray[np.float64], labels: Sequence[str], truth: Truth | None, config: PredictionsConfig
) -> JoinedPredictions:
    """Join scores with targets.

    Args:
        own: Facts and targets in the table of the scores.
        probs: (N, L), in the order of its rows.
        labels: The L labels.
        truth: Facts and targets in the table of the labels, which take precedence; None without such a table.
        config: Handling of images without predictions, and whether each image is a patient.

    Raises:
        DataError: No image is in both, one is missing, or the two contradict each other.
        LeakageError: A patient is in two parts.
    """
    base = own if truth is None else truth
    rows = own.rows if truth is None else _merge(own, truth)
    if config.patient == "image":
        rows = rows.assign(patient=rows.index)
    notes = []
    if "split" not in rows:
        rows = rows.assign(split="test")
        notes.append("no column says train, val or test: every image is taken for test")
    rows = rows.sort_index(kind="stable")
    split = rows.loc[rows["split"].notna() & rows["patient"].notna(), ["patient", "split"]]
    split = split.rename_axis("image").reset_index()
    check_patients_apart(split.assign(source=base.where), base.where)

    place = own.rows.index.get_indexer(rows.index)
    dropped = _list_dropped(own, base, rows, place >= 0, config, notes)
    rows = rows.assign(**{label: np.float32(np.nan) for label in labels if label not in rows})
    narrow, parts = narrow_probs(probs), {}
    for name in ("val", "test"):
        chosen = (rows["split"] == name).to_numpy() & (place >= 0)
        if chosen.any():
            part = rows[chosen].rename_axis("image").reset_index()
            parts[name] = make_predictions(part, labels, narrow[place[chosen]])
    return JoinedPredictions(parts, split, dropped, notes)


def _merge(own: Truth, truth: Truth) -> pd.DataFrame:
    """Return the rows of the truth, with facts that only the predictions have.

    Raises:
        DataError: The two have no image in common, or contradict each other about patients or parts.
    """
    shared = truth.rows.index.intersection(own.rows.index)
    if shared.empty:
        raise DataError(
            f"none of the {len(own.rows)} images of {own.where} (such as {clip(own.rows.index[0])}) is in "
            f"{truth.where} (such as {clip(truth.rows.index[0])}){_suggest_spelling(own.rows.index, truth.rows.index)}"
        )
    both = [column for column in ("patient", "split") if column in own.rows and column in truth.rows]
    said = {column: (own.rows.loc[shared, column], truth.rows.loc[shared, column]) for column in both}
    if "patient" in said:
        _check_same_patients(*said["patient"], own.where, truth.where)
    if "split" in said:
        odd = shared[(said["split"][0] != said["split"][1]).to_numpy()]
        if len(odd):
            raise DataError(
                f"{format_count(len(odd), 'image is', 'images are')} "
                f"in one part in {own.where} and in another in {truth.where} "
                f"({name_some([clip(name) for name in odd])}): mend one of them, or take its column out"
            )
    if "patient" in own.rows and "split" in own.rows:  # the truth may lack the training images
        check_patients_apart(own.rows.assign(source=own.where), own.where)
    return truth.rows.join(own.rows[[column for column in own.rows if column not in truth.rows]])


def _check_same_patients(own: pd.Series, truth: pd.Series, here: str, there: str) -> None:
    """Check that both tables group images by patient in the same way, whatever the patients' names.

    Raises:
        DataError: They differ: rows were mixed up, or a column is not the patient.
    """
    pairs = pd.DataFrame({"own": own, "truth": truth}).drop_duplicates()
    for column, (one, two) in {"own": (here, there), "truth": (there, here)}.items():
        torn = pairs[pairs[column].duplicated(keep=False)]
        if len(torn):
            images = torn.index[(torn[column] == torn[column].iloc[0]).to_numpy()]
            raise DataError(
                f"{name_some([clip(name) for name in images], 2)} are images of one patient in {one} and of two in "
                f"{two}: mend one of them, or take out the column that is not the patient"
            )


def _list_dropped(
    own: Truth,
    base: Truth,
    rows: pd.DataFrame,
    is_predicted: NDArray[np.bool_],
    config: PredictionsConfig,
    notes: list[str],
) -> pd.DataFrame:
    """List excluded images, with the reason.

    Raises:
        DataError: No test image is left, or an image is not predicted and ``missing`` is ``error``.
    """
    extra = own.rows.index.difference(rows.index)
    reasons = {name: base.excluded.get(name, f"not in {base.where}") for name in extra}
    for part in ("test", "val"):
        of_part = (rows["split"] == part).to_numpy()
        missing = rows.index[of_part & ~is_predicted]
        n_wanted, n_missing = int(of_part.sum()), len(missing)
        if part == "test" and not n_wanted:
            raise DataError(f"{base.where}: no image is in test; columns.split=[] takes every image for test")
        if n_missing == n_wanted and part == "val":
            what = f"none of the {n_wanted} images of val is predicted" if n_wanted else "no image is in val"
            notes.append(f"{what}: thresholds and calibration stay blank")
            reasons |= dict.fromkeys(missing, "not predicted")
        elif n_missing and (config.missing == "error" or n_missing == n_wanted):
            odd = f"; {_say_extra(extra, base)} ({name_some([clip(name) for name in extra])})" if len(extra) else ""
            remedy = "" if n_missing == n_wanted else ", or say missing=drop to evaluate the others alone"
            raise DataError(
                f"{own.where}: {n_missing} of the {n_wanted} images of {part} in {base.where} are not predicted "
                f"({name_some([clip(name) for name in missing])}){odd}{_suggest_spelling(extra, missing)}: predict "
                f"them{remedy}"
            )
        elif n_missing:
            notes.append(f"{n_missing} of the {n_wanted} images of {part} are not predicted: they are left out")
            reasons |= dict.fromkeys(missing, "not predicted")
    n_train = int(((rows["split"] == "train").to_numpy() & is_predicted).sum())
    if n_train:
        notes.append(f"{format_count(n_train, 'image of train is', 'images of train are')} predicted, and left out")
    if len(extra):
        notes.append(f"{_say_extra(extra, base)}, and left out")
    nowhere = rows.index[rows["split"].isna().to_numpy()]
    if len(nowhere):
        are = "is" if len(nowhere) == 1 else "are"
        notes.append(
            f"{format_count(len(nowhere), 'image')} of {base.where} {are} in no part, not being predicted, and left out"
        )
        reasons |= dict.fromkeys(nowhere, "in no part of a split")
    dropped = pd.DataFrame({"image": list(reasons), "path": "", "reason": list(reasons.values())})
    return dropped.sort_values("image", kind="stable", ignore_index=True)


def _say_extra(extra: pd.Index, base: Truth) -> str:
    predicted = format_count(len(extra), "image that is predicted is", "images that are predicted are")
    return f"{predicted} not in {base.where}"


def _suggest_spelling(predicted: pd.Index, wanted: pd.Index) -> str:
    """Suggest a spelling with more matching names, as the middle of a message; empty without one."""
    best, how = 0, ""
    for words, spell in SPELLINGS.items():
        n_same = len({spell(name) for name in predicted} & {spell(name) for name in wanted})
        if n_same > best:
            best, how = n_same, words
    return f"; {how} {best} names would be the same, so write them the same way in both" if best else ""
