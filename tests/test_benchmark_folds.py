"""What ``benchmarks/folds.py`` makes of the predictions of folds."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

LABELS = ["Mass", "Nodule"]


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("folds")


def draw_fold(fold: int, signal: float) -> pd.DataFrame:
    """60 images of 30 patients, whom no other fold has; in fold 1 there is no Nodule."""
    rng = np.random.default_rng(fold)
    targets = rng.integers(0, 2, (60, 2)) * [1, fold != 1]
    probs = rng.random((60, 2)) + signal * targets
    named = {f"prob_{label}": probs[:, column] for column, label in enumerate(LABELS)}
    true = {f"target_{label}": targets[:, column] for column, label in enumerate(LABELS)}
    return pd.DataFrame({"patient": 100 * fold + np.arange(60) // 2, **named, **true})


def test_the_auroc_of_each_fold_is_its_own(folds: Any) -> None:
    tables = [draw_fold(fold, signal=0.3) for fold in range(3)]
    tables[2][["prob_Mass", "prob_Nodule"]] -= 5  # a fold whose model gives lower scores throughout
    pairs = [(table, label) for fold, table in enumerate(tables) for label in LABELS if (fold, label) != (1, "Nodule")]
    expected = np.mean([roc_auc_score(table[f"target_{label}"], table[f"prob_{label}"]) for table, label in pairs])
    assert folds.resample(tables).estimate[0] == pytest.approx(expected, abs=1e-12)


def test_a_difference_has_a_paired_interval(folds: Any) -> None:
    weak, strong = (folds.resample([draw_fold(fold, signal) for fold in range(3)]) for signal in (0.1, 0.6))
    mean, low, high = folds.compare(weak, strong)
    assert mean == pytest.approx(strong.estimate[0] - weak.estimate[0])
    assert 0 < low < mean < high
    assert folds.compare(weak, weak) == (0, 0, 0)
