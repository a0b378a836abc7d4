"""Metrics on bootstrap resamples of patients. Images of one patient are alike; treating them as independent would
underestimate the variation. ``intervals.py`` turns the replicates into intervals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.metrics.bootstrap_engine import (
    DECISIONS,
    ERRORS,
    RANKING,
    Weighted,
    WeightedDecisions,
    WeightedErrors,
    WeightedRanking,
)
from cxrlit.metrics.types import Floats

N_REPLICATES = 2000
BLOCK = 64  # resamples computed at once; their working set fits in the cache


@dataclass(frozen=True)
class Replicates:
    """A metric of K labels, or one number over all labels (K = 1), on the images and on resampled patients.

    Attributes:
        estimate: (K,) values on the images themselves; NaN undefined.
        values: (B, K) values in each resample; NaN undefined.
        influence: (P, K) change of the metric with the weight of each patient.
        support: (K,) number of patients in the scarcer class, or in the denominator.
        noise: (B, K) error of the ECE by chance; None for other metrics. See ``intervals.py``.
        gaps: (1 + B, K) mean prob less share of positives, on the images and in each resample; None without ECE.
        of: The two metrics of a change; None for a metric.
    """

    estimate: NDArray[np.float64]
    values: NDArray[np.float64]
    influence: NDArray[np.float64]
    support: NDArray[np.int64]
    noise: NDArray[np.float64] | None = None
    gaps: NDArray[np.float64] | None = None
    of: "tuple[Replicates, Replicates] | None" = None

    @property
    def n_replicates(self) -> int:
        """Number of resamples B."""
        return len(self.values)

    def macro(self) -> "Replicates":
        """The mean over the labels that are defined on the images.

        If one of these labels is undefined in a resample, so is the mean: fewer labels would give another quantity.
        """
        defined = ~np.isnan(self.estimate)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            chosen = values[..., defined]
            return chosen.mean(axis=-1, keepdims=True) if defined.any() else np.full((*chosen.shape[:-1], 1), np.nan)

        return Replicates(
            mean(self.estimate),
            mean(self.values),
            mean(np.nan_to_num(self.influence)),  # NaN: the label has a single patient; few resamples include it
            np.array([len(self.influence)]),
            None if self.noise is None else mean(self.noise),
            None if self.gaps is None else mean(self.gaps),
        )

    def only(self, columns: Sequence[int] | NDArray[np.intp]) -> "Replicates":
        """The replicates of some labels."""
        chosen = np.asarray(columns, dtype=np.intp)
        return Replicates(
            self.estimate[chosen],
            self.values[:, chosen],
            self.influence[:, chosen],
            self.support[chosen],
            None if self.noise is None else self.noise[:, chosen],
            None if self.gaps is None else self.gaps[:, chosen],
            (self.of[0].only(chosen), self.of[1].only(chosen)) if self.of else None,
        )

    def minus(self, other: "Replicates") -> "Replicates":
        """The paired change from ``other`` to this, on the same images and resamples of patients."""
        return Replicates(
            self.estimate - other.estimate,
            self.values - other.values,
            self.influence - other.influence,
            np.minimum(self.support, other.support),
            of=(other, self),
        )

    def minus_other_patients(self, other: "Replicates") -> "Replicates":
        """The unpaired change from ``other`` to this, on different patients that are resampled separately."""
        return Replicates(
            self.estimate - other.estimate,
            self.values - other.values,
            np.concatenate([self.influence, other.influence]),
            np.minimum(self.support, other.support),
            of=(other, self),
        )


def bootstrap(
    metrics: Sequence[str],
    scores: Floats,
    targets: Floats,
    patients: NDArray[Any],
    thresholds: NDArray[np.float64] | None = None,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Replicates]:
    """Metrics on the images and on resampled patients.

    All metrics share the same resamples, and so do calls with the same patients, seed and number of resamples: the
    replicates of two models, or of two subgroups (targets NaN outside the group), are paired. They depend neither on
    the order of the rows nor on the machine.

    Args:
        metrics: Names in ``RANKING``, ``ERRORS`` and ``DECISIONS`` of ``bootstrap_engine.py``. For a macro metric use
            ``Replicates.macro()`` of the per-label one; ``f1_micro`` and ``f1_weighted`` have K = 1.
        scores: (N, L); probs, unless all metrics are in ``RANKING``.
        targets: (N, L), NaN unknown: excluded.
        patients: (N,) the name of each image's patient, or a code that does not depend on the order of rows.
        thresholds: (L,), NaN for a label without a threshold; for ``DECISIONS`` only.
        n_replicates: Number of resamples B.
        seed: Seed of the resamples.

    Returns:
        Replicates by metric, in the given order.

    Raises:
        ValueError: A metric is unknown, shapes differ, a score of a known target is NaN, a prob is outside [0, 1], a
            label has no threshold for decisions, or there are no images.

    Memory: 16 bytes per replicate, label and metric, and a working set of some tens of MB.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; over clusters: Field and Welsh,
        "Bootstrapping clustered data", JRSS B 2007.
    """
    unknown = [name for name in metrics if name not in (*RANKING, *ERRORS, *DECISIONS)]
    if unknown:
        raise ValueError(f"no metric is called {unknown[0]}; there are {', '.join((*RANKING, *ERRORS, *DECISIONS))}")
    if scores.shape != targets.shape or len(patients) != len(scores):
        raise ValueError(f"scores {scores.shape}, targets {targets.shape} and {len(patients)} patients do not agree")
    if not len(scores):
        raise ValueError("no images")
    known = scores[~np.isnan(targets)]
    if np.isnan(known).any():
        raise ValueError("a score is NaN")
    if not set(metrics) <= set(RANKING) and len(known) and (known.min() < 0 or known.max() > 1):
        raise ValueError("a prob is outside [0, 1]")
    names, codes = np.unique(patients, return_inverse=True)
    sources: list[Weighted] = []
    errors = None
    if ranking := [name for name in metrics if name in RANKING]:
        sources.append(WeightedRanking(ranking, scores, targets, codes, len(names)))
    if set(metrics) & set(ERRORS):
        sources.append(errors := WeightedErrors(scores, targets, codes, len(names)))
    if set(metrics) & set(DECISIONS):
        if thresholds is None or thresholds.shape != scores.shape[1:]:
            raise ValueError(f"decisions need {scores.shape[1]} thresholds")
        sources.append(WeightedDecisions(scores, targets, codes, len(names), thresholds))

    blocks = []
    for weights in draw_weights(len(names), n_replicates, seed):
        values = {name: value for source in sources for name, value in source.values(weights).items()}
        if errors and "ece" in metrics:
            values |= {"noise": errors.noise(weights), "gaps": errors.gaps(weights)}
        blocks.append(values)
    estimate, influence, support = {}, {}, {}
    once = np.ones((len(names), 1))
    for source in sources:
        estimate.update(source.values(once))
        influence.update(source.influence())
        support.update(source.support())

    def join(name: str) -> NDArray[np.float64]:
        return np.concatenate([block[name] for block in blocks], axis=1).T

    return {
        name: Replicates(
            estimate[name][:, 0],
            join(name),
            influence[name],
            np.asarray(support[name], dtype=np.int64),
            join("noise") if name == "ece" else None,
            np.concatenate([errors.gaps(once).T, join("gaps")]) if errors and name == "ece" else None,
        )
        for name in metrics
    }


def draw_weights(n_patients: int, n_replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Weights of patients in each resample: blocks of (P, B) integers whose columns sum to P."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, n_replicates, BLOCK):
        columns = range(start, min(start + BLOCK, n_replicates))
        weights = np.empty((n_patients, len(columns)))
        for column in range(len(columns)):
            drawn = rng.integers(0, n_patients, n_patients)
            weights[:, column] = np.bincount(drawn, minlength=n_patients)
        yield weights
