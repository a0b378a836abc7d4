"""Every metric of a part against scikit-learn, its interval, and why a cell is blank."""

import numpy as np
import pytest
from predicted import draw_arrays, fix_thresholds, make_table
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.measure.measure import METRICS, measure
from cxrlit.evaluation.measure.tune_thresholds import fit_operating_point
from cxrlit.metrics.intervals import NO_VARIATION
from cxrlit.metrics.operating_point import OperatingPoint


def fit(probs: np.ndarray, targets: np.ndarray) -> OperatingPoint:
    return fit_operating_point(probs, targets, LABELS, method="platt", rule="f1_quantiles", wanted=None, origin={})


def test_every_metric_is_scikit_learns() -> None:
    probs, targets = draw_arrays(200)
    point = fit(probs, targets)
    measured = measure("test", make_table(probs, targets), point, n_replicates=100)
    assert set(measured.metrics["metric"]) == set(METRICS)
    calibrated = point.calibrate(probs)
    for column, label in enumerate(LABELS):
        present, raw, prob = targets[:, column] == 1, probs[:, column], calibrated[:, column]
        decided = prob >= point.thresholds.values[column]
        expected = {
            "auroc": roc_auc_score(present, raw),
            "auroc_delong": roc_auc_score(present, raw),
            "average_precision": average_precision_score(present, raw),
            "brier": brier_score_loss(present, prob),
            "brier_raw": brier_score_loss(present, raw.astype(float)),
            "f1": f1_score(present, decided),
            "precision": precision_score(present, decided),
            "recall": recall_score(present, decided),
            "specificity": recall_score(~present, ~decided),
            "balanced_accuracy": balanced_accuracy_score(present, decided),
        }
        for metric, value in expected.items():
            assert measured.value(metric, label) == pytest.approx(value, abs=1e-12), (metric, label)
    decisions, truth = calibrated >= point.thresholds.values, targets == 1
    for average in ("macro", "micro", "weighted"):
        assert measured.value("f1", average) == pytest.approx(f1_score(truth, decisions, average=average), abs=1e-12)
    assert measured.value("auroc") == pytest.approx(roc_auc_score(truth, probs, average="macro"), abs=1e-12)


def test_intervals_are_there_and_around_the_value() -> None:
    probs, targets = draw_arrays(300)
    rows = measure("test", make_table(probs, targets), fit(probs, targets), n_replicates=300).metrics
    rows = rows[rows["reason"] != NO_VARIATION]  # a recall of 1
    assert len(rows) > 100
    assert (rows["reason"] == "").all()
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    both = rows[rows["label"].isin(LABELS)].set_index(["metric", "label"])
    widths = both["high"] - both["low"]
    # One image a patient: DeLong's interval and the bootstrap's say the same.
    np.testing.assert_allclose(widths["auroc"], widths["auroc_delong"], rtol=0.25)


def test_images_of_a_patient_widen_the_interval() -> None:
    probs, targets = draw_arrays(50)
    point = fit(probs, targets)
    apart = make_table(np.tile(probs, (4, 1)), np.tile(targets, (4, 1)))
    names = [f"patient {row % 50}" for row in range(200)]
    together = make_table(np.tile(probs, (4, 1)), np.tile(targets, (4, 1)), names)
    rows = [measure("test", table, point, n_replicates=300).metrics for table in (apart, together)]
    widths = [float((table["high"] - table["low"])[table["metric"] == "auroc"].mean()) for table in rows]
    assert widths[1] > 1.6 * widths[0]  # four images of each patient count once: twice as wide


def test_calibration_changes_errors_and_no_rank() -> None:
    probs, targets = draw_arrays(400)
    probs = probs**0.3  # inflated, as weighted BCE does
    point = fit(probs, targets)
    measured = measure("test", make_table(probs, targets), point, n_replicates=100)
    assert measured.value("ece") < 0.5 * measured.value("ece_raw")
    assert measured.value("brier") < measured.value("brier_raw")
    plain = measure("test", make_table(probs, targets), fix_thresholds(np.full(8, 0.5)), n_replicates=100)
    assert plain.value("auroc") == measured.value("auroc")
    assert plain.value("ece") == plain.value("ece_raw") == measured.value("ece_raw")


def test_a_blank_cell_says_why() -> None:
    probs, targets = draw_arrays(100)
    targets[:, 0] = 0
    targets[:, 1] = 1
    targets[:, 2] = np.nan
    targets[:, 3] = 0
    targets[:2, 3] = 1
    values = np.full(8, 0.5)
    values[4] = np.nan
    values[5] = 1.0
    point = fix_thresholds(values, {LABELS[4]: "validation has no positive"})
    rows = measure("test", make_table(probs, targets), point, n_replicates=100).metrics
    reason = rows.set_index(["metric", "label"])["reason"]
    value = rows.set_index(["metric", "label"])["value"]
    assert reason["auroc", LABELS[0]] == reason["f1", LABELS[0]] == "no positive"
    assert reason["auroc", LABELS[1]] == reason["specificity", LABELS[1]] == "no negative"
    assert reason["average_precision", LABELS[1]] == "no negative"
    assert np.isnan(value["average_precision", LABELS[1]])
    assert reason["auroc", LABELS[2]] == reason["brier", LABELS[2]] == "no known target"
    assert reason["auroc", LABELS[3]] == "2 patients where 5 are needed"
    assert not np.isnan(value["auroc", LABELS[3]])
    assert reason["f1", LABELS[4]] == "no threshold: validation has no positive"
    assert reason["precision", LABELS[5]] == "nothing decided present"
    assert rows["reason"].ne("").equals(rows["low"].isna())
    n_labels = rows[rows["label"] == "macro"].set_index("metric")["n_labels"]
    assert n_labels["auroc"] == n_labels["average_precision"] == 5
    assert n_labels["f1"] == 5  # not the first, third and fifth


def test_nothing_known_is_nothing_said() -> None:
    table = make_table(np.full((3, 8), 0.1, np.float32), np.full((3, 8), np.nan, np.float32))
    rows = measure("test", table, fix_thresholds(np.full(8, 0.5)), n_replicates=100).metrics
    assert rows["value"].isna().all()
    assert (rows["reason"] != "").all()
    assert (rows.loc[rows["label"] == "macro", "n_labels"].dropna() == 0).all()


def test_the_order_of_the_rows_changes_nothing() -> None:
    probs, targets = draw_arrays(80)
    point = fit(probs, targets)
    table = make_table(probs, targets, [f"p{row // 2}" for row in range(80)])
    first = measure("test", table, point, n_replicates=100).metrics
    second = measure("test", table.iloc[::-1].reset_index(drop=True), point, n_replicates=100).metrics
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(first[column], second[column], rtol=1e-12)
