"""The tables against scikit-learn, their columns, and what is undefined in them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from cxrlit.evaluation.predictions import make_predictions
from cxrlit.evaluation.tables import tabulate_auroc, tabulate_confusion, tabulate_summary
from cxrlit.evaluation.thresholds import Thresholds, tune_thresholds
from cxrlit.files import write_csv
from cxrlit.labels import LABELS

N = 60


def make_table(probs: NDArray[np.float32], targets: NDArray[np.float32]) -> pd.DataFrame:
    names = [f"{row}.png" for row in range(len(probs))]
    part = pd.DataFrame(targets, columns=list(LABELS)).assign(image=names, patient=[name[0] for name in names])
    return make_predictions(part, LABELS, probs)


@pytest.fixture
def arrays() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    targets = (rng.random((N, 8)) < 0.3).astype(np.float32)
    probs = np.clip(0.3 * targets + rng.random((N, 8)) * 0.7, 0, 1).astype(np.float32)
    return probs, targets


@pytest.fixture
def thresholds() -> Thresholds:
    return Thresholds(LABELS, np.linspace(0.2, 0.8, 8), np.zeros(8), {})


def test_auroc_table(arrays: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    probs, targets = arrays
    table = tabulate_auroc({"val": make_table(probs, targets), "test": make_table(probs[:30], targets[:30])})
    assert table.columns.tolist() == [
        "split", "label", "auroc", "average_precision", "positives", "images", "reason"
    ]  # fmt: skip
    assert table["split"].tolist() == ["val"] * 8 + ["test"] * 8
    assert table["label"].tolist() == [*LABELS, *LABELS]
    for row, label in enumerate(LABELS):
        assert table["auroc"][row] == pytest.approx(roc_auc_score(targets[:, row], probs[:, row]), abs=1e-12), label
        assert table["positives"][8 + row] == targets[:30, row].sum()
    assert (table["reason"] == "").all()


def test_summary(arrays: tuple[NDArray[np.float32], NDArray[np.float32]], thresholds: Thresholds) -> None:
    probs, targets = arrays
    table = tabulate_summary({"test": make_table(probs, targets)}, thresholds, {"split_hash": "abc"})
    preds = probs.astype(float) >= thresholds.values
    [row] = table.to_dict("records")
    assert list(row) == [
        "split", "auroc_macro", "n_labels", "f1_macro", "n_labels_f1", "f1_micro", "f1_weighted",
        "n_images", "n_patients", "split_hash",
    ]  # fmt: skip
    assert row["auroc_macro"] == pytest.approx(roc_auc_score(targets, probs, average="macro"), abs=1e-12)
    for average in ("macro", "micro", "weighted"):
        assert row[f"f1_{average}"] == pytest.approx(f1_score(targets, preds, average=average), abs=1e-12)
    assert (row["n_labels"], row["n_labels_f1"], row["n_images"], row["n_patients"]) == (8, 8, N, 10)


def test_summary_leaves_out_the_labels_that_are_undefined(
    arrays: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    probs, targets = arrays
    targets[:, 0] = 0  # no positive in test
    values = np.full(8, 0.4)
    values[1] = np.nan  # no threshold
    thresholds = Thresholds(LABELS, values, values, {LABELS[1]: "validation has no positive"})
    [row] = tabulate_summary({"test": make_table(probs, targets)}, thresholds, {}).to_dict("records")
    assert (row["n_labels"], row["n_labels_f1"]) == (7, 6)
    preds = probs.astype(float) >= 0.4
    assert row["f1_macro"] == pytest.approx(f1_score(targets[:, 2:], preds[:, 2:], average="macro"), abs=1e-12)
    assert row["f1_weighted"] == pytest.approx(f1_score(targets[:, 2:], preds[:, 2:], average="weighted"), abs=1e-12)
    decided = [0, 2, 3, 4, 5, 6, 7]  # false alarms of a label without a positive count
    micro = f1_score(targets[:, decided], preds[:, decided], average="micro")
    assert row["f1_micro"] == pytest.approx(micro, abs=1e-12)


def test_summary_of_nothing_defined_is_nan(thresholds: Thresholds) -> None:
    table = make_table(np.full((3, 8), 0.1, np.float32), np.full((3, 8), np.nan, np.float32))
    [row] = tabulate_summary({"test": table}, thresholds, {}).to_dict("records")
    assert (row["n_labels"], row["n_labels_f1"]) == (0, 0)
    assert all(np.isnan(row[name]) for name in ("auroc_macro", "f1_macro", "f1_micro", "f1_weighted"))


def test_confusion(arrays: tuple[NDArray[np.float32], NDArray[np.float32]], thresholds: Thresholds) -> None:
    probs, targets = arrays
    table = tabulate_confusion(make_table(probs, targets), thresholds)
    assert table.columns.tolist() == [
        "label", "threshold", "TP", "FP", "TN", "FN", "precision", "recall", "specificity", "F1", "reason"
    ]  # fmt: skip
    for label, row in enumerate(table.to_dict("records")):
        preds = probs[:, label].astype(float) >= thresholds.values[label]
        present = targets[:, label] == 1
        assert row["label"] == LABELS[label]
        assert row["threshold"] == thresholds.values[label]
        assert row["TP"] + row["FP"] + row["TN"] + row["FN"] == N
        assert row["precision"] == pytest.approx(precision_score(present, preds))
        assert row["recall"] == pytest.approx(recall_score(present, preds))
        assert row["specificity"] == pytest.approx(recall_score(~present, ~preds))
        assert row["F1"] == pytest.approx(f1_score(present, preds))
        assert row["reason"] == ""


def test_a_blank_cell_has_its_reason(arrays: tuple[NDArray[np.float32], NDArray[np.float32]], tmp_path: Path) -> None:
    probs, targets = arrays
    targets[:, 0] = 0
    targets[:, 2] = 1
    probs[:, 3] = 0
    values = np.full(8, 0.4)
    values[1] = np.nan
    thresholds = Thresholds(LABELS, values, values, {LABELS[1]: "validation has no positive"})
    write_csv(tmp_path / "confusion.csv", tabulate_confusion(make_table(probs, targets), thresholds))
    table = pd.read_csv(tmp_path / "confusion.csv", dtype=str, keep_default_na=False).set_index("label")
    assert table.loc[LABELS[1]].tolist() == [""] * 9 + ["no threshold: validation has no positive"]
    assert table.loc[LABELS[0], ["recall", "F1", "reason"]].tolist() == ["", "", "no positive in test"]
    assert table.loc[LABELS[2], ["specificity", "reason"]].tolist() == ["", "no negative in test"]
    assert table.loc[LABELS[3], ["precision", "reason"]].tolist() == ["", "nothing decided present"]
    assert table.loc[LABELS[3], ["TP", "FP"]].tolist() == ["0", "0"]  # counts, not 0.0
    numbers = table.drop(columns="reason")
    assert ((numbers == "").any(axis=1) == (table["reason"] != "")).all()

    aurocs = tabulate_auroc({"test": make_table(probs, targets)}).set_index("label")
    assert aurocs["reason"].tolist() == ["no positive", "", "no negative", "", "", "", "", ""]
    np.testing.assert_array_equal(aurocs["auroc"].isna(), aurocs["reason"] != "")


def test_test_images_have_no_say_in_thresholds(arrays: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    probs, targets = arrays
    thresholds = tune_thresholds(probs, targets, LABELS)
    first = tabulate_confusion(make_table(probs, targets), thresholds)
    second = tabulate_confusion(make_table(1 - probs, 1 - targets), thresholds)
    pd.testing.assert_series_equal(first["threshold"], second["threshold"])
    assert not first["TP"].equals(second["TP"])
