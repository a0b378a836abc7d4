"""The tables of an evaluation, each a function of the predictions alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxrlit.evaluation.metrics import auroc, average_precision, count_decisions, divide, f1_score, macro, per_label
from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.evaluation.thresholds import Thresholds


def tabulate_auroc(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """AUROC and average precision of each label.

    Args:
        predictions: The predictions table of each split.

    Returns:
        A row for each ``split`` and ``label``: ``auroc``, ``average_precision``, ``positives``, ``images`` with a
        known target, and ``reason``, why a value is undefined.
    """
    tables = []
    for split, table in predictions.items():
        probs, targets = split_arrays(table)
        positives, negatives = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
        reasons = np.where(positives == 0, "no positive", np.where(negatives == 0, "no negative", ""))
        tables.append(
            pd.DataFrame(
                {
                    "split": split,
                    "label": list_labels(table),
                    "auroc": per_label(auroc, probs, targets),
                    "average_precision": per_label(average_precision, probs, targets),
                    "positives": positives,
                    "images": positives + negatives,
                    "reason": reasons,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def tabulate_summary(
    predictions: Mapping[str, pd.DataFrame], thresholds: Thresholds, origin: Mapping[str, Any]
) -> pd.DataFrame:
    """A row for each split: macro AUROC, F1 at the thresholds, what they are over, and what stands behind them.

    Args:
        predictions: The predictions table of each split.
        thresholds: Tuned on validation.
        origin: Columns that say where the numbers come from: split hash, checkpoint.

    Returns:
        ``split``, ``auroc_macro``, ``n_labels`` it is over, ``f1_macro`` over ``n_labels_f1`` labels, ``f1_micro``,
        ``f1_weighted`` (by positives), ``n_images``, ``n_patients``, and the columns of ``origin``.
    """
    rows = []
    for split, table in predictions.items():
        probs, targets = split_arrays(table)
        area = macro(per_label(auroc, probs, targets))
        decided = ~np.isnan(thresholds.values)
        counts = count_decisions(probs[:, decided], targets[:, decided], thresholds.values[decided])
        f1 = f1_score(counts)
        tp, fp, fn = (int(part.sum()) for part in (counts.TP, counts.FP, counts.FN))
        weights = np.where(np.isnan(f1), 0, counts.TP + counts.FN)
        rows.append(
            {
                "split": split,
                "auroc_macro": area.value,
                "n_labels": area.n_labels,
                "f1_macro": macro(f1).value,
                "n_labels_f1": macro(f1).n_labels,
                "f1_micro": float(divide(2 * tp, 2 * tp + fp + fn)),
                "f1_weighted": float(divide((np.nan_to_num(f1) * weights).sum(), weights.sum())),
                "n_images": len(table),
                "n_patients": table["patient"].nunique(),
                **origin,
            }
        )
    return pd.DataFrame(rows)


def tabulate_confusion(predictions: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """Decisions of one split at the fixed thresholds, a row for each label.

    Returns:
        ``label``, ``threshold``, ``TP``, ``FP``, ``TN``, ``FN``, ``precision``, ``recall``, ``specificity``, ``F1``,
        and ``reason``, why cells are blank.
    """
    probs, targets = split_arrays(predictions)
    counts = count_decisions(probs, targets, np.nan_to_num(thresholds.values))
    table = pd.DataFrame(
        {
            "label": thresholds.labels,
            "threshold": thresholds.values,
            **{name: pd.array(getattr(counts, name), dtype="Int64") for name in counts._fields},
            "precision": divide(counts.TP, counts.TP + counts.FP),
            "recall": divide(counts.TP, counts.TP + counts.FN),
            "specificity": divide(counts.TN, counts.TN + counts.FP),
            "F1": f1_score(counts),
        }
    )
    table.loc[np.isnan(thresholds.values), [*counts._fields, "precision", "recall", "specificity", "F1"]] = pd.NA
    reasons = []
    positives, negatives, decided = counts.TP + counts.FN, counts.TN + counts.FP, counts.TP + counts.FP
    for label, n_positive, n_negative, n_decided in zip(thresholds.labels, positives, negatives, decided, strict=True):
        reasons.append(
            f"no threshold: {thresholds.reasons[label]}"
            if label in thresholds.reasons
            else "no positive in test"
            if n_positive == 0
            else "no negative in test"
            if n_negative == 0
            else "nothing decided present"
            if n_decided == 0
            else ""
        )
    return table.assign(reason=reasons)
