"""The metrics against scikit-learn's, on cases with ties and unknown targets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cxrlit.metrics import classification as metrics
from cxrlit.metrics.classification import LabelAUROC, auroc, average_precision, count_decisions, macro, per_label

Case = tuple[NDArray[np.float32], NDArray[np.float32]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """(N,) float32 scores, many of them tied or a bit apart, and (N,) targets with NaN."""
    n = draw(st.integers(1, 40))
    a_bit_apart = np.nextafter(np.float32(0.5), np.float32(1))
    values = st.sampled_from([0.0, 0.25, 0.5, float(a_bit_apart), 1.0]) | st.floats(0, 1, width=32)
    scores = draw(arrays.arrays(np.float32, n, elements=values))
    targets = draw(arrays.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0, np.nan])))
    return scores, targets


def known(case: Case) -> Case:
    scores, targets = case
    return scores[~np.isnan(targets)], targets[~np.isnan(targets)]


@given(cases())
@settings(max_examples=300, deadline=None)
def test_auroc_is_that_of_scikit_learn(case: Case) -> None:
    scores, targets = known(case)
    value = auroc(*case)
    if len(set(targets)) < 2:
        assert np.isnan(value)
    else:
        assert value == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_average_precision_is_that_of_scikit_learn(case: Case) -> None:
    scores, targets = known(case)
    value = average_precision(*case)
    if len(set(targets)) < 2:
        assert np.isnan(value)
    else:
        assert value == pytest.approx(average_precision_score(targets, scores), abs=1e-12)


@given(cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rows_does_not_matter(case: Case, random: object) -> None:
    order = list(range(len(case[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    for metric in (auroc, average_precision):
        first, second = metric(*case), metric(case[0][order], case[1][order])
        assert first == second or (np.isnan(first) and np.isnan(second))


@pytest.mark.parametrize("target", [0.0, 1.0, np.nan])
def test_ranking_needs_both_classes(target: float) -> None:
    for metric in (auroc, average_precision):
        assert np.isnan(metric(np.array([0.1, 0.9], np.float32), np.full(2, target, np.float32)))
        assert np.isnan(metric(np.zeros(0, np.float32), np.zeros(0, np.float32)))


def test_a_score_that_is_nan_is_an_error_unless_its_target_is_unknown() -> None:
    scores = np.array([0.1, np.nan, 0.8], np.float32)
    for metric in (auroc, average_precision):
        assert metric(scores, np.array([0, np.nan, 1], np.float32)) == 1
        for target in (0, 1):
            with pytest.raises(ValueError, match="NaN"):
                metric(scores, np.array([0, target, 1], np.float32))


def test_a_million_pairs_do_not_overflow() -> None:
    scores = np.arange(200_000, dtype=np.float32)
    targets = (scores >= 100_000).astype(np.float32)
    assert auroc(scores, targets) == 1
    assert auroc(-scores, targets) == 0


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_over_batches_it_is_the_same(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.round(rng.random((sum(sizes), 8)), 1).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (sum(sizes), 8)).astype(np.float32)
    metric = LabelAUROC()
    for part in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
        metric.update(torch.from_numpy(probs[part]), torch.from_numpy(targets[part]))
    values = metric.compute()
    assert values.dtype == torch.float64
    np.testing.assert_array_equal(values.numpy(), per_label(auroc, probs, targets))
    metric.reset()
    metric.update(torch.from_numpy(probs[:1]), torch.from_numpy(targets[:1]))  # nothing of before is left
    assert metric.compute().isnan().all()


def test_a_metric_holds_no_graph() -> None:
    metric, logits = LabelAUROC(), torch.zeros(2, 8, requires_grad=True)
    metric.update(logits.sigmoid(), torch.ones(2, 8))
    assert not metric.probs[0].requires_grad


def test_macro_is_over_the_defined_values() -> None:
    assert macro(np.array([np.nan, 0.25, np.nan, 0.75])) == (0.5, 2)
    value, n_labels = macro(np.array([np.nan, np.nan]))
    assert np.isnan(value)
    assert n_labels == 0


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
        value = metrics.f1_score(counts)[label]
        if present.any():
            assert value == pytest.approx(f1_score(present, preds), abs=1e-12)
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
    said, pooled = metrics.decision_metrics(counts), metrics.f1_over_labels(counts)
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
            value = f1_score(targets, preds, average=name, zero_division=0)
            assert pooled[f"f1_{name}"] == pytest.approx(value, abs=1e-12)
    else:
        assert np.isnan(pooled["f1_weighted"])
