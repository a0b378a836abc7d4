"""The difference of two groups: its interval and its p agree, and a lucky small group is no finding."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from cxrlit.evaluation.subgroups.group_difference import MIN_P, Differences, find_differences
from cxrlit.metrics.bootstrap import Replicates, bootstrap
from cxrlit.metrics.intervals import interval_of_change, p_of_change

shares = st.floats(0.01, 0.99)
values = shares | st.sampled_from([0.0, 1.0])


def make(first: float, second: float, errors: tuple[float, float], freedom: float, r: float = 0.0) -> Differences:
    one = np.ones(1)
    freedoms, support = np.full((2, 1), freedom), np.full((2, 1), 9)
    return Differences(one * first, one * second, np.array(errors)[:, None], freedoms, one * r, support)


@given(values, values, st.floats(0.01, 2), st.floats(0.01, 2), st.floats(2, 500), st.floats(-0.5, 0.9), shares)
@settings(max_examples=150, deadline=None)
def test_the_interval_and_p_agree_and_stay_in_range(
    first: float, second: float, one: float, two: float, freedom: float, r: float, level: float
) -> None:
    one, two = one * (0 < first < 1), two * (0 < second < 1)
    found = make(first, second, (one, two), freedom, r)
    low, high = (float(end[0]) for end in found.interval(level))
    assert -1 <= low <= first - second <= high <= 1
    p = float(found.p()[0])
    assert MIN_P <= p <= 1
    if abs(p - (1 - level)) > 1e-6:
        assert (p <= 1 - level) == (not low <= 0 <= high)
    wider = found.interval((1 + level) / 2)
    assert wider[0][0] <= low
    assert wider[1][0] >= high
    turned = make(second, first, (two, one), freedom, r)
    np.testing.assert_allclose(turned.interval(level)[0], -high, atol=1e-9)
    np.testing.assert_allclose(turned.p(), p, rtol=1e-6)


def test_with_many_patients_it_is_the_plain_one() -> None:
    """Small errors: the logit is a straight line."""
    found = make(0.7, 0.71, (0.01, 0.02), 1e6)
    error = np.hypot(0.7 * 0.3 * 0.01, 0.71 * 0.29 * 0.02)
    low, high = found.interval()
    assert low[0] == pytest.approx(-0.01 - 1.96 * error, abs=1e-4)
    assert high[0] == pytest.approx(-0.01 + 1.96 * error, abs=1e-4)
    assert found.p()[0] == pytest.approx(2 * stats.norm.sf(0.01 / error), abs=0.01)
    paired = replace(found, correlation=np.array([0.9])).interval()
    assert paired[1][0] - paired[0][0] < high[0] - low[0]


def test_one_certain_side_leaves_the_logit_interval_of_the_other() -> None:
    low, high = make(0.95, 0.8, (0.7, 0.0), 9).interval()
    t = stats.t.ppf(0.975, 9)
    assert low[0] == pytest.approx(expit(logit(0.95) - t * 0.7) - 0.8, abs=1e-12)
    assert high[0] == pytest.approx(expit(logit(0.95) + t * 0.7) - 0.8, abs=1e-12)


def test_a_small_group_that_is_right_by_luck_is_no_finding() -> None:
    """20 patients of whom one is wrong once, and 400 of whom one in five is."""
    rng = np.random.default_rng(0)
    patients = np.arange(420)
    right = np.where(patients < 20, patients > 0, rng.random(420) < 0.8)
    probs = np.where(right, 0.9, 0.1)[:, None]
    small, large = (
        bootstrap(["recall"], probs, np.where(rows[:, None], 1.0, np.nan), patients, np.array([0.5]), 1000)["recall"]
        for rows in (patients < 20, patients >= 20)
    )
    change = small.minus(large)
    assert p_of_change(change)[0] < 0.05  # as if its error were what it seems
    assert interval_of_change(change).low[0] > 0
    found = find_differences(small, large)
    assert found.p()[0] > 0.1
    assert found.interval()[0][0] < 0


@pytest.mark.parametrize("recall", [0, 1])
def test_a_group_without_a_single_error_or_hit_is_as_uncertain_as_it_is_small(recall: int) -> None:
    """Nobody of 8, and nobody of 80, against 300 of 400."""
    found = []
    for n in (8, 80):
        patients = np.arange(n + 400)
        right = np.where(patients < n, recall, patients % 4 > 0).astype(float)[:, None]
        small, large = (
            bootstrap(["recall"], right, np.where(rows[:, None], 1.0, np.nan), patients, np.array([0.5]), 400)["recall"]
            for rows in (patients < n, patients >= n)
        )
        difference = find_differences(small, large)
        low, high = (float(end[0]) for end in difference.interval())
        bound = stats.binomtest(recall * n, n).proportion_ci(method="exact")
        assert (low if recall else high) == pytest.approx((bound.low if recall else bound.high) - 0.75, abs=0.06)
        found.append(difference.p()[0])
    assert found[1] < 1e-6
    assert found[0] > (0.05 if recall else 1e-6)
    assert found[0] > found[1]


def test_what_is_undefined_has_no_difference() -> None:
    values = np.tile([[0.5, np.nan]], (9, 1))
    side = Replicates(values[0], values, np.ones((4, 2)), np.full(2, 9))
    found = find_differences(side, side)
    assert np.isnan(found.p()).tolist() == [False, True]
    assert np.isnan(found.interval()[0]).tolist() == [False, True]
    assert found.p()[0] == 1
