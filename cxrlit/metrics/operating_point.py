"""What turns probs into decisions, fixed on validation: calibrate, then threshold. It lives in ``thresholds.json``."""

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
"""What is said of where an operating point comes from."""


Rule = Literal["f1_grid", "f1_quantiles", "youden", "sensitivity", "specificity"]
"""What a threshold is the best for.

- ``f1_grid``: F1, of ``GRID``.
- ``f1_quantiles``: F1, of the percentiles of the positives' own probs. F1 has its best threshold at the prob of a
  positive, of a rare label often below the grid's first.
- ``youden``: sensitivity + specificity - 1 (Youden, Cancer 1950).
- ``sensitivity``: the highest threshold with at least the wanted one.
- ``specificity``: the lowest threshold with at least the wanted one.

Of several that are equally good, the lowest. All but the grid's lie halfway between a positive's prob and the next
lower prob of any image, so that no rounding turns a decision of validation around.
"""


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds.

    Attributes:
        labels: The L labels.
        values: (L,) float64; NaN where validation cannot tell.
        f1: (L,) F1 on validation at them.
        reasons: Why a label has none, by label.
        rule: What they are the best for; None: given by hand.
        wanted: The sensitivity or specificity that was asked for.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float64]
    f1: NDArray[np.float64]
    reasons: dict[str, str]
    rule: Rule | None = "f1_grid"
    wanted: float | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """Calibration and thresholds of a model, in this order.

    Attributes:
        calibration: None: the probs stay as they are.
        thresholds: Of the calibrated probs; ``threshold_probs`` has the same thresholds for the raw ones.
        origin: Where they come from: the keys of ``ORIGIN``.
    """

    calibration: Calibration | None
    thresholds: Thresholds
    origin: Mapping[str, str | None]

    @property
    def labels(self) -> tuple[str, ...]:
        """The L labels, in order."""
        return self.thresholds.labels

    def threshold_probs(self, dtype: Any = np.float32) -> NDArray[np.float64]:
        """The same thresholds for raw probs: the smallest number that, calibrated, is at or above the threshold.

        ``prob >= threshold_prob`` and ``calibrated >= threshold`` are one decision for every prob of the type. Found by
        bisection over the numbers that float64 has: an inverse formula would round.

        Args:
            dtype: Of the probs: float32, as a network computes them, or float64. A prob of 1 of the two is calibrated
                apart (``recover_logits``).

        Returns:
            (L,) ``ABOVE_ALL`` where no prob reaches the threshold; NaN without a threshold.
        """
        values = self.thresholds.values
        low = np.full(len(values), -1)  # numbers >= 0 are in the order of their bits
        high = np.full(len(values), np.float64(ABOVE_ALL).view(np.int64))
        while (high - low > 1).any():
            middle = (low + high) // 2
            reached = self.calibrate(np.maximum(middle, 0).view(np.float64)[None])[0] >= values
            reached &= middle >= 0
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        never = self.calibrate(np.ones((1, len(values)), dtype))[0] < values
        return np.where(np.isnan(values), np.nan, np.where(never, ABOVE_ALL, high.view(np.float64)))

    def calibrate(self, probs: Floats) -> NDArray[np.float64]:
        """(N, L) probs of the model to (N, L) calibrated probs, float64, in the same order within a label."""
        return probs.astype(np.float64) if self.calibration is None else apply_calibration(self.calibration, probs)

    def decide(self, probs: Floats) -> NDArray[np.float64]:
        """(N, L) probs of the model to (N, L) decisions: 1 present, 0 absent, NaN for a label without a threshold."""
        values = self.thresholds.values
        return np.where(np.isnan(values), np.nan, self.calibrate(probs) >= values)

    def only(self, labels: Sequence[str]) -> "OperatingPoint":
        """That of some labels, in their order.

        Raises:
            DataError: It has none for one of them.
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
        """It as plain types; a label without a value has None, and its reason.

        Args:
            dtype: Of the probs that ``threshold_prob`` is for.
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
        """Write it as JSON; ``dtype`` as in ``to_plain``."""
        write_json(path, self.to_plain(dtype))


def no_operating_point(labels: Sequence[str], reason: str) -> OperatingPoint:
    """That of a model without validation images: no label has a threshold, and each says why."""
    blank = np.full(len(labels), np.nan)
    return OperatingPoint(None, Thresholds(tuple(labels), blank, blank, dict.fromkeys(labels, reason)), {})


def _only(reasons: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    return {label: reasons[label] for label in labels if label in reasons}


def name_values(labels: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values by label; None where there is none."""
    return {label: None if np.isnan(value) else value for label, value in zip(labels, values.tolist(), strict=True)}
