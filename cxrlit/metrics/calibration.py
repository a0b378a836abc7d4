"""Temperature and Platt scaling of probs, fitted on validation and fixed from then on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, root
from scipy.special import expit

from cxrlit.metrics.types import Floats

Method = Literal["temperature", "platt"]

MAX_LOGIT = 25 * np.log(2)  # 17.3: in float32, the sigmoid of a larger logit is 1
MIN_SLOPE, MAX_SLOPE = 1e-6, 1e6
"""Limits of the slope; beyond them float64 rounding would tie different logits."""


@dataclass(frozen=True)
class Calibration:
    """Recalibration: a label's prob becomes the sigmoid of ``slope * logit + intercept``.

    Attributes:
        method: ``temperature``: the slope is 1 / temperature, the intercept 0. ``platt``: both are fitted.
        labels: The L labels.
        slope: (L,) float64, in [``MIN_SLOPE``, ``MAX_SLOPE``], which keeps the order of the images; NaN where
            validation does not determine it.
        intercept: (L,) float64; NaN where the slope is NaN.
        reasons: Why a label is not calibrated, by label.
    """

    method: Method
    labels: tuple[str, ...]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    reasons: dict[str, str]


def recover_logits(probs: Floats) -> NDArray[np.float64]:
    """The finite logits of probs, in the same order.

    float32 rounds values above 1 - 2^-25 to 1 and values below 2^-150 to 0. A prob of 1 or 0 is taken as exactly
    that bound, half a step beyond the nearest other float32 number, so that it stays distinct.

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
    top = 2.0**-25 if probs.dtype == np.float32 else 2.0**-54  # half a step below 1
    exact = np.clip(probs.astype(np.float64), 2.0**-150, 1.0)
    return np.log(exact) - np.log(np.maximum(1 - exact, top))


def name_missing(present: NDArray[np.bool_]) -> str:
    """What a label lacks: ``known target``, ``positive`` or ``negative``; empty if it has both classes.

    Args:
        present: (K,) of its K known targets.
    """
    if not len(present):
        return "known target"
    return "positive" if not present.any() else "negative" if present.all() else ""


def fit_calibration(probs: Floats, targets: Floats, labels: Sequence[str], method: Method) -> Calibration:
    """Fit each label by maximum likelihood; the loss is convex, so there is at most one solution.

    A label is not fitted, with a reason, where the likelihood has no maximum (a single class, classes that do not
    overlap, one score for all images), or where the best slope is zero, negative (which would reverse the order) or
    outside ``MIN_SLOPE`` to ``MAX_SLOPE``.

    During the fit only, logits are clipped to plus and minus 17.3, float32's own limit near 1. Otherwise a prob that
    a file rounded to 0 would count as e^-104 and outweigh all other images.

    Args:
        probs: (N, L) of the validation images.
        targets: (N, L), NaN unknown: excluded.
        labels: The L labels.
        method: ``temperature`` or ``platt``, see ``Calibration``.

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
    """Calibrated probs; probs of a label without calibration stay unchanged.

    The order of each label's images stays the same. Keep the result in float64: rounding to float32 would tie
    close values and change AUROC. Above a logit of 36 even float64 rounds to 1: rank by the original probs.

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
