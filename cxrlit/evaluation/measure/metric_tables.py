"""Tables of an evaluation, made from the measurements."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxrlit.evaluation.measure.measure import AT_THRESHOLD, METRICS, Measured, explain_undefined, tabulate_decisions
from cxrlit.evaluation.measure.tune_thresholds import Stability
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.metrics.net_benefit import net_benefit
from cxrlit.metrics.operating_point import OperatingPoint

DECISION_THRESHOLDS = np.arange(1, 200) / 200
"""Thresholds of the decision curves: 0.5 % to 99.5 %."""


def tabulate_labels(parts: Sequence[Measured]) -> pd.DataFrame:
    """``eval_per_label_auroc.csv``: all metrics of each label.

    Returns:
        A row for each ``split`` and ``label``: ``auroc``, ``average_precision``, ``positives``, ``images`` with a known
        target, ``reason``, why cells are blank; then ``auroc_low``, ``auroc_high``, and every other metric with its
        interval.
    """
    tables = []
    for measured in parts:
        metrics = measured.metrics[measured.metrics["label"].isin(measured.labels)]
        wide = widen(metrics).reindex(measured.labels)
        counts = measured.counts.set_index("label")
        first = ["auroc", "average_precision"]
        tables.append(
            pd.concat(
                [
                    pd.Series(measured.part, index=wide.index, name="split"),
                    wide[first],
                    counts[["positives", "images"]],
                    join_reasons(metrics).reindex(measured.labels),
                    wide.drop(columns=first),
                ],
                axis=1,
            )
            .rename_axis("label")
            .reset_index()
            .pipe(lambda table: table[["split", "label", *table.columns[2:]]])
        )
    return pd.concat(tables, ignore_index=True)


def tabulate_summary(parts: Sequence[Measured], origin: Mapping[str, Any]) -> pd.DataFrame:
    """``eval_summary.csv``: a row for each split.

    Args:
        parts: The measured parts.
        origin: Columns on the origin of the numbers: split hash, checkpoint, how it predicted.

    Returns:
        ``split``, ``auroc_macro`` over ``n_labels`` labels, ``f1_macro`` over ``n_labels_f1`` labels, ``f1_micro``,
        ``f1_weighted`` (by positives), ``n_images``, ``n_patients``, the columns of ``origin``; then the intervals of
        these, and every other macro with its interval; ``reason``, why cells are blank.
    """
    rows = []
    for measured in parts:
        over = measured.metrics[~measured.metrics["label"].isin(measured.labels)]
        over = over.assign(metric=over["metric"] + "_" + over["label"]).assign(label="all")
        wide: dict[str, Any] = widen(over, over["metric"].tolist()).iloc[0].to_dict()  # type: ignore[assignment]
        n_labels = over.set_index("metric")["n_labels"]
        first = {
            "split": measured.part,
            "auroc_macro": wide.pop("auroc_macro"),
            "n_labels": int(n_labels["auroc_macro"]),
            "f1_macro": wide.pop("f1_macro"),
            "n_labels_f1": int(n_labels["f1_macro"]),
            "f1_micro": wide.pop("f1_micro"),
            "f1_weighted": wide.pop("f1_weighted"),
            "n_images": len(measured.predictions),
            "n_patients": measured.predictions["patient"].nunique(),
        }
        rows.append({**first, **origin, **wide, "reason": join_reasons(over)["all"]})
    return pd.DataFrame(rows)


def tabulate_confusion(measured: Measured, point: OperatingPoint) -> pd.DataFrame:
    """``confusion_template.csv``: decisions of one split at the fixed thresholds, a row for each label.

    Returns:
        ``label``, ``threshold`` of the calibrated probs, ``threshold_prob``, the equivalent for raw probs,
        ``TP``, ``FP``, ``TN``, ``FN``, ``precision``, ``recall``, ``specificity``, ``F1``, ``reason``, why cells are
        blank; then ``balanced_accuracy`` and the intervals.
    """
    probs, targets = split_arrays(measured.predictions)
    values = point.thresholds.values
    metrics = measured.metrics[
        measured.metrics["label"].isin(measured.labels) & measured.metrics["metric"].isin(AT_THRESHOLD)
    ]
    wide = widen(metrics, AT_THRESHOLD).reindex(measured.labels).reset_index(drop=True)
    wide = wide.rename(columns=lambda name: name.replace("f1", "F1"))
    first = ["precision", "recall", "specificity", "F1"]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "label": measured.labels,
                    "threshold": values,
                    "threshold_prob": point.threshold_probs(probs.dtype),
                }
            ),
            tabulate_decisions(measured.calibrated, targets, values),
            wide[first],
            join_reasons(metrics).reindex(measured.labels).reset_index(drop=True),
            wide.drop(columns=first),
        ],
        axis=1,
    )


def tabulate_thresholds(point: OperatingPoint, stability: Stability | None, dtype: Any = np.float32) -> pd.DataFrame:
    """``eval_thresholds.csv``: thresholds, calibration and stability of the thresholds.

    Args:
        point: Calibration and thresholds.
        stability: Stability of the thresholds, if they were tuned.
        dtype: Type of the probs.

    Returns:
        ``label``, ``threshold`` of the calibrated probs, ``threshold_prob`` of the raw probs, ``slope`` and
        ``intercept`` of the calibration, ``f1_val`` at the threshold; then the fields of ``Stability``:
        ``threshold_low``, ``threshold_high``, ``f1_val_low``, ``f1_val_high``, ``f1_val_elsewhere``; ``reason``, why
        cells are blank.
    """
    calibration, thresholds = point.calibration, point.thresholds
    blank = np.full(len(point.labels), np.nan)
    reasons = []
    for row, label in enumerate(point.labels):
        unstable = stability.reasons[row] if stability else "the thresholds were given"
        why = {
            "no threshold": thresholds.reasons.get(label),
            "no calibration": calibration.reasons.get(label) if calibration else None,
            "no stability": None if np.isnan(thresholds.values[row]) else unstable,
        }
        reasons.append("; ".join(f"{what}: {reason}" for what, reason in why.items() if reason))
    return pd.DataFrame(
        {
            "label": point.labels,
            "threshold": thresholds.values,
            "threshold_prob": point.threshold_probs(dtype),
            "slope": calibration.slope if calibration else blank,
            "intercept": calibration.intercept if calibration else blank,
            "f1_val": thresholds.f1,
            "threshold_low": stability.low if stability else blank,
            "threshold_high": stability.high if stability else blank,
            "f1_val_low": stability.f1_low if stability else blank,
            "f1_val_high": stability.f1_high if stability else blank,
            "f1_val_elsewhere": stability.f1_elsewhere if stability else blank,
            "reason": reasons,
        }
    )


def tabulate_decision_curves(measured: Measured, point: OperatingPoint) -> pd.DataFrame:
    """``eval_decision_curves.csv``: net benefit of one split over thresholds on the calibrated probs.

    Returns:
        A row for each ``label`` and ``threshold`` of ``DECISION_THRESHOLDS``: ``net_benefit`` of the model, and of
        treating all (``net_benefit_all``) and no images (``net_benefit_none``, 0); ``reason``, why cells are blank.
    """
    _, targets = split_arrays(measured.predictions)
    reasons = explain_undefined("auroc", measured.counts, point, measured.labels)
    tables = []
    for column, (label, reason) in enumerate(zip(measured.labels, reasons, strict=True)):
        probs, known = measured.calibrated[:, column], targets[:, column]
        model, treat_all = (net_benefit(each, known, DECISION_THRESHOLDS) for each in (probs, np.ones_like(probs)))
        tables.append(
            pd.DataFrame(
                {
                    "label": label,
                    "threshold": DECISION_THRESHOLDS,
                    "net_benefit": model,
                    "net_benefit_all": treat_all,
                    "net_benefit_none": np.where(np.isnan(model), np.nan, 0.0),
                    "reason": np.where(np.isnan(model), reason, ""),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def widen(metrics: pd.DataFrame, names: Sequence[str] = METRICS) -> pd.DataFrame:
    """Reshape ``Measured.metrics`` to a row per label: each metric, its ``_low`` and its ``_high``.

    ``auroc_delong`` is the same AUROC, so only its interval is kept.
    """
    cells = metrics.set_index(["metric", "label"])
    labels = pd.Index(metrics["label"].unique(), name="label")
    columns = {}
    for name in dict.fromkeys(names):
        for kind, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            if not (name == "auroc_delong" and kind == "value"):
                columns[name + end] = cells[kind].loc[name].reindex(labels)
    return pd.DataFrame(columns)


def join_reasons(metrics: pd.DataFrame) -> pd.Series:
    """Join the reasons for blank cells of each label: first for missing values, then for missing intervals."""
    texts = {}
    for label, rows in metrics.groupby("label", sort=False):
        undefined = rows.loc[rows["value"].isna(), "reason"].unique().tolist()
        bare = rows[rows["value"].notna() & rows["reason"].ne("")]
        without = [f"no interval of {', '.join(group['metric'])}: {why}" for why, group in bare.groupby("reason")]
        texts[label] = "; ".join([*undefined, *without])
    return pd.Series(texts, name="reason", dtype=object)
