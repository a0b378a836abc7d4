"""Operating point: calibration, then thresholds, fixed on validation and stored in ``thresholds.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import DataError, name_some
from cxrlit.core.files import write_json
from cxrlit.metrics.calibration import Calibration, apply_calibration
from cxrlit.metrics.types import Floats

ABOVE_ALL = float(np.nextafter(1.0, 2.0))
"""``threshold_prob`` of a label whose threshold no probability reaches: the next number above 1."""

ORIGIN = ("tuned_on", "split_name", "split_hash", "checkpoint")
"""Keys that record the origin of an operating point."""


Rule = Literal["f1_grid", "f1_quantiles", "youden", "sensitivity", "specificity"]
"""Criterion that a threshold optimizes.

- ``f1_grid``: F1, over ``GRID``.
- ``f1_quantiles``: F1, over percentiles of the positives' probs. The best F1 threshold is at the prob of a
  positive, for a rare label often below the grid's first value.
- ``youden``: sensitivity + specificity - 1 (Youden, Cancer 1950).
- ``sensitivity``: the highest threshold that reaches the requested sensitivity.
- ``specificity``: the lowest threshold that reaches the requested specificity.

Of several equally good thresholds, the lowest. All but the grid's lie halfway between a positive's prob and the
next lower prob of any image, so that rounding cannot change a decision on validation.
"""


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds of L labels.

    Attributes:
        labels: The L labels.
        values: (L,) float64; NaN where validation does not determine it.
        f1: (L,) F1 on validation at the thresholds.
        reasons: Why a label has no threshold, by label.
        rule: Criterion of the thresholds; None: set by hand.
        wanted: The requested sensitivity or specificity.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float64]
    f1: NDArray[np.float64]
    reasons: dict[str, str]
    rule: Rule | None = "f1_grid"
    wanted: float | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """Calibration and thresholds of a model, applied in this order.

    Attributes:
        calibration: None: the probs stay unchanged.
        thresholds: Thresholds for calibrated probs; ``threshold_probs`` gives them for raw probs.
        origin: Record of where they come from, with the keys ``ORIGIN``.
    """

    calibration: Calibration | None
    thresholds: Thresholds
    origin: Mapping[str, str | None]

    @property
    def labels(self) -> tuple[str, ...]:
        """The L labels, in order."""
        return self.thresholds.labels

    def threshold_probs(self, dtype: Any = np.float32) -> NDArray[np.float64]:
        """Thresholds for raw probs: the smallest number whose calibrated value is at or above the threshold.

        ``prob >= threshold_prob`` and ``calibrated >= threshold`` give the same decision for every prob of the type.
        Found by bisection over all float64 numbers, because an inverse formula would round.

        Args:
            dtype: Type of the probs: float32, as a network computes them, or float64. A prob of 1 has a different
                calibrated value in each (``recover_logits``).

        Returns:
            (L,) ``ABOVE_ALL`` where no prob reaches the threshold; NaN without a threshold.
        """
        values = self.thresholds.values
        low = np.full(len(values), -1)  # the bit patterns of numbers >= 0 sort like the numbers
        high = np.full(len(values), np.float64(ABOVE_ALL).view(np.int64))
        while (high - low > 1).any():
            middle = (low + high) // 2
            reached = self.calibrate(np.maximum(middle, 0).view(np.float64)[None])[0] >= values
            reached &= middle >= 0
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        never = self.calibrate(np.ones((1, len(values)), dtype))[0] < values
        return np.where(np.isnan(values), np.nan, np.where(never, ABOVE_ALL, high.view(np.float64)))

    def calibrate(self, probs: Floats) -> NDArray[np.float64]:
        """Calibrate (N, L) probs of the model: (N, L) float64, in the same order within a label."""
        return probs.astype(np.float64) if self.calibration is None else apply_calibration(self.calibration, probs)

    def decide(self, probs: Floats) -> NDArray[np.float64]:
        """Decisions from (N, L) probs of the model: (N, L) 1 present, 0 absent, NaN for a label without a threshold."""
        values = self.thresholds.values
        return np.where(np.isnan(values), np.nan, self.calibrate(probs) >= values)

    def only(self, labels: Sequence[str]) -> "OperatingPoint":
        """The operating point of some labels, in their order.

        Raises:
            DataError: It lacks one of the labels.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise DataError(
                f"the thresholds are those of {name_some(list(self.labels), limit=20)}; {name_some(missing, limit=20)} "
                f"{'have' if len(missing) > 1 else 'has'} none: add a number, or null for no decisions"
            )
        chosen = [self.labels.index(label) for label in labels]
        before, thresholds = self.calibration, self.thresholds
        calibration = before and Calibration(
            before.method, tuple(labels), before.slope[chosen], before.intercept[chosen], _only(before.reasons, labels)
        )
        return OperatingPoint(
            calibration,
            Thresholds(
                tuple(labels),
                thresholds.values[chosen],
                thresholds.f1[chosen],
                _only(thresholds.reasons, labels),
                thresholds.rule,
                thresholds.wanted,
            ),
            self.origin,
        )

    def to_plain(self, dtype: Any = np.float32) -> dict[str, Any]:
        """The operating point as plain types; a label without a value has None, and a reason.

        Args:
            dtype: Type of the probs that ``threshold_prob`` is for.
        """
        calibration, thresholds = self.calibration, self.thresholds
        return {
            "rule": thresholds.rule,
            "wanted": thresholds.wanted,
            **self.origin,
            "calibration": calibration
            and {
                "method": calibration.method,
                "slope": name_values(self.labels, calibration.slope),
                "intercept": name_values(self.labels, calibration.intercept),
                "reasons": calibration.reasons,
            },
            "thresholds": name_values(self.labels, thresholds.values),
            "threshold_prob": name_values(self.labels, self.threshold_probs(dtype)),
            "f1_of_validation": name_values(self.labels, thresholds.f1),
            "reasons": thresholds.reasons,
        }

    def write(self, path: Path, dtype: Any = np.float32) -> None:
        """Write the operating point as JSON; ``dtype`` as in ``to_plain``."""
        write_json(path, self.to_plain(dtype))


def no_operating_point(labels: Sequence[str], reason: str) -> OperatingPoint:
    """The operating point of a model without validation images: no thresholds, with a reason for each label."""
    blank = np.full(len(labels), np.nan)
    return OperatingPoint(None, Thresholds(tuple(labels), blank, blank, dict.fromkeys(labels, reason)), {})


def _only(reasons: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    return {label: reasons[label] for label in labels if label in reasons}


def name_values(labels: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values by label; None for NaN."""
    return {label: None if np.isnan(value) else value for label, value in zip(labels, values.tolist(), strict=True)}
