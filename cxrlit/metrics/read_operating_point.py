"""Read ``thresholds.json`` into an operating point. The file is not trusted: anybody may have written it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrlit.core.errors import DataError, first_line
from cxrlit.core.files import open_regular
from cxrlit.metrics.calibration import MAX_SLOPE, MIN_SLOPE, Calibration, Method
from cxrlit.metrics.operating_point import ABOVE_ALL, ORIGIN, OperatingPoint, Rule, Thresholds, name_values

MAX_BYTES = 10_000_000
"""Maximum file size; a larger file is not a table of thresholds."""


def read_operating_point(path: Path) -> OperatingPoint:
    """Read a file that ``OperatingPoint.write`` wrote.

    Raises:
        DataError: The file cannot be read, or contains something else.
    """
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise DataError(f"{path}: too large to be thresholds")
        # Parse integers as float too: Python refuses ints of thousands of digits.
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
    """Parse the result of ``OperatingPoint.to_plain``.

    Args:
        plain: Plain types.
        path: Source of the values, for messages.

    Raises:
        DataError: The values are not an operating point.
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
    """Check that the thresholds for raw probs, which others apply, match those for calibrated probs, which we apply.

    Raises:
        DataError: They do not match.
    """
    if set(said) != set(point.labels):
        raise DataError(f"{path}: threshold_prob and thresholds are not of the same labels")
    stated = _array(said, point.labels)
    follow = [point.threshold_probs(dtype) for dtype in (np.float32, np.float64)]
    # Another processor may round the last digits of a logarithm differently.
    fits = np.logical_or.reduce([np.isclose(stated, values, 1e-6, 1e-12, equal_nan=True) for values in follow])
    if not fits.all():
        at = int(np.flatnonzero(~fits)[0])
        wanted = name_values(point.labels, follow[0])[point.labels[at]]
        raise DataError(
            f"{path}: threshold_prob of {point.labels[at]} is {said[point.labels[at]]}, and its threshold and "
            f"calibration make it {wanted}: remove the key threshold_prob, or put the threshold back"
        )


class KeyTwiceError(Exception):
    """A JSON object has a duplicate key."""


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` for ``json.loads`` that refuses duplicate keys.

    Raises:
        KeyTwiceError: A key is duplicate; Python would keep the last.
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
    """File content; ``thresholds``, for calibrated probs, is all that a hand-written file needs."""

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


def _array(values: Mapping[str, float | None], labels: Sequence[str]) -> NDArray[np.float64]:
    return np.array([np.nan if values[label] is None else values[label] for label in labels], dtype=np.float64)
