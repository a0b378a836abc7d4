"""Predictions tables for the tests of what is made from them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.predictions import make_predictions
from cxrlit.metrics.operating_point import OperatingPoint, Thresholds

Floats = NDArray[np.float32]


def make_table(probs: Floats, targets: Floats, patients: Sequence[str] | None = None) -> pd.DataFrame:
    """Images in the order of the rows; unless told, every image is another patient."""
    names = [f"{row:06d}.png" for row in range(len(probs))]
    part = pd.DataFrame(targets, columns=list(LABELS)).assign(
        image=names, patient=names if patients is None else patients
    )
    return make_predictions(part, LABELS, probs)


def draw_arrays(n_images: int = 60, seed: int = 0) -> tuple[Floats, Floats]:
    """(N, 8) probs that know something, and (N, 8) targets, a third of them present."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n_images, 8)) < 0.3).astype(np.float32)
    probs = np.clip(0.3 * targets + rng.random((n_images, 8)) * 0.7, 0, 1).astype(np.float32)
    return probs, targets


def fix_thresholds(values: NDArray[np.float64], reasons: dict[str, str] | None = None) -> OperatingPoint:
    """Thresholds of the probs as they are."""
    return OperatingPoint(None, Thresholds(LABELS, values, values, reasons or {}), {"tuned_on": "val"})
