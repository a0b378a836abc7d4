"""The tables hold what was measured: their columns, and what is blank in them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from predicted import draw_arrays, fix_thresholds, make_table
from sklearn.metrics import confusion_matrix

from cxrlit.core.files import write_csv
from cxrlit.core.labels import LABELS
from cxrlit.evaluation.measure.measure import METRICS, measure
from cxrlit.evaluation.measure.metric_tables import (
    tabulate_confusion,
    tabulate_labels,
    tabulate_summary,
    tabulate_thresholds,
)
from cxrlit.evaluation.measure.tune_thresholds import measure_stability, tune_thresholds
from cxrlit.metrics.operating_point import OperatingPoint

POINT = fix_thresholds(np.linspace(0.2, 0.8, 8))


def test_labels_table() -> None:
    probs, targets = draw_arrays()
    parts = [
        measure("val", make_table(probs, targets), POINT, 100),
        measure("test", make_table(probs[:30], targets[:30]), POINT, 100),
    ]
    table = tabulate_labels(parts)
    assert table.columns[:7].tolist() == [
        "split", "label", "auroc", "average_precision", "positives", "images", "reason"
    ]  # fmt: skip
    assert table["split"].tolist() == ["val"] * 8 + ["test"] * 8
    assert table["label"].tolist() == [*LABELS, *LABELS]
    assert table["positives"].tolist() == [*targets.sum(axis=0), *targets[:30].sum(axis=0)]
    for metric in METRICS:
        for end in ("_low", "_high", *([] if metric == "auroc_delong" else [""])):
            assert metric + end in table
    for row in table.to_dict("records"):
        measured = parts[row["split"] == "test"]
        assert row["f1"] == measured.value("f1", row["label"])
        rows = measured.metrics.set_index(["metric", "label"])
        delong = rows.loc[("auroc_delong", row["label"])]
        assert row["auroc_delong_low"] == pytest.approx(delong["low"], nan_ok=True)


def test_summary() -> None:
    probs, targets = draw_arrays()
    patients = [f"p{row % 10}" for row in range(60)]
    measured = measure("test", make_table(probs, targets, patients), POINT, 100)
    [row] = tabulate_summary([measured], {"split_hash": "abc"}).to_dict("records")
    assert list(row)[:10] == [
        "split", "auroc_macro", "n_labels", "f1_macro", "n_labels_f1", "f1_micro", "f1_weighted",
        "n_images", "n_patients", "split_hash",
    ]  # fmt: skip
    for name in ("auroc_macro", "f1_macro", "f1_micro", "f1_weighted", "brier_macro", "ece_raw_macro"):
        metric, _, label = name.rpartition("_")
        assert row[name] == measured.value(metric, label)
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert (row["n_labels"], row["n_labels_f1"], row["n_images"], row["n_patients"]) == (8, 8, 60, 10)


def test_confusion() -> None:
    probs, targets = draw_arrays()
    table = tabulate_confusion(measure("test", make_table(probs, targets), POINT, 100), POINT)
    assert table.columns[:12].tolist() == [
        "label", "threshold", "threshold_prob", "TP", "FP", "TN", "FN", "precision", "recall", "specificity", "F1",
        "reason",
    ]  # fmt: skip
    assert {"F1_low", "F1_high", "balanced_accuracy", "balanced_accuracy_low", "recall_high"} < set(table.columns)
    for column, row in enumerate(table.to_dict("records")):
        decided = probs[:, column].astype(float) >= POINT.thresholds.values[column]
        (tn, fp), (fn, tp) = confusion_matrix(targets[:, column] == 1, decided)
        assert (row["TP"], row["FP"], row["TN"], row["FN"]) == (tp, fp, tn, fn)
        assert row["label"] == LABELS[column]
        assert row["threshold"] == POINT.thresholds.values[column]


def test_a_blank_cell_has_its_reason(tmp_path: Path) -> None:
    probs, targets = draw_arrays()
    targets[:, 0] = 0
    targets[:, 2] = 1
    probs[:, 3] = 0
    values = np.full(8, 0.4)
    values[1] = np.nan
    point = fix_thresholds(values, {LABELS[1]: "validation has no positive"})
    measured = measure("test", make_table(probs, targets), point, 100)
    write_csv(tmp_path / "confusion.csv", tabulate_confusion(measured, point))
    table = pd.read_csv(tmp_path / "confusion.csv", dtype=str, keep_default_na=False).set_index("label")
    assert set(table.loc[LABELS[1]].drop("reason")) == {""}
    assert table.loc[LABELS[1], "reason"] == "no threshold: validation has no positive"
    assert table.loc[LABELS[0], ["recall", "F1"]].tolist() == ["", ""]
    assert table.loc[LABELS[0], "reason"].startswith("no positive; no interval of ")
    assert table.loc[LABELS[2], "reason"].startswith("no negative; no interval of ")
    assert table.loc[LABELS[3], "reason"].startswith("nothing decided present; no interval of ")
    assert table.loc[LABELS[3], ["TP", "FP"]].tolist() == ["0", "0"]  # counts, not 0.0
    write_csv(tmp_path / "labels.csv", tabulate_labels([measured]))
    for name in ("confusion", "labels"):
        table = pd.read_csv(tmp_path / f"{name}.csv", dtype=str, keep_default_na=False)
        numbers = table.drop(columns="reason")
        assert ((numbers == "").any(axis=1) == (table["reason"] != "")).all()


def test_thresholds_table() -> None:
    probs, targets = draw_arrays()
    targets[:, 0] = 0
    thresholds = tune_thresholds(probs, targets, LABELS, "f1_quantiles")
    stability = measure_stability(thresholds, probs, targets, np.arange(60), 100)
    table = tabulate_thresholds(OperatingPoint(None, thresholds, {}), stability).set_index("label")
    assert table.loc[LABELS[0], "reason"] == "no threshold: validation has no positive"
    rest = table.iloc[1:]
    assert (rest["threshold_low"] <= rest["threshold_high"]).all()
    assert rest["f1_val"].between(rest["f1_val_low"], rest["f1_val_high"]).all()
    given = tabulate_thresholds(POINT, None)
    assert (given["reason"] == "no stability: the thresholds were given").all()


def test_test_images_have_no_say_in_thresholds() -> None:
    probs, targets = draw_arrays()
    point = OperatingPoint(None, tune_thresholds(probs, targets, LABELS), {})
    first, second = (
        tabulate_confusion(measure("test", make_table(*arrays), point, 100), point)
        for arrays in ((probs, targets), (1 - probs, 1 - targets))
    )
    pd.testing.assert_series_equal(first["threshold"], second["threshold"])
    assert not first["TP"].equals(second["TP"])
