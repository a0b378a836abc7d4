"""The table of scores against boxes: each score of each label, its interval, and the scores of the priors.

Intervals of a label's proportions are Wilson's, which are valid even if all maps hit or none does; images of one
patient count as one, as if they were identical. Those of mean counts and of the macro are bootstrapped over patients.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.evaluation.localisation.box_scores import COLUMNS, SHARES, Floats
from cxrlit.metrics.bootstrap import N_REPLICATES, Replicates, draw_weights
from cxrlit.metrics.division import divide_or_nan
from cxrlit.metrics.intervals import interval
from cxrlit.metrics.wilson_interval import wilson_interval

PRIORS = ("random", "centre", "elsewhere")
"""Priors that a heatmap is compared with (``priors.py``)."""


def tabulate_localisation(
    pairs: pd.DataFrame,
    scores: Mapping[str, Floats],
    labels: Sequence[str],
    reason: str = "",
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate each label, metric and T, and the mean over the labels that have boxes.

    Args:
        pairs: A row for each image and label with a box: ``label``, ``image``, ``patient``, ``n_boxes``.
        scores: (P, C) scores of the pairs: of the heatmaps under ``value``, and of each of ``PRIORS``.
        labels: The labels in use.
        reason: Why there are no boxes.
        n_replicates: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        ``label`` (or macro), ``n_boxes``, ``n_images``, ``n_labels`` in a macro, ``metric`` (pointing, iou, iobb,
        iou_false_boxes, iobb_false_boxes), ``threshold`` (T; blank for pointing), ``value``, ``low`` and ``high`` of
        its 95 % interval, a column for each of ``PRIORS``, and ``reason``, why a cell is blank.
    """
    present = [label for label in labels if (pairs["label"] == label).any()]
    codes, patients = pd.Index(present).get_indexer(pd.Index(pairs["label"])), pairs["patient"].to_numpy(object)
    replicates = resample_means(scores["value"], codes, patients, n_replicates, seed) if present else []
    means = {
        name: np.array([values[codes == number].mean(axis=0) for number in range(len(present))])
        for name, values in scores.items()
    }
    nothing = [(np.nan, np.nan, reason or "no box")] * len(COLUMNS)
    by_label, overall = ([interval(each) for each in of] for of in (replicates, [each.macro() for each in replicates]))
    tables = []
    for label in labels:
        if label not in present:
            tables.append(_make_rows(label, pairs.iloc[:0], 0, {}, nothing))
            continue
        number = present.index(label)
        rows = codes == number
        bounds = [(found.low[number], found.high[number], found.reasons[number]) for found in by_label]
        for column in np.flatnonzero(SHARES):
            bounds[column] = (*share_interval(scores["value"][rows, column], patients[rows]), "")
        if np.isnan(means["elsewhere"][number]).any():
            bounds = [(*ends, "; ".join(filter(None, (why, "no box of another patient")))) for *ends, why in bounds]
        tables.append(_make_rows(label, pairs[rows], 1, {name: mean[number] for name, mean in means.items()}, bounds))
    bounds = [(found.low[0], found.high[0], found.reasons[0]) for found in overall]
    macro = {name: mean.mean(axis=0) for name, mean in means.items()} if present else {}
    return pd.concat([*tables, _make_rows("macro", pairs, len(present), macro, bounds or nothing)], ignore_index=True)


def share_interval(values: Floats, patients: NDArray[np.object_]) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a mean of values in [0, 1], with the effective number of images if those of one
    patient were identical.

    Source: Kish, "Survey sampling", 1965 (the effective number); Dean and Pagano, "Evaluating confidence interval
        methods for binomial proportions in clustered surveys", J. Survey Statistics and Methodology 2015 (Wilson's
        with that number).

    >>> [round(end, 3) for end in share_interval(np.zeros(12), np.repeat(["a", "b", "c"], 4))]
    [0.0, 0.561]
    """
    images = np.unique(patients, return_counts=True)[1]
    number = images.sum() ** 2 / (images**2).sum()
    low, high = wilson_interval(np.array([values.mean() * number]), np.array([number]))
    return float(low[0]), float(high[0])


def resample_means(
    values: Floats, codes: NDArray[np.intp], patients: NDArray[np.object_], n_replicates: int, seed: int
) -> list[Replicates]:
    """Compute the mean of each column over the images of each label, on resampled patients.

    Args:
        values: (P, C), a row for each image and label.
        codes: (P,) label, 0 to K - 1, each at least once.
        patients: (P,) patient of the image.
        n_replicates: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        For each column, the replicates of K labels.
    """
    names, owners = np.unique(patients.astype(str), return_inverse=True)
    sums = np.zeros((len(names), codes.max() + 1, values.shape[1]))
    counts = np.zeros(sums.shape[:2])
    np.add.at(sums, (owners, codes), values)
    np.add.at(counts, (owners, codes), 1)
    blocks = []
    for weights in draw_weights(len(names), n_replicates, seed):
        resampled = np.tensordot(weights, sums, axes=(0, 0))  # (B, K, C)
        blocks.append(divide_or_nan(resampled, np.broadcast_to((weights.T @ counts)[..., None], resampled.shape)))
    drawn = np.concatenate(blocks)
    n_images = counts.sum(axis=0)
    estimate = sums.sum(axis=0) / n_images[:, None]
    influence = (sums - estimate * counts[..., None]) / n_images[:, None]
    support = (counts > 0).sum(axis=0)
    return [
        Replicates(estimate[:, column], drawn[..., column], influence[..., column], support)
        for column in range(values.shape[1])
    ]


def _make_rows(
    label: str,
    pairs: pd.DataFrame,
    n_labels: int,
    means: Mapping[str, Floats],
    bounds: Sequence[tuple[float, float, str]],
) -> pd.DataFrame:
    """Make the rows of a label."""
    low, high, reasons = zip(*bounds, strict=True)
    metrics, overlaps = zip(*COLUMNS, strict=True)
    undefined = np.full(len(COLUMNS), np.nan)
    return pd.DataFrame(
        {
            "label": label,
            "n_boxes": int(pairs["n_boxes"].sum()),
            "n_images": pairs["image"].nunique(),
            "n_labels": n_labels,
            "metric": metrics,
            "threshold": overlaps,
            "value": means.get("value", undefined),
            "low": low,
            "high": high,
            **{name: means.get(name, undefined) for name in PRIORS},
            "reason": reasons,
        }
    )
