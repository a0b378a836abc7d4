"""The curves against scikit-learn's, their areas against the metrics, their bands against a direct loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrlit.evaluation.measure.roc_pr_curves import make_curves
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.average_precision import average_precision
from cxrlit.metrics.bootstrap import draw_weights

seeds = st.integers(0, 2**32 - 1)


def draw_case(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """(N, 2) scores with ties, (N, 2) targets with NaN, the patient of each image."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 80))
    scores = np.round(rng.random((n, 2)), int(rng.choice([0, 1, 2, 7]))).astype(np.float32)
    targets = rng.choice([0, 1, np.nan], (n, 2), p=[0.5, 0.4, 0.1]).astype(np.float32)
    return scores, targets, rng.integers(0, 20, n)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_curves_are_those_of_scikit_learn(seed: int) -> None:
    scores, targets, patients = draw_case(seed)
    for label, curves in enumerate(make_curves(scores, targets, patients, 2)):
        known = ~np.isnan(targets[:, label])
        present, of_label = targets[known, label] == 1, scores[known, label]
        if not present.any() or present.all():
            assert len(curves.fpr) == len(curves.tpr) == len(curves.recall) == len(curves.precision) == 0
            assert curves.roc_band is None
            continue
        precision, recall, _ = precision_recall_curve(present, of_label)
        wanted = {rate: precision[recall == rate].max() for rate in recall[recall > 0]}
        assert len(curves.recall) == len(wanted)
        np.testing.assert_allclose(curves.recall, sorted(wanted), rtol=0, atol=1e-12)
        np.testing.assert_allclose(curves.precision, [wanted[rate] for rate in sorted(wanted)], rtol=0, atol=1e-12)
        fpr, tpr, _ = roc_curve(present, of_label, drop_intermediate=False)
        corners, all_theirs = (
            set(zip(x.round(9), y.round(9), strict=True)) for x, y in ((curves.fpr, curves.tpr), (fpr, tpr))
        )
        assert corners <= all_theirs
        # And theirs lie on the lines between ours.
        np.testing.assert_allclose(np.interp(fpr + tpr, curves.fpr + curves.tpr, curves.tpr), tpr, rtol=0, atol=1e-12)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_the_areas_below_are_the_metrics(seed: int) -> None:
    scores, targets, patients = draw_case(seed)
    for label, curves in enumerate(make_curves(scores, targets, patients, 2)):
        area = auroc(scores[:, label], targets[:, label])
        if np.isnan(area):
            assert len(curves.fpr) == 0
        else:
            assert np.trapezoid(curves.tpr, curves.fpr) == pytest.approx(area, abs=1e-12)
        mean = average_precision(scores[:, label], targets[:, label])
        if np.isnan(mean):
            assert len(curves.recall) == 0
        else:
            steps = np.diff(curves.recall, prepend=0)
            assert (steps * curves.precision).sum() == pytest.approx(mean, abs=1e-12)


def read_roc(fpr: NDArray[np.float64], tpr: NDArray[np.float64], wanted: float) -> float:
    """The highest true positive rate at a false positive rate."""
    last = np.flatnonzero(fpr <= wanted)[-1]
    if fpr[last] == wanted or last == len(fpr) - 1:
        return float(tpr[last])
    return float(np.interp(wanted, fpr[last : last + 2], tpr[last : last + 2]))


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_bands_are_quantiles_of_the_repeated_rows(seed: int) -> None:
    scores, targets, patients = draw_case(seed)
    n_replicates = 20
    names, codes = np.unique(patients, return_inverse=True)
    weights = np.concatenate(list(draw_weights(len(names), n_replicates, 7)), axis=1)
    for label, curves in enumerate(make_curves(scores, targets, patients, n_replicates, 7)):
        if curves.reason:
            assert curves.roc_band is None
            assert curves.precision_band is None
            continue
        rates, precisions, first = [], [], []
        for column in range(n_replicates):
            rows = np.repeat(np.arange(len(codes)), weights[codes, column].astype(int))
            rows = rows[~np.isnan(targets[rows, label])]
            present, of_label = targets[rows, label] == 1, scores[rows, label]
            if not present.any() or present.all():
                continue
            fpr, tpr, _ = roc_curve(present, of_label, drop_intermediate=False)
            negatives, positives = (~present).sum(), present.sum()
            # In whole numbers: 0.29 * 100 is not 29.
            rates.append([read_roc((fpr * negatives).round(), tpr, k * negatives / 100) for k in range(101)])
            precision, recall, _ = precision_recall_curve(present, of_label)
            hits = (recall * positives).round()
            ends = [hits[hits >= k * positives / 100].min() for k in range(1, 101)]
            precisions.append([precision[hits == end].max() for end in ends])
            first.append(hits[hits > 0].min() / positives)
        for band, values in ((curves.roc_band, rates), (curves.precision_band, precisions)):
            assert band is not None
            low, high = np.quantile(values, [0.025, 0.975], axis=0)[:, -len(band.x) :]
            np.testing.assert_allclose(band.low, low, rtol=0, atol=1e-9)
            np.testing.assert_allclose(band.high, high, rtol=0, atol=1e-9)
        assert curves.precision_band is not None
        begin = curves.precision_band.x[0]
        assert np.mean(np.array(first) <= begin) >= 0.95
        assert begin == 0.01 or np.mean(np.array(first) <= begin - 0.01) < 0.95


def test_the_order_of_the_rows_changes_nothing() -> None:
    scores, targets, patients = draw_case(3)
    rows = np.random.default_rng(0).permutation(len(scores))
    [first, _], [second, _] = (
        make_curves(scores[order], targets[order], patients[order], 50) for order in (slice(None), rows)
    )
    assert first.roc_band is not None
    assert second.roc_band is not None
    np.testing.assert_array_equal(first.tpr, second.tpr)
    np.testing.assert_array_equal(first.roc_band.low, second.roc_band.low)


@pytest.mark.parametrize(
    ("targets", "patients", "reason"),
    [
        ([0, 0, 0, 0], [0, 1, 2, 3], "no positive"),
        ([1, 1, 1, 1], [0, 1, 2, 3], "no negative"),
        ([np.nan] * 4, [0, 1, 2, 3], "no positive"),
        ([1, 1, 0, 0], [0, 0, 0, 0], "1 patient where 5 are needed"),
        ([1, 0, 0, 0], [0, 1, 2, 3], "1 patient where 5 are needed"),
    ],
)
def test_no_band_says_why(targets: list[float], patients: list[int], reason: str) -> None:
    scores = np.array([[0.9], [0.6], [0.5], [0.1]], np.float32)
    [curves] = make_curves(scores, np.array(targets, np.float32)[:, None], np.array(patients), 20)
    assert curves.reason == reason
    assert curves.roc_band is None
    assert curves.precision_band is None


def test_a_score_that_is_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        make_curves(np.array([[np.nan], [0.5]]), np.array([[1.0], [0.0]]), np.arange(2), 2)
