"""Brier score against scikit-learn's, on cases with ties and unknown targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from score_cases import Case, cases, known
from sklearn.metrics import brier_score_loss

from cxrlit.metrics.brier_score import brier_score


@given(cases())
@settings(max_examples=200, deadline=None)
def test_brier_score_is_that_of_scikit_learn(case: Case) -> None:
    probs, targets = known(case)
    value = brier_score(*case)
    if len(targets):
        wanted = brier_score_loss(targets, probs.astype(np.float64), pos_label=1)
        assert value == pytest.approx(wanted, abs=1e-12)
    else:
        assert np.isnan(value)
