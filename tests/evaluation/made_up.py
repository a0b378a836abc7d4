"""Predictions tables of made-up patients, and operating points for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from cxrlit.evaluation.predictions import write_predictions
from cxrlit.metrics.operating_point import OperatingPoint, Thresholds

LABELS = ("Mass", "Nodule", "Pneumonia")


def draw_table(seed: int, n_patients: int = 150, labels: Sequence[str] = LABELS, shift: float = 1.5) -> pd.DataFrame:
    """A third of the images is positive; patients have four images on average, a sex, an age, and images of two views.

    Positives score ``shift`` higher; both patients and images differ. What is asked again with the same seed has the
    same patients and targets, and other scores where the shift is another.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.geometric(0.25, n_patients))
    n = len(patients)
    people = {
        "view": rng.choice(["PA", "AP"], n),
        "age": rng.integers(0, 95, n_patients)[patients].astype(np.float32),
        "sex": rng.choice(["F", "M"], n_patients)[patients],
    }
    targets = (rng.random((n, len(labels))) < 1 / 3).astype(np.float32)
    noise = rng.normal(size=(n_patients, len(labels)))[patients] + rng.normal(size=targets.shape)
    table = pd.DataFrame({"image": [f"{row:05d}.png" for row in range(n)], "patient": [f"P{p}" for p in patients]})
    return fill_table(table.assign(**people), expit(shift * targets + noise - 1), targets, labels)


def fill_table(
    table: pd.DataFrame, probs: NDArray[np.float64], targets: NDArray[np.float32], labels: Sequence[str] = LABELS
) -> pd.DataFrame:
    """The table with these probs and targets."""
    columns = {f"prob_{label}": probs[:, column].astype(np.float32) for column, label in enumerate(labels)}
    columns |= {f"target_{label}": targets[:, column] for column, label in enumerate(labels)}
    return table.assign(**columns)


def make_point(
    labels: Sequence[str] = LABELS, threshold: float = 0.5, never: Sequence[str] = (), **origin: str
) -> OperatingPoint:
    """One threshold for all labels but some, without calibration."""
    values = np.array([np.nan if label in never else threshold for label in labels])
    reasons = dict.fromkeys(never, "validation has no positive")
    return OperatingPoint(None, Thresholds(tuple(labels), values, values, reasons), origin)


def write_evaluation(
    folder: Path, table: pd.DataFrame, point: OperatingPoint | None = None, part: str = "test", **origin: str
) -> Path:
    """Predictions and thresholds as an evaluation leaves them."""
    where = {"tuned_on": "val", "split_name": "official", "split_hash": "0123456789ab", **origin}
    write_predictions(folder / f"predictions_{part}.csv", table)
    (point or make_point(**where)).write(folder / "thresholds.json")
    return folder
