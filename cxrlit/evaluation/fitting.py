"""An operating point fitted on validation: the calibration first, then the thresholds of what it makes."""

from collections.abc import Mapping, Sequence

import numpy as np

from cxrlit.evaluation.measure.tune_thresholds import tune_thresholds
from cxrlit.metrics.calibration import Method, apply_calibration, fit_calibration
from cxrlit.metrics.operating_point import OperatingPoint, Rule
from cxrlit.metrics.types import Floats


def fit_operating_point(
    probs: Floats,
    targets: Floats,
    labels: Sequence[str],
    *,
    method: Method | None,
    rule: Rule,
    wanted: float | None,
    origin: Mapping[str, str | None],
) -> OperatingPoint:
    """Fit the calibration on validation, and tune the thresholds on its calibrated probs.

    Args:
        probs: (N, L) of the validation images.
        targets: (N, L), NaN unknown: left out.
        labels: The L labels.
        method: Of calibration; None: none.
        rule: What the thresholds are the best for.
        wanted: The sensitivity or specificity, for those rules.
        origin: See ``OperatingPoint``.
    """
    calibration = None if method is None else fit_calibration(probs, targets, labels, method)
    calibrated = probs.astype(np.float64) if calibration is None else apply_calibration(calibration, probs)
    return OperatingPoint(calibration, tune_thresholds(calibrated, targets, labels, rule, wanted), origin)
