"""Average precision against scikit-learn's, on cases with ties and unknown targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_cases import Case, cases, known
from sklearn.metrics import average_precision_score

from cxrlit.metrics.average_precision import average_precision


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
    first, second = average_precision(*case), average_precision(case[0][order], case[1][order])
    assert first == second or (np.isnan(first) and np.isnan(second))


@pytest.mark.parametrize("target", [0.0, 1.0, np.nan])
def test_it_needs_both_classes(target: float) -> None:
    assert np.isnan(average_precision(np.array([0.1, 0.9], np.float32), np.full(2, target, np.float32)))
    assert np.isnan(average_precision(np.zeros(0, np.float32), np.zeros(0, np.float32)))


def test_a_score_that_is_nan_is_an_error_unless_its_target_is_unknown() -> None:
    scores = np.array([0.1, np.nan, 0.8], np.float32)
    assert average_precision(scores, np.array([0, np.nan, 1], np.float32)) == 1
    for target in (0, 1):
        with pytest.raises(ValueError, match="NaN"):
            average_precision(scores, np.array([0, target, 1], np.float32))
