"""Compare two measurements of the same or of other patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxrlit.evaluation.measure.measure import OVER_LABELS, Measured
from cxrlit.metrics.bootstrap import Replicates
from cxrlit.metrics.intervals import interval, interval_of_change


def compare_parts(
    first: Measured, second: Measured, names: tuple[str, str], same_patients: bool, why_no_interval: str = ""
) -> pd.DataFrame:
    """Tabulate every metric of two measurements, and the change from the first to the second.

    A macro is over the labels that both define.

    Args:
        first: For example the internal test.
        second: For example the external images.
        names: Names of the two in the columns.
        same_patients: Whether they have the same images, with paired resamples; else resamples are independent.
        why_no_interval: Why changes have no interval, for example if they share only some patients.

    Returns:
        A row for each metric and label: ``metric``, ``label``; for both names the value, ``_low`` and ``_high``;
        ``change``, ``change_low``, ``change_high``; ``n_labels`` of a macro; ``reason``, why cells are blank.
    """
    rows = []
    for metric, before in first.replicates.items():
        after = second.replicates[metric]
        name, labels = ("f1", [OVER_LABELS[metric]]) if metric in OVER_LABELS else (metric, first.labels)
        rows.append(_tabulate(name, labels, before, after, names, same_patients, why_no_interval))
        if metric not in OVER_LABELS:
            both = np.flatnonzero(~np.isnan(before.estimate + after.estimate))
            macros = before.only(both).macro(), after.only(both).macro()
            of_macro = _tabulate(name, ["macro"], *macros, names, same_patients, why_no_interval)
            rows.append(of_macro.assign(n_labels=len(both)))
    return pd.concat(rows, ignore_index=True).astype({"n_labels": "Int64"})


def _tabulate(
    metric: str,
    labels: Sequence[str],
    before: Replicates,
    after: Replicates,
    names: tuple[str, str],
    same_patients: bool,
    why_no_interval: str,
) -> pd.DataFrame:
    columns: dict[str, Any] = {"metric": metric, "label": list(labels)}
    reasons = []
    for name, replicates in zip(names, (before, after), strict=True):
        found = interval(replicates)
        columns |= {name: replicates.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        reasons.append([f"{name}: {reason}" if reason else "" for reason in found.reasons])
    change = after.minus(before) if same_patients else after.minus_other_patients(before)
    found = interval_of_change(change)
    low, high = (np.nan, np.nan) if why_no_interval else (found.low, found.high)
    columns |= {"change": change.estimate, "change_low": low, "change_high": high, "n_labels": None}
    reasons.append([f"change: {why_no_interval}" if why_no_interval else ""] * len(columns["label"]))
    columns["reason"] = ["; ".join(filter(None, pair)) for pair in zip(*reasons, strict=True)]
    return pd.DataFrame(columns)
