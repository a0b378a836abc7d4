"""Map the outputs of a network to data with other labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlit.config import NIHGoogleData
from cxrlit.core.errors import ConfigError, DataError, name_some
from cxrlit.data.sources.nih_google import ANSWERS, find_answers
from cxrlit.evaluation.measure.tune_thresholds import fit_operating_point
from cxrlit.evaluation.predictions import PROB, TARGET, list_labels, read_predictions, split_arrays
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.types import Floats

Answers = Mapping[str, tuple[str, ...]]
"""Each label of the data, with the outputs of the network that answer it by their largest prob."""


def choose_answers(data: Any, labels: Sequence[str], what: str) -> Answers | None:
    """Choose the outputs that answer the labels of some data; None: each label's own output answers it.

    Args:
        data: The data section of the config.
        labels: Labels of the network's outputs.
        what: What to call the network in messages.

    Raises:
        ConfigError: No output answers any label.
    """
    if not isinstance(data, NIHGoogleData):
        return None
    answers = find_answers(labels)
    if not answers:
        raise ConfigError(
            f"data=nih_google: {what} answers none of its questions ({', '.join(ANSWERS)}; Nodule and Mass together "
            f"answer Nodule/Mass): its labels are {name_some(list(labels), limit=20)}"
        )
    return answers


def answer_probs(probs: Floats, labels: Sequence[str], answers: Answers) -> Floats:
    """Map (N, L) probs of outputs to (N, Q) probs of answers, each the largest of its outputs.

    >>> answer_probs(np.array([[0.25, 0.5, 0.125]]), ["Mass", "Nodule", "Edema"], {"Nodule/Mass": ("Nodule", "Mass")})
    array([[0.5]])
    """
    columns = [probs[:, [labels.index(name) for name in names]].max(axis=1) for names in answers.values()]
    return np.column_stack(columns)


def answer_predictions(predictions: pd.DataFrame, answers: Answers) -> pd.DataFrame:
    """Make a predictions table with the labels of the answers: present if any of their outputs' labels is present,
    absent if all are absent.
    """
    labels = list_labels(predictions)
    probs, targets = split_arrays(predictions)
    made = answer_probs(probs, labels, answers)
    people = predictions[[name for name in predictions if not str(name).startswith((PROB, TARGET))]]
    known = {}
    for question, names in answers.items():
        of_names = targets[:, [labels.index(name) for name in names]]
        known[f"{TARGET}{question}"] = np.where((of_names == 1).any(axis=1), np.float32(1), of_names.sum(axis=1))
    columns = pd.DataFrame(made, columns=[f"{PROB}{question}" for question in answers], index=people.index)
    return pd.concat([people, columns, pd.DataFrame(known, index=people.index)], axis=1)


def fit_answers(folder: Path, at_home: OperatingPoint, answers: Answers) -> OperatingPoint:
    """Fit calibration and thresholds of the answers on the validation images, as the internal evaluation did.

    Args:
        folder: Folder of the internal evaluation.
        at_home: Its operating point.
        answers: The answers.

    Raises:
        DataError: Its thresholds were given rather than fitted, or it has no predictions of validation images.
    """
    if at_home.thresholds.rule is None:
        raise DataError(
            f"{folder}: its thresholds were given, so those of {', '.join(answers)} cannot be fitted alike: say "
            "thresholds=FILE, which has them"
        )
    validation = answer_predictions(read_predictions(folder / "predictions_val.csv"), answers)
    probs, targets = split_arrays(validation)
    return fit_operating_point(
        probs,
        targets,
        list(answers),
        method=at_home.calibration.method if at_home.calibration else None,
        rule=at_home.thresholds.rule,
        wanted=at_home.thresholds.wanted,
        origin=at_home.origin,
    )


def describe_answers(answers: Answers, labels: Sequence[str]) -> str:
    """Say which outputs answer each label, and which answer none.

    >>> describe_answers({"Nodule/Mass": ("Nodule", "Mass")}, ["Mass", "Nodule", "Edema"])
    'Nodule/Mass: the larger prob of Nodule and Mass; not asked: Edema'
    """
    said = [
        question
        if names == (question,)
        else f"{question}: {'the larger prob of ' * (len(names) > 1)}{' and '.join(names)}"
        for question, names in answers.items()
    ]
    used = {name for names in answers.values() for name in names}
    unused = [label for label in labels if label not in used]
    return "; ".join([*said, *([f"not asked: {', '.join(unused)}"] if unused else [])])
