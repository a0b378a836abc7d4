"""The difference between two groups of images in a metric in [0, 1], with its interval and p-value.

A small group can be right, or wrong, in nearly all of its images by chance, and its standard error is then close to 0:
the standard errors that serve for two models on the same images would flag a group of 15 to 30 patients ten times too
often (measured at p < 0.001). On the logit scale, a small group has a wide interval. So the interval of each side is
computed there, and the two are joined into that of the difference. A side that is right, or wrong, in all of its images
has the exact interval of a proportion, with its patients as trials.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from cxrlit.metrics.bootstrap import Replicates
from cxrlit.metrics.intervals import LEVEL, degrees_of_freedom, standard_error

STEPS = 60  # of a bisection
MIN_P = 1e-15
"""Smallest p; quantiles of Student's t beyond it cannot be computed, and add nothing."""


@dataclass(frozen=True)
class Differences:
    """K differences, each between two sides of the same resamples.

    Attributes:
        first, second: (K,) the metric of each side; the difference is first minus second.
        errors: (2, K) standard errors of their logits; 0 for a side that is 0 or 1.
        freedom: (2, K) degrees of freedom of the errors.
        correlation: (K,) correlation of the two over the resamples; not 0 if the sides share patients.
        support: (2, K) number of patients on each side.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    errors: NDArray[np.float64]
    freedom: NDArray[np.float64]
    correlation: NDArray[np.float64]
    support: NDArray[np.int64]

    def interval(self, level: float | NDArray[np.float64] = LEVEL) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute (K,) low and (K,) high ends of the intervals.

        Args:
            level: Confidence level in (0, 1), one for all or (K,).

        Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
            Biometrika 1934 (a side that is 0 or 1); Zou and Donner, "Construction of confidence limits about effect
            measures: a general approach", Statistics in Medicine 2008 (the interval of a difference from those of its
            sides); Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
            Medicine 1998.
        """
        return self._bound((1 - np.asarray(level)) / 2)

    def p(self) -> NDArray[np.float64]:
        """Compute (K,) two-sided p-values of no difference: at most 1 - level if that level's interval excludes 0.

        Not below ``MIN_P``.
        """
        low, high = np.full(self.first.shape, np.log(MIN_P)), np.zeros(self.first.shape)
        for _ in range(STEPS):
            middle = (low + high) / 2
            ends = self._bound(np.exp(middle) / 2)
            holds = (ends[0] <= 0) & (ends[1] >= 0)
            low, high = np.where(holds, middle, low), np.where(holds, high, middle)
        return np.where(np.isnan(self.first - self.second), np.nan, np.exp(high))

    def _bound(self, tail: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        widths = -stdtrit(self.freedom, tail) * self.errors
        sides = np.stack([self.first, self.second])
        down, up = sides - expit(logit(sides) - widths), expit(logit(sides) + widths) - sides
        certain = 1 - tail ** (1 / np.maximum(self.support, 1))
        down, up = np.where(sides == 1, certain, down), np.where(sides == 0, certain, up)
        apart = np.abs(np.subtract(*(sides * (1 - sides) * widths)))
        difference = self.first - self.second
        low, high = difference - self._join(down[0], up[1], apart), difference + self._join(up[0], down[1], apart)
        return np.maximum(low, -1), np.minimum(high, 1)

    def _join(
        self, first: NDArray[np.float64], second: NDArray[np.float64], apart: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Compute the root of ``first^2 + second^2 - 2 r first second``.

        If r > 0, it can fall while both grow, so that an interval may not contain a narrower one. So it is written as
        ``(1 - r) (first^2 + second^2) + r (first - second)^2``, where the last difference, ``apart``, is taken
        before the two bend at the ends of [0, 1].
        """
        alike, opposite = np.maximum(self.correlation, 0), np.minimum(self.correlation, 0)
        squares = (1 - alike) * (first**2 + second**2) + alike * apart**2 - 2 * opposite * first * second
        return np.asarray(np.sqrt(squares))


def find_differences(first: Replicates, second: Replicates) -> Differences:
    """Compute the differences of two sets of K columns from the same resamples; NaN if a side is undefined."""
    sides = (first, second)
    values = np.stack([side.estimate for side in sides])
    slopes = values * (1 - values)
    errors = np.stack([standard_error(side) for side in sides])
    return Differences(
        values[0],
        values[1],
        np.divide(errors, slopes, out=np.zeros_like(slopes), where=slopes != 0),
        np.array([[degrees_of_freedom(column) for column in side.influence.T] for side in sides]),
        np.array([_correlate(*columns) for columns in zip(first.values.T, second.values.T, strict=True)]),
        np.stack([side.support for side in sides]),
    )


def _correlate(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    defined = ~np.isnan(first + second)
    if not defined.any() or not np.ptp(first[defined]) or not np.ptp(second[defined]):
        return 0.0
    return float(np.corrcoef(first[defined], second[defined])[0, 1])
