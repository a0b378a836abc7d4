"""Predictions tables: a row an image, with its patient, and a prob and a target of each label. All evaluation works
from them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.data.index import read_targets
from cxrlit.files import write_csv

PROB, TARGET = "prob_", "target_"
"""What the columns of a label begin with."""


def make_predictions(part: pd.DataFrame, labels: Sequence[str], probs: NDArray[np.float32]) -> pd.DataFrame:
    """The predictions table of a part.

    Args:
        part: Its index rows.
        labels: The labels, in the order of the probs.
        probs: (N, L), in the order of the rows.
    """
    named = pd.DataFrame(probs, columns=[f"{PROB}{label}" for label in labels])
    targets = pd.DataFrame(read_targets(part, labels), columns=[f"{TARGET}{label}" for label in labels])
    return pd.concat([part[["image", "patient"]], named, targets], axis=1)


def list_labels(predictions: pd.DataFrame) -> list[str]:
    """The labels of a predictions table, in its order."""
    return [column.removeprefix(PROB) for column in predictions.columns if column.startswith(PROB)]


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write as CSV; 9 digits read back to the same float32, an unknown target is an empty cell."""
    columns = [column for column in predictions.columns if column.startswith(TARGET)]
    targets = predictions[columns].astype("Int64")  # 1 and 0, not 1.0 and 0.0
    write_csv(path, predictions.assign(**targets), float_format="%.9g")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what ``write_predictions`` wrote, to the bit."""
    # A patient may be called NA; an empty cell is unknown in the other columns alone.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    targets = [column for column in table.columns if column.startswith(TARGET)]
    table[targets] = table[targets].replace("", "nan")
    numbers = [column for column in table.columns if column.startswith((PROB, TARGET))]
    return table.astype(dict.fromkeys(numbers, np.float32))


def split_arrays(predictions: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, L) probs and (N, L) targets, NaN unknown."""
    labels = list_labels(predictions)
    probs, targets = ([f"{kind}{label}" for label in labels] for kind in (PROB, TARGET))
    return predictions[probs].to_numpy(np.float32), predictions[targets].to_numpy(np.float32)
