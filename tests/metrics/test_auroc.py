"""AUROC against scikit-learn's, on cases with ties and unknown targets, and over the batches of an epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from score_cases import Case, cases, known
from sklearn.metrics import roc_auc_score

from cxrlit.metrics.auroc import LabelAUROC, auroc
from cxrlit.metrics.macro import per_label


@given(cases())
@settings(max_examples=300, deadline=None)
def test_auroc_is_that_of_scikit_learn(case: Case) -> None:
    scores, targets = known(case)
    value = auroc(*case)
    if len(set(targets)) < 2:
        assert np.isnan(value)
    else:
        assert value == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)


@given(cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rows_does_not_matter(case: Case, random: object) -> None:
    order = list(range(len(case[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, second = auroc(*case), auroc(case[0][order], case[1][order])
    assert first == second or (np.isnan(first) and np.isnan(second))


@pytest.mark.parametrize("target", [0.0, 1.0, np.nan])
def test_it_needs_both_classes(target: float) -> None:
    assert np.isnan(auroc(np.array([0.1, 0.9], np.float32), np.full(2, target, np.float32)))
    assert np.isnan(auroc(np.zeros(0, np.float32), np.zeros(0, np.float32)))


def test_a_score_that_is_nan_is_an_error_unless_its_target_is_unknown() -> None:
    scores = np.array([0.1, np.nan, 0.8], np.float32)
    assert auroc(scores, np.array([0, np.nan, 1], np.float32)) == 1
    for target in (0, 1):
        with pytest.raises(ValueError, match="NaN"):
            auroc(scores, np.array([0, target, 1], np.float32))


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
