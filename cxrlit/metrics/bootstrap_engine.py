"""Metrics on many bootstrap resamples of patients at once, as products with a matrix of patient weights.

This is a second implementation of AUROC, average precision, Brier score and calibration error. Their formulas are in
``auroc.py``, ``average_precision.py``, ``brier_score.py`` and ``calibration_error.py``; with integer weights the values
equal those of the formulas on repeated rows, which ``tests/metrics/test_bootstrap_engine.py`` checks. Metrics at a
threshold have a single implementation, ``confusion.py``, which takes sums of weights too.

Each class sorts and sums the images once; a resample is then a product of a (sparse) matrix with its weights. So
2,000 resamples cost a few hundred times the cost of one, and are exact: ties, integers, no approximation.

Each class also gives the influence of a patient on each metric: the derivative with respect to the patient's
weight, or the change when the patient is removed. Bias-corrected intervals and their degrees of freedom use it.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cxrlit.metrics.calibration_error import assign_bins, find_edges
from cxrlit.metrics.confusion import ConfusionCounts, decision_metrics, f1_over_labels
from cxrlit.metrics.division import divide_or_nan
from cxrlit.metrics.types import Floats

RANKING = ("auroc", "average_precision")
ERRORS = ("brier", "ece")
DECISIONS = ("f1", "precision", "recall", "specificity", "balanced_accuracy", "f1_micro", "f1_weighted")

Values = dict[str, NDArray[np.float64]]


class Weighted(Protocol):
    """Metrics of the images of P patients, as functions of patient weights."""

    def values(self, weights: NDArray[np.float64]) -> Values:
        """(P, B) integer weights -> (K, B) for each metric: one row per label, or one for all labels."""
        ...

    def influence(self) -> Values:
        """(P, K) for each metric: its change with the weight of a patient, at unit weights."""
        ...

    def support(self) -> dict[str, NDArray[np.int64]]:
        """(K,) for each metric: number of patients in its scarcer class or its denominator."""
        ...


class WeightedRanking:
    """``auroc`` and ``average_precision``, or one of them.

    Args:
        names: Names in ``RANKING``.
        scores: (N, L).
        targets: (N, L), NaN unknown: excluded.
        codes: (N,) the patient of each image, 0 to P - 1.
        n_patients: Number of patients P.

    Raises:
        ValueError: A score of a known target is NaN.
    """

    def __init__(
        self, names: Sequence[str], scores: Floats, targets: Floats, codes: NDArray[np.intp], n_patients: int
    ) -> None:
        self.names, self.n_patients = tuple(names), n_patients
        self.steps = [
            find_steps(scores[:, label], targets[:, label], codes, n_patients) for label in range(scores.shape[1])
        ]

    def values(self, weights: NDArray[np.float64]) -> Values:
        """(L, B) of each metric, for (P, B) weights."""
        found: Values = {name: np.empty((len(self.steps), weights.shape[1])) for name in self.names}
        for label, (of_positives, of_negatives) in enumerate(self.steps):
            positives, negatives = of_positives @ weights, of_negatives @ weights  # (G, B), highest score first
            false = np.cumsum(negatives, axis=0)
            n_positives, n_negatives = positives.sum(axis=0), negatives.sum(axis=0)
            if "auroc" in found:
                # Each positive is above all negatives except those at a higher score and half of those at its own.
                lost = np.einsum("gb,gb->b", positives, false) - np.einsum("gb,gb->b", positives, negatives) / 2
                n_pairs = n_positives * n_negatives
                found["auroc"][label] = divide_or_nan(n_pairs - lost, n_pairs)
            if "average_precision" in found:
                true = np.cumsum(positives, axis=0)
                false += true
                precision = np.divide(true, np.maximum(false, 1, out=false), out=true)
                mean = divide_or_nan(np.einsum("gb,gb->b", positives, precision), n_positives)
                found["average_precision"][label] = np.where(n_negatives > 0, mean, np.nan)
        return found

    def influence(self) -> Values:
        """(P, L) of each metric: its derivative with respect to a patient's weight."""
        found: Values = {name: np.empty((self.n_patients, len(self.steps))) for name in self.names}
        for label, (of_positives, of_negatives) in enumerate(self.steps):
            positives, negatives = (np.asarray(part.sum(axis=1)).ravel() for part in (of_positives, of_negatives))
            n_positives, n_negatives = positives.sum(), negatives.sum()
            true, false = np.cumsum(positives), np.cumsum(negatives)
            if "auroc" in found:
                above_negatives = divide_or_nan(n_negatives - false + negatives / 2, n_negatives)
                below_positives = divide_or_nan(true - positives / 2, n_positives)
                area = divide_or_nan((positives * above_negatives).sum(), n_positives)
                found["auroc"][:, label] = of_positives.T @ divide_or_nan(above_negatives - area, n_positives)
                found["auroc"][:, label] += of_negatives.T @ divide_or_nan(below_positives - area, n_negatives)
            if "average_precision" in found:
                precision = divide_or_nan(true, true + false)
                mean = divide_or_nan((positives * precision).sum(), n_positives)
                # An image changes the precision of all positives at or below its score.
                by_positive = np.cumsum((positives * divide_or_nan(false, (true + false) ** 2))[::-1])[::-1]
                by_negative = -np.cumsum((positives * divide_or_nan(true, (true + false) ** 2))[::-1])[::-1]
                change = of_positives.T @ (precision - mean + by_positive) + of_negatives.T @ by_negative
                found["average_precision"][:, label] = divide_or_nan(change, n_positives)
        return found

    def support(self) -> dict[str, NDArray[np.int64]]:
        """(L,) of each metric: number of patients with a positive or with a negative, whichever is smaller."""
        both = [[np.unique(part.indices).size for part in parts] for parts in self.steps]
        return dict.fromkeys(self.names, np.array(both, dtype=np.int64).reshape(-1, 2).min(axis=1))


def find_steps(
    scores: Floats, targets: Floats, codes: NDArray[np.intp], n_patients: int
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """The steps of the ROC curve, from the highest score down.

    All images with the score of a positive form one step. The negatives between two such scores form one step
    together, since no metric tells them apart.

    Returns:
        Two (G, P) arrays: numbers of positives and of negatives of each patient in each step.
    """
    known = ~np.isnan(targets)
    if np.isnan(scores[known]).any():
        raise ValueError("a score is NaN")
    order = np.flatnonzero(known)[np.argsort(-scores[known], kind="stable")]
    scores, present, codes = scores[order], targets[order] == 1, codes[order]
    level = np.cumsum(np.append(False, scores[1:] != scores[:-1]))[: len(order)]
    has_positive = np.bincount(level, present) > 0
    is_start = np.append(True, has_positive[1:] | has_positive[:-1])[: len(has_positive)]
    step = (np.cumsum(is_start) - 1)[level]
    n_steps = int(is_start.sum())
    positives, negatives = (
        sparse.csr_array((np.ones(int(rows.sum())), (step[rows], codes[rows])), shape=(n_steps, n_patients))
        for rows in (present, ~present)
    )
    return positives, negatives


class WeightedDecisions:
    """``DECISIONS`` at fixed thresholds; a label with a NaN threshold is excluded from metrics over all labels.

    Args:
        probs: (N, L).
        targets: (N, L), NaN unknown: excluded.
        codes: (N,) the patient of each image, 0 to P - 1.
        n_patients: Number of patients P.
        thresholds: (L,), NaN for no threshold.
    """

    def __init__(
        self,
        probs: Floats,
        targets: Floats,
        codes: NDArray[np.intp],
        n_patients: int,
        thresholds: NDArray[np.float64],
    ) -> None:
        self.decided = ~np.isnan(thresholds)
        present = probs.astype(np.float64) >= thresholds
        kinds = (  # in the order of ConfusionCounts
            present & (targets == 1),
            present & (targets == 0),
            ~present & (targets == 0),
            ~present & (targets == 1),
        )
        self.counts = np.stack([_sum_by_patient(kind, codes, n_patients) for kind in kinds])  # (4, P, L)
        self.counts[:, :, ~self.decided] = 0

    def values(self, weights: NDArray[np.float64]) -> Values:
        """(L, B) of each metric, (1, B) of one over all labels, for (P, B) weights."""
        return self._of(np.tensordot(self.counts, weights, axes=(1, 0)))

    def influence(self) -> Values:
        """(P, K) of each metric: the mean leave-one-out value less the value without the patient."""
        excluded = self._of((self.counts.sum(axis=1, keepdims=True) - self.counts).transpose(0, 2, 1))
        return {name: (values.mean(axis=1, keepdims=True) - values).T for name, values in excluded.items()}

    def _of(self, sums: NDArray[np.float64]) -> Values:
        counts = ConfusionCounts(*sums)
        return {**decision_metrics(counts), **{name: value[None] for name, value in f1_over_labels(counts).items()}}

    def support(self) -> dict[str, NDArray[np.int64]]:
        """(K,) of each metric: number of patients in its scarcer class or its denominator."""
        tp, fp, tn, fn = self.counts > 0
        positive, negative, chosen = (rows.sum(axis=0) for rows in (tp | fn, fp | tn, tp | fp))
        anyone = np.array([(tp | fn).any(axis=1).sum()])
        return {
            "f1": positive,
            "precision": chosen,
            "recall": positive,
            "specificity": negative,
            "balanced_accuracy": np.minimum(positive, negative),
            "f1_micro": anyone,
            "f1_weighted": anyone,
        }


class WeightedErrors:
    """``brier`` and ``ece``; every resample uses the ECE bins of all images.

    Args:
        probs: (N, L).
        targets: (N, L), NaN unknown: excluded.
        codes: (N,) the patient of each image, 0 to P - 1.
        n_patients: Number of patients P.
    """

    def __init__(self, probs: Floats, targets: Floats, codes: NDArray[np.intp], n_patients: int) -> None:
        self.n_patients = n_patients
        known = ~np.isnan(targets)
        error = np.where(known, probs.astype(np.float64) - np.nan_to_num(targets), 0)
        self.known = _sum_by_patient(known, codes, n_patients)  # (P, L)
        self.signed = _sum_by_patient(error, codes, n_patients)
        self.squared = _sum_by_patient(error**2, codes, n_patients)
        self.by_bin = []  # (bins, P) for each label: sums of prob - target
        for label in range(probs.shape[1]):
            rows = known[:, label]
            of_label = probs[rows, label]
            edges = find_edges(of_label)
            self.by_bin.append(
                sparse.csr_array(
                    (error[rows, label], (assign_bins(of_label, edges), codes[rows])), (len(edges) + 1, n_patients)
                )
            )

    def values(self, weights: NDArray[np.float64]) -> Values:
        """(L, B) of both metrics, for (P, B) weights."""
        n_known = self.known.T @ weights
        gaps = np.stack([np.abs(by_bin @ weights).sum(axis=0) for by_bin in self.by_bin])
        return {"brier": divide_or_nan(self.squared.T @ weights, n_known), "ece": divide_or_nan(gaps, n_known)}

    def gaps(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(L, B) mean prob less share of positives; its absolute value is at most the ECE."""
        return divide_or_nan(self.signed.T @ weights, self.known.T @ weights)

    def noise(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(L, B) distance of a resample from all images over the ECE bins: the error of an ECE by chance."""
        n_known, n_all = self.known.T @ weights, self.known.sum(axis=0)
        noise = np.empty(n_known.shape)
        for label, by_bin in enumerate(self.by_bin):
            gaps = divide_or_nan(by_bin @ weights, np.broadcast_to(n_known[label], (by_bin.shape[0], weights.shape[1])))
            whole = divide_or_nan(np.asarray(by_bin.sum(axis=1)).ravel(), np.full(by_bin.shape[0], n_all[label]))
            noise[label] = np.abs(gaps - whole[:, None]).sum(axis=0)
        return noise

    def influence(self) -> Values:
        """(P, L) of both metrics: the mean leave-one-out value less the value without the patient."""
        n_known = self.known.sum(axis=0) - self.known  # without each patient
        gaps = np.stack(
            [
                np.abs(np.asarray(by_bin.sum(axis=1)).reshape(-1, 1) - by_bin.toarray()).sum(axis=0)
                for by_bin in self.by_bin
            ],
            axis=1,
        )
        excluded = {
            "brier": divide_or_nan(self.squared.sum(axis=0) - self.squared, n_known),
            "ece": divide_or_nan(gaps, n_known),
        }
        return {name: values.mean(axis=0) - values for name, values in excluded.items()}

    def support(self) -> dict[str, NDArray[np.int64]]:
        """(L,) of both metrics: number of patients with a known target."""
        return dict.fromkeys(ERRORS, (self.known > 0).sum(axis=0))


def _sum_by_patient(values: NDArray[np.float64], codes: NDArray[np.intp], n_patients: int) -> NDArray[np.float64]:
    """Sum (N, L) values over the images of each patient, to (P, L)."""
    columns = [np.bincount(codes, values[:, label], minlength=n_patients) for label in range(values.shape[1])]
    return np.stack(columns, axis=1).astype(np.float64)
