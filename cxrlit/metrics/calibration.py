"""Probs that mean what they say: temperature and Platt scaling, fitted on validation and fixed from then on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, root
from scipy.special import expit

from cxrlit.metrics.types import Floats

Method = Literal["temperature", "platt"]

MAX_LOGIT = 25 * np.log(2)  # 17.3: a prob above the sigmoid of it is 1 in float32
MIN_SLOPE, MAX_SLOPE = 1e-6, 1e6
"""A slope beyond ties, in float64, what it should keep in order."""


@dataclass(frozen=True)
class Calibration:
    """A prob of a label becomes the sigmoid of ``slope * logit + intercept``.

    Attributes:
        method: ``temperature``: the slope is 1 / temperature, the intercept 0. ``platt``: both are fitted.
        labels: The L labels.
        slope: (L,) float64, in [``MIN_SLOPE``, ``MAX_SLOPE``], so that the order of the images stays; NaN where
            validation cannot tell.
        intercept: (L,) float64; NaN where the slope is.
        reasons: Why a label has none, by label.
    """

    method: Method
    labels: tuple[str, ...]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    reasons: dict[str, str]


def recover_logits(probs: Floats) -> NDArray[np.float64]:
    """The logits that probs are the sigmoid of, in the same order, all finite.

    float32 rounds what is above 1 - 2^-25 to 1 and what is below 2^-150 to 0. A prob of 1 or 0 is taken to be just
    that, half a step beyond the nearest number that float32 has, so that it stays apart from all others.

    Args:
        probs: Any shape, in [0, 1].

    Returns:
        float64, in [-104, 37].

    Raises:
        ValueError: A prob is outside [0, 1].

    >>> recover_logits(np.array([0.0, 0.5, 1.0], np.float32)).round(2).tolist()
    [-103.97, 0.0, 17.33]
    """
    probs = np.asarray(probs)
    if (~np.isnan(probs) & ((probs < 0) | (probs > 1))).any():
        raise ValueError("a prob is outside [0, 1]")
    top = 2.0**-25 if probs.dtype == np.float32 else 2.0**-54  # half a step of the type below 1
    exact = np.clip(probs.astype(np.float64), 2.0**-150, 1.0)
    return np.log(exact) - np.log(np.maximum(1 - exact, top))


def name_missing(present: NDArray[np.bool_]) -> str:
    """What a label has none of: ``known target``, ``positive`` or ``negative``; empty where it has both classes.

    Args:
        present: (K,) of its K known targets.
    """
    if not len(present):
        return "known target"
    return "positive" if not present.any() else "negative" if present.all() else ""


def fit_calibration(probs: Floats, targets: Floats, labels: Sequence[str], method: Method) -> Calibration:
    """Fit each label by maximum likelihood, which has one answer or none: the loss is convex.

    A label is not fitted, with the reason, where the likelihood has no maximum (one class alone, classes that do not
    overlap, one score for all) or where it has it at a slope of zero or below, which would turn the order around, or
    out of ``MIN_SLOPE`` to ``MAX_SLOPE``.

    In the fit, and there alone, logits are held within plus and minus 17.3, the end of float32's own range near 1: a 0
    that some file's rounding made would else count as e^-104 and outweigh all other images.

    Args:
        probs: (N, L) of the validation images.
        targets: (N, L), NaN unknown: left out.
        labels: The L labels.
        method: See ``Calibration``.

    Raises:
        ValueError: A prob of a known target is NaN or outside [0, 1].

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature); Platt, "Probabilistic
        outputs for support vector machines", 1999, without his smoothing of the targets, so that the mean prob becomes
        the share of positives; Albert and Anderson, Biometrika 1984 (when a maximum exists).
    """
    slope, intercept = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    reasons = {}
    fit = _fit_temperature if method == "temperature" else _fit_platt
    for column, label in enumerate(labels):
        known = ~np.isnan(targets[:, column])
        present = targets[known, column] == 1
        if np.isnan(probs[known, column]).any():
            raise ValueError(f"a prob of {label} is NaN")
        logits = np.clip(recover_logits(probs[known, column]), -MAX_LOGIT, MAX_LOGIT)
        if missing := name_missing(present):
            reasons[label] = f"validation has no {missing}"
            continue
        found = fit(logits, present)
        if isinstance(found, str):
            reasons[label] = found
        elif not MIN_SLOPE <= found[0] <= MAX_SLOPE:
            reasons[label] = f"the best slope, {found[0]:.1g}, is not in {MIN_SLOPE:g} to {MAX_SLOPE:g}"
        else:
            slope[column], intercept[column] = found
    return Calibration(method, tuple(labels), slope, intercept, reasons)


def apply_calibration(calibration: Calibration, probs: Floats) -> NDArray[np.float64]:
    """Calibrated probs; those of a label without calibration stay as they are.

    Each label keeps the order of its images. float64, and to be kept so: rounding to float32 would tie what lies close
    together, and so change AUROC. What lands above a logit of 36 is 1 in float64 too: rank by the probs as they were.

    Args:
        calibration: From ``fit_calibration``.
        probs: (N, L).

    Returns:
        (N, L) float64.
    """
    fitted = ~np.isnan(calibration.slope)
    calibrated = np.array(probs, dtype=np.float64)
    logits = recover_logits(probs[:, fitted])
    calibrated[:, fitted] = expit(calibration.slope[fitted] * logits + calibration.intercept[fitted])
    return calibrated


def _fit_temperature(logits: NDArray[np.float64], present: NDArray[np.bool_]) -> tuple[float, float] | str:
    if ((logits >= 0) == present)[logits != 0].all():
        return "the probs of validation are all on the right side of 0.5: no temperature is best"

    def gradient(slope: float) -> float:
        return float(logits @ (expit(slope * logits) - present))

    if gradient(0) >= 0:
        return "the probs of validation run against the targets"
    high = 1.0
    while gradient(high) < 0:
        high *= 2
    return float(brentq(gradient, 0, high, xtol=1e-14 * MIN_SLOPE)), 0.0


def _fit_platt(logits: NDArray[np.float64], present: NDArray[np.bool_]) -> tuple[float, float] | str:
    positives, negatives = logits[present], logits[~present]
    if logits.min() == logits.max():
        return "validation has one prob for all images"
    if positives.min() >= negatives.max() or negatives.min() >= positives.max():
        return "the probs of validation separate the classes: no slope is best"
    centre, spread = logits.mean(), logits.std()
    design = np.stack([(logits - centre) / spread, np.ones(len(logits))], axis=1)

    def gradient(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(design.T @ (expit(design @ at) - present))

    def hessian(at: NDArray[np.float64]) -> NDArray[np.float64]:
        fitted = expit(design @ at)
        return np.asarray((design * (fitted * (1 - fitted))[:, None]).T @ design)

    start = np.array([0.0, np.log(len(positives) / len(negatives))])
    found = root(gradient, start, jac=hessian, tol=1e-14)
    if np.abs(found.fun).max() > 1e-9 * len(logits):
        return "the fit on validation does not converge"
    at = found.x
    slope = float(at[0] / spread)
    if slope <= 0:
        return "the probs of validation run against the targets"
    return slope, float(at[1] - slope * centre)
