"""Counts and the metrics at a threshold against scikit-learn's, with probs at thresholds and unknown targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score
from sklearn.metrics import f1_score as sklearn_f1

from cxrlit.metrics.confusion import count_decisions, decision_metrics, f1_over_labels, f1_score


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_decisions_are_counted_as_by_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random((30, 3)), 1).astype(np.float32)  # often at a threshold
    targets = rng.choice([0, 1, np.nan], (30, 3), p=[0.6, 0.3, 0.1]).astype(np.float32)
    thresholds = np.round(rng.random(3), 1)
    counts = count_decisions(probs, targets, thresholds)
    for label in range(3):
        rows = ~np.isnan(targets[:, label])
        preds = probs[rows, label].astype(np.float64) >= thresholds[label]
        present = targets[rows, label] == 1
        tn, fp, fn, tp = confusion_matrix(present, preds, labels=[False, True]).ravel()
        assert (counts.TN[label], counts.FP[label], counts.FN[label], counts.TP[label]) == (tn, fp, fn, tp)
        value = f1_score(counts)[label]
        if present.any():
            assert value == pytest.approx(sklearn_f1(present, preds), abs=1e-12)
        else:
            assert np.isnan(value)


def test_a_prob_at_the_threshold_is_present() -> None:
    probs, targets = np.array([[0.5]], np.float32), np.ones((1, 1), np.float32)
    assert count_decisions(probs, targets, np.array([0.5])).TP == 1
    assert count_decisions(probs, targets, np.array([np.nextafter(0.5, 1)])).FN == 1


def test_many_thresholds_at_once_are_each_of_them() -> None:
    rng = np.random.default_rng(0)
    probs = rng.random((40, 8)).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (40, 8)).astype(np.float32)
    grid = rng.random((8, 5))
    together = count_decisions(probs, targets, grid)
    for column in range(5):
        alone = count_decisions(probs, targets, grid[:, column])
        for name in alone._fields:
            np.testing.assert_array_equal(getattr(together, name)[:, column], getattr(alone, name))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_what_is_said_about_decisions_is_what_scikit_learn_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs, thresholds = np.round(rng.random((20, 3)), 1), np.full(3, 0.5)
    targets = rng.choice([0.0, 1.0], (20, 3), p=[0.7, 0.3])
    preds = probs >= thresholds
    counts = count_decisions(probs, targets, thresholds)
    said, pooled = decision_metrics(counts), f1_over_labels(counts)
    has_positive, has_negative, chosen = (targets == 1).any(axis=0), (targets == 0).any(axis=0), preds.any(axis=0)
    for label in range(3):
        present, decided = targets[:, label], preds[:, label]
        wanted = {
            "precision": precision_score(present, decided, zero_division=np.nan),
            "recall": recall_score(present, decided, zero_division=np.nan),
            "specificity": recall_score(1 - present, ~decided, zero_division=np.nan),
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(said[name][label], value, atol=1e-12)
        if has_positive[label] and has_negative[label]:
            value = balanced_accuracy_score(present, decided)
            assert said["balanced_accuracy"][label] == pytest.approx(value, abs=1e-12)
        else:
            assert np.isnan(said["balanced_accuracy"][label])
        assert np.isnan(said["precision"][label]) == (not chosen[label])
    if has_positive.any():
        for name in ("micro", "weighted"):
            value = sklearn_f1(targets, preds, average=name, zero_division=0)
            assert pooled[f"f1_{name}"] == pytest.approx(value, abs=1e-12)
    else:
        assert np.isnan(pooled["f1_weighted"])
