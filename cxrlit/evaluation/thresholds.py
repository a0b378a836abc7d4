"""The threshold of each label, tuned on validation and fixed from then on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrlit.evaluation.metrics import Floats, count_decisions, f1_score
from cxrlit.labels import LABELS

GRID = np.round(np.arange(5, 96) / 100, 2)
"""0.05 to 0.95 in steps of 0.01."""


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds.

    Attributes:
        values: (L,) float64; NaN where validation cannot tell.
        f1: (L,) F1 on validation at them.
        reasons: Why a label has none, by label.
    """

    values: NDArray[np.float64]
    f1: NDArray[np.float64]
    reasons: dict[str, str]


def tune_thresholds(probs: Floats, targets: Floats) -> Thresholds:
    """For each label the threshold of ``GRID`` with the highest F1; of several, the lowest.

    Args:
        probs: (N, 8) of the validation images.
        targets: (N, 8), NaN unknown: left out.
    """
    f1 = f1_score(count_decisions(probs, targets, np.tile(GRID, (probs.shape[1], 1))))  # (L, T)
    values, best = np.full(len(f1), np.nan), np.full(len(f1), np.nan)
    reasons = {}
    for label, scores in enumerate(f1):
        known = targets[~np.isnan(targets[:, label]), label]
        if (known == 1).any() and (known == 0).any():
            chosen = int(scores.argmax())
            values[label], best[label] = GRID[chosen], scores[chosen]
        else:
            reasons[LABELS[label]] = (
                "validation has no positive" if (known != 1).all() else "validation has no negative"
            )
    return Thresholds(values, best, reasons)
