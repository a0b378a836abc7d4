"""Measure the change between two recipes that were each trained with several seeds or on several folds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from cxrlit.metrics.bootstrap import Replicates
from cxrlit.metrics.intervals import LEVEL, UNDEFINED, degrees_of_freedom, find_reasons, standard_error
from cxrlit.metrics.types import Floats

Pair = tuple[Replicates, Replicates]
"""A metric of a baseline training, and of the same training with the change."""


def measure_repeated(blocks: Sequence[Sequence[Pair]], labels: Sequence[str]) -> pd.DataFrame:
    """Compute the mean change over trainings, with an interval over patients and trainings.

    Trainings of a block (seeds) predict the same images, so they share resampled patients: the variance of their mean
    change is that of the patients plus that of the seeds, ``sd ** 2 / n``. Blocks (folds) have different patients and
    are independent: the error of their mean follows from the errors of the blocks or, if larger, from the spread
    between blocks. With one training in one block, the interval is over patients only.

    Args:
        blocks: At least one; each has a pair per training, whose replicates come from the same resamples.
        labels: The L labels of the replicates.

    Returns:
        A row for each ``label``, and for ``macro``, the mean over the ``n_labels`` labels that are defined in every
        training: ``baseline`` and ``value``, means over the trainings; ``change`` and its 95 % interval ``low``,
        ``high``; ``sd`` of the change over the ``n_runs`` trainings (with n - 1); ``reason``, why it is missing.

    Source: Cochran, "Approximate significance levels of the Behrens-Fisher test", Biometrics 1964 (the quantile of a
        sum of variances is the mean of their quantiles, weighted by variance: with three seeds, Satterthwaite's degrees
        of freedom give 92 % coverage); Bouthillier et al., "Accounting for variance in machine learning benchmarks",
        MLSys 2021 (seeds and data both vary).
    """
    defined = np.all([~np.isnan(side.estimate) for block in blocks for pair in block for side in pair], axis=0)
    columns = np.flatnonzero(defined)
    of_macro = [[(before.only(columns).macro(), after.only(columns).macro()) for before, after in block]
                for block in blocks]  # fmt: skip
    rows = [
        _combine(blocks).assign(label=list(labels)),
        _combine(of_macro).assign(label="macro", n_labels=len(columns)),
    ]
    table = pd.concat(rows, ignore_index=True).astype({"n_labels": "Int64"})
    return table[["label", "baseline", "value", "change", "low", "high", "sd", "n_runs", "n_labels", "reason"]]


def average_replicates(runs: Sequence[Replicates]) -> Replicates:
    """Average a metric over trainings that predict the same images, with the same resamples of patients."""
    return Replicates(
        np.mean([run.estimate for run in runs], axis=0),
        np.mean([run.values for run in runs], axis=0),
        np.mean([run.influence for run in runs], axis=0),
        np.min([run.support for run in runs], axis=0),
    )


def _combine(blocks: Sequence[Sequence[Pair]]) -> pd.DataFrame:
    n_blocks, changes, parts, reasons = len(blocks), [], [], []
    by_run = np.array([after.estimate - before.estimate for block in blocks for before, after in block])
    for block in blocks:
        before, after = (average_replicates(runs) for runs in zip(*block, strict=True))
        change = after.minus(before)
        changes.append(change.estimate)
        reasons.append(find_reasons(change))
        freedom = [degrees_of_freedom(column) for column in change.influence.T]
        parts.append((standard_error(change) ** 2 / n_blocks**2, np.array(freedom)))
        if len(block) > 1:
            seeds = np.var([new.estimate - old.estimate for old, new in block], axis=0, ddof=1) / len(block)
            parts.append((seeds / n_blocks**2, np.full(len(seeds), len(block) - 1.0)))
    width = _find_width(parts, changes)
    missing = [next(filter(None, of_blocks), "") for of_blocks in zip(*reasons, strict=True)]
    width[[bool(reason) for reason in missing]] = np.nan
    baseline, value = (
        np.mean([np.mean([pair[side].estimate for pair in block], axis=0) for block in blocks], axis=0)
        for side in (0, 1)
    )
    change_ = np.mean(changes, axis=0)
    return pd.DataFrame(
        {
            "baseline": baseline,
            "value": value,
            "change": change_,
            "low": change_ - width,
            "high": change_ + width,
            "sd": by_run.std(axis=0, ddof=1) if len(by_run) > 1 else np.nan,
            "n_runs": len(by_run),
            "reason": ["undefined in one of the trainings" if why == UNDEFINED else why for why in missing],
        }
    )


def _find_width(parts: Sequence[tuple[Floats, Floats]], changes: Sequence[Floats]) -> Floats:
    """Compute (K,) half-widths of intervals from variances and degrees of freedom, and from the blocks' changes."""
    tail = (1 - LEVEL) / 2
    variance = np.sum([part for part, _ in parts], axis=0)
    weighted = np.sum([part * -stdtrit(freedom, tail) for part, freedom in parts], axis=0)
    quantile = np.divide(weighted, variance, out=np.zeros_like(variance), where=variance > 0)
    if len(changes) > 1:
        between = np.var(changes, axis=0, ddof=1) / len(changes)
        quantile = np.where(between > variance, -stdtrit(len(changes) - 1, tail), quantile)
        variance = np.maximum(variance, between)
    width: Floats = np.sqrt(variance) * quantile
    return width
