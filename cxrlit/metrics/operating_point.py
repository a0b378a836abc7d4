"""What turns probs into decisions, fixed on validation: calibrate, then threshold. It lives in ``thresholds.json``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrlit.core.errors import DataError, first_line, name_some
from cxrlit.core.files import open_regular, write_json
from cxrlit.metrics.calibration import MAX_SLOPE, MIN_SLOPE, Calibration, Method, apply_calibration
from cxrlit.metrics.types import Floats

MAX_BYTES = 10_000_000
"""A larger file is no table of thresholds."""

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
        high = np.full(len(values), _bits(ABOVE_ALL))
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
                "slope": _name(self.labels, calibration.slope),
                "intercept": _name(self.labels, calibration.intercept),
                "reasons": calibration.reasons,
            },
            "thresholds": _name(self.labels, thresholds.values),
            "threshold_prob": _name(self.labels, self.threshold_probs(dtype)),
            "f1_of_validation": _name(self.labels, thresholds.f1),
            "reasons": thresholds.reasons,
        }

    def write(self, path: Path, dtype: Any = np.float32) -> None:
        """Write it as JSON; ``dtype`` as in ``to_plain``."""
        write_json(path, self.to_plain(dtype))


def no_operating_point(labels: Sequence[str], reason: str) -> OperatingPoint:
    """That of a model without validation images: no label has a threshold, and each says why."""
    blank = np.full(len(labels), np.nan)
    return OperatingPoint(None, Thresholds(tuple(labels), blank, blank, dict.fromkeys(labels, reason)), {})


def read_operating_point(path: Path) -> OperatingPoint:
    """Read what ``OperatingPoint.write`` wrote.

    Raises:
        DataError: It cannot be read, or is none.
    """
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise DataError(f"{path}: too large to be thresholds")
        # Whole numbers as float too: Python reads no int of thousands of digits.
        content = json.loads(text.decode("utf-8"), object_pairs_hook=refuse_twice, parse_int=float)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except KeyTwiceError as error:
        raise DataError(f"{path}: the key {error} is there twice: keep one of the two") from None
    except RecursionError:
        raise DataError(f"{path}: not JSON: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {first_line(error, 160)}") from None
    return parse_operating_point(content, path)


def parse_operating_point(plain: Any, path: Path) -> OperatingPoint:
    """What ``OperatingPoint.to_plain`` made.

    Args:
        plain: Plain types.
        path: Where they are from, for messages.

    Raises:
        DataError: They are none.
    """
    if not isinstance(plain, Mapping):
        raise DataError(
            f"{path}: not the thresholds of an evaluation: it must be a JSON object with the key thresholds"
        )
    try:
        content = _File.model_validate(plain)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{path}: not the thresholds of an evaluation: {key}: {fault['msg']}") from None
    labels, given = tuple(content.thresholds), content.calibration
    named: dict[str, dict[str, float | None]] = {"f1": content.f1_of_validation or dict.fromkeys(labels)}
    if given is not None:
        named |= {"slope": given.slope, "intercept": given.intercept}
    for name, column in named.items():
        if set(column) != set(labels):
            raise DataError(f"{path}: {name} and thresholds are not of the same labels")
    arrays = {name: _array(column, labels) for name, column in named.items()}
    calibration = None
    if given is not None:
        calibration = Calibration(given.method, labels, arrays["slope"], arrays["intercept"], given.reasons)
    values = _array(content.thresholds, labels)
    reasons = dict.fromkeys(np.array(labels)[np.isnan(values)], "none is given") | content.reasons
    thresholds = Thresholds(labels, values, arrays["f1"], reasons, content.rule, content.wanted)
    point = OperatingPoint(calibration, thresholds, {name: getattr(content, name) for name in ORIGIN})
    if content.threshold_prob is not None:
        _check_threshold_probs(point, content.threshold_prob, path)
    return point


def _check_threshold_probs(point: OperatingPoint, said: Mapping[str, float | None], path: Path) -> None:
    """The thresholds of the raw probs, which others apply, are those of the calibrated ones, which we do.

    Raises:
        DataError: They are not.
    """
    if set(said) != set(point.labels):
        raise DataError(f"{path}: threshold_prob and thresholds are not of the same labels")
    stated = _array(said, point.labels)
    follow = [point.threshold_probs(dtype) for dtype in (np.float32, np.float64)]
    # another processor may round the last digits of a logarithm otherwise
    fits = np.logical_or.reduce([np.isclose(stated, values, 1e-6, 1e-12, equal_nan=True) for values in follow])
    if not fits.all():
        at = int(np.flatnonzero(~fits)[0])
        raise DataError(
            f"{path}: threshold_prob of {point.labels[at]} is {said[point.labels[at]]}, and its threshold and "
            f"calibration make it {_name(point.labels, follow[0])[point.labels[at]]}: remove the key threshold_prob, "
            "or put the threshold back"
        )


class KeyTwiceError(Exception):
    """A JSON object has a key twice."""


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``: an object whose keys differ.

    Raises:
        KeyTwiceError: A key is there twice, of which Python would take the last.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise KeyTwiceError(repr(name[:60]))
    return content


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Calibration(_Plain):
    method: Method
    slope: dict[str, Annotated[float, Field(ge=MIN_SLOPE, le=MAX_SLOPE)] | None]
    intercept: dict[str, float | None]
    reasons: dict[str, str]


class _File(_Plain):
    """``thresholds``, of the calibrated probs, is all that a file written by hand needs."""

    rule: Rule | None = None
    wanted: float | None = None
    tuned_on: str | None = None
    split_name: str | None = None
    split_hash: str | None = None
    checkpoint: str | None = None
    calibration: _Calibration | None = None
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)] | None] = Field(min_length=1)
    threshold_prob: dict[str, Annotated[float, Field(ge=0, le=ABOVE_ALL)] | None] | None = None
    f1_of_validation: dict[str, float | None] = {}
    reasons: dict[str, str] = {}


def _bits(number: float) -> int:
    return int(np.float64(number).view(np.int64))


def _only(reasons: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    return {label: reasons[label] for label in labels if label in reasons}


def _name(labels: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {label: None if np.isnan(value) else value for label, value in zip(labels, values.tolist(), strict=True)}


def _array(values: Mapping[str, float | None], labels: Sequence[str]) -> NDArray[np.float64]:
    return np.array([np.nan if values[label] is None else values[label] for label in labels], dtype=np.float64)
