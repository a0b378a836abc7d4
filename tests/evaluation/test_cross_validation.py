"""Out-of-fold predictions and the table over the folds, held against other programs' formulas."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import LABELS, draw_table, make_point, write_evaluation
from sklearn.metrics import f1_score, roc_auc_score

from cxrlit.core.errors import DataError
from cxrlit.evaluation.cross_validation import Fold, measure_folds, pool_folds, read_fold
from cxrlit.evaluation.predictions import read_predictions, write_predictions
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.operating_point import OperatingPoint

SHIFTS = (0.5, 1.5, 2.5)


def make_point_of(fold: int) -> OperatingPoint:
    """Each fold has a calibration and thresholds of its own; fold 2 has none for Nodule."""
    slope, intercept = np.full(3, 0.5 + fold), np.full(3, fold - 1.0)
    thresholds = make_point(threshold=0.3 + fold / 10, never=["Nodule"] if fold == 2 else []).thresholds
    return OperatingPoint(Calibration("platt", LABELS, slope, intercept, {}), thresholds, {"tuned_on": "val"})


def make_folds() -> list[Fold]:
    folds = []
    for number, shift in enumerate(SHIFTS):
        table = draw_table(number, n_patients=60, shift=shift)
        names = {column: f"{number}-" + table[column] for column in ("image", "patient")}
        folds.append(Fold(str(number), table.assign(**names), make_point_of(number)))
    return folds


def find_row(table: pd.DataFrame, metric: str, label: str) -> pd.Series:
    [(_, row)] = table[(table["metric"] == metric) & (table["label"] == label)].iterrows()
    return row


def test_metrics_are_those_of_each_fold_and_of_all_images() -> None:
    folds = make_folds()
    pooled = pool_folds(folds)
    assert len(pooled) == sum(len(fold.predictions) for fold in folds)
    table = measure_folds(folds, pooled, n_replicates=200)
    areas, scores = [], []
    for fold in folds:
        raw = fold.predictions
        areas.append([roc_auc_score(raw[f"target_{label}"], raw[f"prob_{label}"]) for label in LABELS])
        decided = (
            fold.point.calibrate(raw[[f"prob_{label}" for label in LABELS]].to_numpy()) >= 0.3 + int(fold.name) / 10
        )
        scores.append([f1_score(raw[f"target_{label}"], decided[:, row]) for row, label in enumerate(LABELS)])
    scores[2][1] = np.nan  # no threshold
    for metric, values in (("auroc", np.array(areas)), ("f1", np.array(scores))):
        for column, label in enumerate(LABELS):
            row = find_row(table, metric, label)
            assert row["mean"] == pytest.approx(np.nanmean(values[:, column]), abs=1e-12)
            assert row["sd"] == pytest.approx(np.nanstd(values[:, column], ddof=1), abs=1e-12)
            assert row["n_folds"] == (2 if (metric, label) == ("f1", "Nodule") else 3)
            assert row["low"] < row["pooled"] < row["high"]
            assert row["positives"] <= row["images"]
        macro = find_row(table, metric, "macro")
        assert macro["mean"] == pytest.approx(np.nanmean(values, axis=1).mean(), abs=1e-12)
        assert (macro["n_labels"], macro["images"], macro["patients"]) == (3, len(pooled), 180)
    for label in LABELS:
        assert find_row(table, "auroc", label)["pooled"] == pytest.approx(
            roc_auc_score(pooled[f"target_{label}"], pooled[f"prob_{label}"]), abs=1e-12
        )
        known = pooled[pooled[f"pred_{label}"].notna()]
        row = find_row(table, "f1", label)
        assert row["pooled"] == pytest.approx(f1_score(known[f"target_{label}"], known[f"pred_{label}"]), abs=1e-12)
        assert row["images"] == len(known)
    assert set(pooled.loc[pooled["pred_Nodule"].isna(), "fold"]) == {"2"}


def test_calibration_puts_the_folds_on_one_scale() -> None:
    """The same model, but for a shift of its logits that differs between the folds."""
    table = draw_table(0, shift=2)
    halves = [
        table[table["patient"].isin(table["patient"].unique()[start::2])].reset_index(drop=True) for start in (0, 1)
    ]
    probs = [f"prob_{label}" for label in LABELS]
    shifted = halves[1].copy()
    logits = np.log(shifted[probs] / (1 - shifted[probs])) + 3
    shifted[probs] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    points = [
        OperatingPoint(Calibration("platt", LABELS, np.ones(3), np.full(3, shift), {}), make_point().thresholds, {})
        for shift in (0.0, -3.0)
    ]
    folds = [
        Fold(str(number), part, point)
        for number, (part, point) in enumerate(zip((halves[0], shifted), points, strict=True))
    ]
    rows = measure_folds(folds, pool_folds(folds), n_replicates=100)
    for label in LABELS:
        expected = roc_auc_score(table[f"target_{label}"], table[f"prob_{label}"])
        assert find_row(rows, "auroc", label)["pooled"] == pytest.approx(expected, abs=1e-4)
        raw = pd.concat([halves[0], shifted])
        assert roc_auc_score(raw[f"target_{label}"], raw[f"prob_{label}"]) < expected - 0.02


def test_the_written_table_reads_as_predictions(tmp_path: Path) -> None:
    pooled = pool_folds(make_folds())
    write_predictions(tmp_path / "out_of_fold.csv", pooled)
    header = (tmp_path / "out_of_fold.csv").read_text().partition("\n")[0].split(",")
    kinds = [f"{kind}_{label}" for kind in ("prob", "pred", "target") for label in LABELS]
    assert header == ["image", "patient", "fold", "view", "age", "sex", *kinds]
    read = read_predictions(tmp_path / "out_of_fold.csv")
    pd.testing.assert_frame_equal(read, pooled[read.columns], check_dtype=False)


def test_a_fold_is_read_from_its_evaluation(tmp_path: Path) -> None:
    table = draw_table(3, n_patients=20)
    folder = write_evaluation(tmp_path / "eval", table)
    fold = read_fold("0", folder)
    assert fold.predictions["image"].tolist() == table["image"].tolist()
    (folder / "thresholds.json").unlink()
    with pytest.raises(
        DataError, match=r"there is no thresholds.json beside predictions_test.csv: evaluate the fold anew"
    ):
        read_fold("0", folder)


def test_folds_that_test_the_same_images_or_other_labels_are_refused() -> None:
    first, second, _ = make_folds()
    with pytest.raises(
        DataError, match=r"two folds test the same images \(0-00000.png, .*\): sweep data.fold over one"
    ):
        pool_folds([first, Fold("1", first.predictions, first.point)])
    fewer = second.predictions.drop(columns=["prob_Mass", "target_Mass"])
    with pytest.raises(DataError, match="fold 1 has other labels than fold 0"):
        pool_folds([first, Fold("1", fewer, second.point)])


def test_a_label_that_no_fold_can_tell_is_undefined_with_the_reason() -> None:
    [fold, *_] = make_folds()
    table = fold.predictions.assign(target_Mass=0.0)
    rows = measure_folds([alone := Fold("0", table, make_point(never=["Nodule"]))], pool_folds([alone]), 100)
    mass, nodule = find_row(rows, "auroc", "Mass"), find_row(rows, "f1", "Nodule")
    assert np.isnan([mass["mean"], mass["pooled"], nodule["mean"], nodule["pooled"]]).all()
    assert (mass["reason"], nodule["reason"]) == ("no positive", "no fold has a threshold")
    assert np.isnan(find_row(rows, "auroc", "Nodule")["sd"])
    assert find_row(rows, "auroc", "macro")["n_labels"] == 2
