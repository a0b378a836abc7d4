"""Cross-validation: pool the folds' test predictions; each image is predicted by the model of its own fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlit.core.errors import DataError, name_some
from cxrlit.evaluation.compare.inputs import read_model_predictions
from cxrlit.evaluation.measure.measure import count_images, explain_undefined, tabulate_replicates
from cxrlit.evaluation.predictions import PRED, PROB, list_labels, split_arrays
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.bootstrap import N_REPLICATES, bootstrap
from cxrlit.metrics.confusion import count_decisions, f1_score
from cxrlit.metrics.macro import macro, per_label
from cxrlit.metrics.operating_point import OperatingPoint, no_operating_point
from cxrlit.metrics.types import Floats


@dataclass(frozen=True)
class Fold:
    """One fold: its model's predictions of its own test images.

    Attributes:
        name: Name of the fold.
        predictions: Its predictions table, with raw probs.
        point: Its operating point, fixed on its own validation part.
        caveat: Caveat for its results if its starting weights saw the images; else empty.
    """

    name: str
    predictions: pd.DataFrame
    point: OperatingPoint
    caveat: str = ""

    def measure(self) -> dict[str, Floats]:
        """Compute ``auroc`` and ``f1``, (L + 1,) each: the labels, then their macro."""
        probs, targets = split_arrays(self.predictions)
        values = {
            "auroc": per_label(auroc, probs, targets),
            "f1": measure_f1(self.point.decide(probs), targets).astype(np.float64),
        }
        return {name: np.append(columns, macro(columns).value) for name, columns in values.items()}


def read_fold(name: str, folder: Path) -> Fold:
    """Read a fold from the folder of its evaluation.

    Raises:
        DataError: The folder has no test predictions or no thresholds.
    """
    found = read_model_predictions(folder, "test")
    if isinstance(found.point, str):
        raise DataError(f"{folder}: {found.point}: evaluate the fold anew")
    return Fold(name, found.predictions, found.point.only(list_labels(found.predictions)), found.caveat)


def pool_folds(folds: list[Fold]) -> pd.DataFrame:
    """Pool the out-of-fold predictions into one table, with ``fold`` and the decisions ``pred_<label>``.

    Probs are calibrated by the operating point of their own fold. Raw probs of several models are not on one scale,
    which would lower a pooled AUROC; the order within a fold does not change.

    Args:
        folds: At least one fold.

    Raises:
        DataError: The folds differ in labels, or two of them test the same image.

    Source: Airola et al., "An experimental comparison of cross-validation techniques for estimating the area under the
        ROC curve", Computational Statistics & Data Analysis 2011 (pooled and averaged AUROC).
    """
    labels = list_labels(folds[0].predictions)
    tables = []
    for fold in folds:
        if list_labels(fold.predictions) != labels:
            raise DataError(f"fold {fold.name} has other labels than fold {folds[0].name}: evaluate both anew")
        probs, _ = split_arrays(fold.predictions)
        table = fold.predictions.copy()
        table[[f"{PROB}{label}" for label in labels]] = fold.point.calibrate(probs)
        table[[f"{PRED}{label}" for label in labels]] = fold.point.decide(probs)
        table.insert(2, "fold", fold.name)
        tables.append(table)
    pooled = pd.concat(tables, ignore_index=True)
    twice = pooled.loc[pooled["image"].duplicated(), "image"].tolist()
    if twice:
        raise DataError(
            f"two folds test the same images ({name_some(twice)}): sweep data.fold over one data.split_seed"
        )
    return pooled


def measure_folds(folds: list[Fold], pooled: pd.DataFrame, n_replicates: int = N_REPLICATES) -> pd.DataFrame:
    """Compute AUROC and F1 of a cross-validation, over its folds and over all patients.

    Args:
        folds: The folds.
        pooled: From ``pool_folds``.
        n_replicates: Resamples of the patient bootstrap.

    Returns:
        A row for each ``metric`` (``auroc``, ``f1``) and ``label``, and for ``macro``: ``mean`` and ``sd`` (with n - 1)
        over the ``n_folds`` folds in which it is defined; ``pooled``, the metric of all images together, with its 95 %
        interval ``low`` to ``high`` over patients; ``n_labels``, number of labels in a pooled macro; ``positives``,
        ``images`` and ``patients`` of the pooled metric; ``reason``, why cells are blank. F1 uses the decisions of each
        fold at its own thresholds.
    """
    labels = list_labels(pooled)
    probs, targets = split_arrays(pooled)
    preds = pooled[[f"{PRED}{label}" for label in labels]].to_numpy(np.float64)
    decided = np.where(np.isnan(preds), np.nan, targets).astype(np.float32)
    patients = pooled["patient"].to_numpy()
    by_fold = [fold.measure() for fold in folds]
    tables = []
    for metric, scores, known in (("auroc", probs, targets), ("f1", np.nan_to_num(preds), decided)):
        halves = np.full(len(labels), 0.5)
        replicates = bootstrap([metric], scores, known, patients, halves, n_replicates)[metric]
        counts = count_images(labels, known, patients)
        why = explain_undefined("auroc", counts, no_operating_point(labels, ""), labels)
        if metric == "f1":
            why = [_say_undecided(column, reason) for column, reason in zip(preds.T, why, strict=True)]
        rows = tabulate_replicates(metric, labels, replicates, why).rename(columns={"value": "pooled"})
        rows = rows.merge(counts, on="label", how="left").astype({"positives": "Int64"})
        rows.loc[rows["label"] == "macro", ["images", "patients"]] = len(pooled), len(np.unique(patients))
        tables.append(rows.assign(**summarize_folds([values[metric] for values in by_fold])))
    columns = ["metric", "label", "mean", "sd", "n_folds", "pooled", "low", "high", "n_labels", "positives", "images"]
    table = pd.concat(tables, ignore_index=True)[[*columns, "patients", "reason"]]
    return table.astype({"images": "Int64", "patients": "Int64"})


def _say_undecided(preds: Floats, reason: str) -> str:
    """Why F1 of a label is undefined, from its (N,) decisions and the reason for its targets."""
    if np.isnan(preds).all():
        return "no fold has a threshold"
    return f"{reason} in the folds with a threshold" if np.isnan(preds).any() else reason


def summarize_folds(values: list[Floats]) -> Mapping[str, Floats]:
    """Compute mean and standard deviation of each column over the folds in which it is defined.

    Args:
        values: (K,) values of each fold, NaN undefined.

    Returns:
        ``mean``, ``sd`` (with n - 1) and ``n_folds``, (K,) each. NaN without a fold; ``sd`` also with a single one.

    >>> found = summarize_folds([np.array([0.5, np.nan]), np.array([0.7, 0.9])])
    >>> {name: values.round(3).tolist() for name, values in found.items()}
    {'mean': [0.6, 0.9], 'sd': [0.141, nan], 'n_folds': [2, 1]}
    """
    table = pd.DataFrame(np.stack(values))
    return {"mean": table.mean().to_numpy(), "sd": table.std().to_numpy(), "n_folds": table.count().to_numpy()}


def measure_f1(preds: Floats, targets: Floats) -> Floats:
    """Compute (L,) F1 of (N, L) decisions (1, 0, or NaN for none); NaN undefined."""
    known = np.where(np.isnan(preds), np.nan, targets).astype(np.float32)
    return f1_score(count_decisions(np.nan_to_num(preds), known, np.full(preds.shape[1], 0.5)))
