"""Compare two models on the same images: every change, and the answer to the question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrlit.core.errors import ConfigError, name_some
from cxrlit.evaluation.compare.changes import Comparison, Metric, compare_metric
from cxrlit.evaluation.compare.inputs import pair_rows
from cxrlit.evaluation.compare.noninferiority import Answer, Question, answer
from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.metrics.bootstrap import N_REPLICATES
from cxrlit.metrics.intervals import UNDEFINED
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.types import Floats


@dataclass(frozen=True)
class ComparisonResult:
    """The changes from a baseline to a candidate.

    Attributes:
        names: Names of the two.
        comparisons: AUROC, and F1 at each model's own operating point.
        excluded: Why a metric is not compared.
        metric: Metric of the question.
        answer: Answer to the question; None without a question.
        n_images: Number of images.
        n_patients: Number of patients.
    """

    names: tuple[str, str]
    comparisons: dict[Metric, Comparison]
    excluded: dict[Metric, str]
    metric: Metric
    answer: Answer | None
    n_images: int
    n_patients: int

    def question_about(self, metric: Metric) -> Question | None:
        """Return the question about a metric; None without one."""
        return self.answer.question if self.answer and metric == self.metric else None

    def tabulate(self) -> pd.DataFrame:
        """Concatenate the tables of all comparisons."""
        return pd.concat([comparison.table for comparison in self.comparisons.values()], ignore_index=True)


def compare_predictions(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    points: tuple[OperatingPoint | str, OperatingPoint | str],
    question: Question | None = None,
    metric: Metric = "auroc",
    names: tuple[str, str] = ("baseline", "candidate"),
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> ComparisonResult:
    """Compare two models on the same images.

    AUROC uses the raw probs, F1 the calibrated probs at the fixed thresholds.

    Args:
        baseline: A predictions table.
        candidate: Another with the same images, patients, labels and targets, in any order.
        points: Operating point of each, or the reason why there is none: then F1 is excluded.
        question: Requirements on the candidate.
        metric: Metric of the question.
        names: Names of the two in messages and results.
        n_replicates: Resamples of the patients, the same for both.
        seed: Seed of the resamples.

    Raises:
        DataError: The two tables do not agree, or an operating point lacks a label.
        ConfigError: The question names an unknown label, or F1 if F1 is excluded.
    """
    baseline = pair_rows(baseline, candidate, names)
    labels = list_labels(candidate)
    if question is not None:
        unknown = [label for label in question.must_improve if label not in labels]
        if unknown:
            raise ConfigError(
                f"must_improve: {unknown[0]} is none of the labels; they are {name_some(labels, limit=20)}"
            )
    (before, targets), (after, _) = split_arrays(baseline), split_arrays(candidate)
    patients = candidate["patient"].to_numpy()
    excluded = _say_left_out(points, names)
    if metric in excluded and question is not None:
        raise ConfigError(f"metric={metric}: {excluded[metric]}; give thresholds, or ask about metric=auroc")
    areas = compare_metric("auroc", before, after, targets, patients, labels, n_replicates=n_replicates, seed=seed)
    missing = _say_missing(targets, labels)
    comparisons: dict[Metric, Comparison] = {"auroc": areas}
    _explain(areas.table, missing)
    first, second = (point.only(labels) if isinstance(point, OperatingPoint) else None for point in points)
    if first and second and "f1" not in excluded:
        scores = compare_metric(
            "f1",
            first.calibrate(before),
            second.calibrate(after),
            targets,
            patients,
            labels,
            (first.thresholds.values, second.thresholds.values),
            n_replicates,
            seed,
        )
        for point, name in ((second, names[1]), (first, names[0])):
            missing |= {label: f"{name}: no threshold: {why}" for label, why in point.thresholds.reasons.items()}
        comparisons["f1"] = scores
        _explain(scores.table, missing)
    return ComparisonResult(
        names,
        comparisons,
        excluded,
        metric,
        None if question is None else answer(comparisons[metric], question),
        len(candidate),
        len(np.unique(patients)),
    )


def _say_left_out(
    points: tuple[OperatingPoint | str, OperatingPoint | str], names: tuple[str, str]
) -> dict[Metric, str]:
    reasons = []
    for point, name in zip(points, names, strict=True):
        if isinstance(point, str):
            reasons.append(f"{name} has no thresholds: {point}")
        elif np.isnan(point.thresholds.values).all():
            reasons.append(
                f"{name} has no thresholds: {next(iter(point.thresholds.reasons.values()), 'none is given')}"
            )
    return {"f1": "; ".join(reasons)} if reasons else {}


def _say_missing(targets: Floats, labels: Sequence[str]) -> dict[str, str]:
    """The missing class of each label that lacks one."""
    lacks = {"no negative": targets == 0, "no positive": targets == 1, "no known target": ~np.isnan(targets)}
    return {
        label: reason
        for reason, there in lacks.items()
        for label, any_there in zip(labels, there.any(axis=0), strict=True)
        if not any_there
    }


def _explain(table: pd.DataFrame, reasons: dict[str, str]) -> None:
    """Fill in the reasons for undefined values."""
    undefined = table["reason"] == UNDEFINED
    table.loc[undefined, "reason"] = table.loc[undefined, "label"].map(reasons).fillna(UNDEFINED)
