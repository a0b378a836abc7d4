"""Predictions tables: a row an image, with its patient, 8 probs and 8 targets. All evaluation works from them."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.data.index import read_targets
from cxrlit.files import write_csv
from cxrlit.labels import LABELS

PROBS = [f"prob_{label}" for label in LABELS]
TARGETS = [f"target_{label}" for label in LABELS]


def make_predictions(part: pd.DataFrame, probs: NDArray[np.float32]) -> pd.DataFrame:
    """The predictions table of a part.

    Args:
        part: Its index rows.
        probs: (N, 8), in the order of the rows.
    """
    targets = pd.DataFrame(read_targets(part), columns=TARGETS)
    return pd.concat([part[["image", "patient"]], pd.DataFrame(probs, columns=PROBS), targets], axis=1)


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write as CSV; 9 digits read back to the same float32, an unknown target is an empty cell."""
    targets = predictions[TARGETS].astype("Int64")  # 1 and 0, not 1.0 and 0.0
    write_csv(path, predictions.assign(**targets), float_format="%.9g")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what ``write_predictions`` wrote, to the bit."""
    # A patient may be called NA; an empty cell is unknown in the other columns alone.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table[TARGETS] = table[TARGETS].replace("", "nan")
    return table.astype(dict.fromkeys([*PROBS, *TARGETS], np.float32))


def split_arrays(predictions: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 8) probs and (N, 8) targets, NaN unknown."""
    return predictions[PROBS].to_numpy(np.float32), predictions[TARGETS].to_numpy(np.float32)
