"""Gaps between groups, and which of them are significant."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.evaluation.compare.changes import adjust_holm, find_holm_levels
from cxrlit.evaluation.subgroups.group_difference import find_differences
from cxrlit.html.text import format_p
from cxrlit.metrics.bootstrap import Replicates
from cxrlit.metrics.intervals import LEVEL, NO_VARIATION, find_reasons

OTHERS = "the others"
NO_GAP = "no label has a gap"

NAMES = {"auroc": "AUROC", "recall": "recall", "specificity": "specificity"}
"""The metrics whose gaps are tested, in words."""

NUMBERS = ("value", "value_against", "gap", "low", "high", "p", "p_holm", "low_holm", "high_holm")
COLUMNS = ("group", "against", "label", *NUMBERS, "n_tested", "flagged", "n_labels", "reason")


def tabulate_gaps(
    names: Sequence[str], labels: Sequence[str], groups: Sequence[Replicates], sizes: NDArray[np.int64]
) -> pd.DataFrame:
    """Compare each group with the mean of the others; of two groups, the first with the second.

    The mean is weighted by size and excludes groups with too few patients. The weights are the same in every resample:
    those of the actual images.

    Args:
        names: The G groups.
        labels: The L labels.
        groups: The replicates of a metric in each, L columns, all from the same resamples.
        sizes: (G, L) number of images of each value.

    Returns:
        ``COLUMNS``, see ``Subgroups.gaps``: a row for each group and label, and for each group's ``macro`` over the
        labels that have a gap.
    """
    usable = np.array([[not reason for reason in _find_reasons(group)] for group in groups]).reshape(sizes.shape)
    rows: list[dict[str, Any]] = []
    sides: list[tuple[Replicates, Replicates]] = []
    for code, against in _pair(names):
        weights = np.where(usable, sizes, 0.0)
        weights[code] = 0
        group, others = groups[code], _blend(groups, weights)
        reasons = [
            reason or ("" if weight else "none of the others has a value")
            for reason, weight in zip(_find_reasons(group), weights.sum(axis=0).tolist(), strict=True)
        ]
        both = np.flatnonzero([not reason for reason in reasons])
        macro = group.only(both).macro(), others.only(both).macro()
        reasons.append(next(filter(None, (_find_reasons(side)[0] for side in macro)), "") if len(both) else NO_GAP)
        sides += [(group, others), macro]
        for label, reason in zip([*labels, "macro"], reasons, strict=True):
            rows.append({"group": names[code], "against": against, "label": label, "reason": reason})
        rows[-1]["n_labels"] = len(both)
    table = pd.DataFrame(rows, columns=["group", "against", "label", "n_labels", "reason"])
    numbers = dict.fromkeys(NUMBERS, np.full(0, np.nan))
    if rows:
        group, others = (_join(side) for side in zip(*sides, strict=True))
        numbers = _test(group, others, (table["reason"] == "").to_numpy())
    table = table.assign(**numbers).astype({"n_labels": "Int64"})
    table = table.assign(n_tested=int(table["p"].notna().sum()), flagged=table["p_holm"] <= 1 - LEVEL)
    return table[list(COLUMNS)]


def describe_gaps(gaps: pd.DataFrame) -> list[str]:
    """Describe ``Subgroups.gaps``: a sentence for each significant gap, and one if there is none.

    Args:
        gaps: Gaps of all attributes and metrics.
    """
    lines = []
    for attribute, of_attribute in gaps.groupby("attribute", sort=False):
        families = of_attribute.groupby("metric", sort=False)
        tested = {NAMES[str(metric)]: int(rows["n_tested"].iloc[0]) for metric, rows in families}
        lines += [f"{attribute}: {_describe(row)}" for row in of_attribute[of_attribute["flagged"]].to_dict("records")]
        silent = [NAMES[str(metric)] for metric, rows in families if not rows["flagged"].any()]
        if not any(tested.values()):
            lines.append(f"{attribute}: the groups are too small to test any gap")
        elif silent:
            counts = ", ".join(f"{tested[name]} of {name}" for name in silent)
            no = "no" if len(silent) == len(tested) else "no other"
            lines.append(f"{attribute}: {no} gap is more than chance (tested: {counts})")
    return lines


def _describe(row: dict[Hashable, Any]) -> str:
    direction = "lower" if row["gap"] < 0 else "higher"
    p = format_p(row["p_holm"])
    name = NAMES[row["metric"]]
    what = f"macro {name}" if row["label"] == "macro" else f"{name} of {row['label']}"
    ends = sorted(abs(row[end]) for end in ("low_holm", "high_holm"))
    return (
        f"{what} is {direction} in {row['group']} ({row['value']:.3f}) than in "
        f"{row['against']} ({row['value_against']:.3f}), by {abs(row['gap']):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]; "
        f"p {p if p.startswith('<') else f'= {p}'}, Holm over {row['n_tested']} gaps"
    )


def _pair(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Pair each group with the group or groups that it is compared with."""
    if len(names) == 2:
        yield 0, names[1]
    elif len(names) > 2:
        yield from ((code, OTHERS) for code in range(len(names)))


def _find_reasons(replicates: Replicates) -> list[str]:
    """Why there is no gap; a value that never varies, such as a recall of 0, can still have one."""
    return ["" if reason == NO_VARIATION else reason for reason in find_reasons(replicates)]


def _test(group: Replicates, others: Replicates, possible: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Compute all gaps, with Holm's correction over the possible ones; NaN for the others."""
    found = find_differences(group, others)
    p = np.where(possible, found.p(), np.nan)
    numbers = (
        group.estimate,
        others.estimate,
        group.estimate - others.estimate,
        *found.interval(),
        p,
        adjust_holm(p),
        *found.interval(find_holm_levels(p)),
    )
    return {name: np.where(possible, values, np.nan) for name, values in zip(NUMBERS, numbers, strict=True)}


def _blend(groups: Sequence[Replicates], weights: NDArray[np.float64]) -> Replicates:
    """Average groups with (G, L) weights; undefined for a label without weight."""
    total = weights.sum(axis=0)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    undefined = np.where(total > 0, 0.0, np.nan)

    def mean(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        # A part without weight may be NaN, and is ignored.
        summed = sum(np.where(share > 0, part, 0) * share for part, share in zip(parts, shares, strict=True))
        return np.asarray(summed + undefined)

    return Replicates(
        mean([group.estimate for group in groups]),
        mean([group.values for group in groups]),
        mean([group.influence for group in groups]),
        np.max([np.where(share > 0, group.support, 0) for group, share in zip(groups, shares, strict=True)], axis=0),
    )


def _join(parts: Sequence[Replicates]) -> Replicates:
    """Concatenate the columns of all replicates."""
    return Replicates(
        np.concatenate([part.estimate for part in parts]),
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.influence for part in parts], axis=1),
        np.concatenate([part.support for part in parts]),
    )
