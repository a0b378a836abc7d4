"""Net benefit against the package dcurves and against its formula on a pandas table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from score_cases import Case, cases

from cxrlit.metrics.net_benefit import net_benefit

THRESHOLDS = np.array([0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.6, 0.9, 0.95])


def test_net_benefit_is_that_of_dcurves() -> None:
    """Numbers of dcurves 1.1.7 (``dca`` with these columns); it brings lifelines and statsmodels, so it is not run."""
    probs = np.array([0.02, 0.05, 0.05, 0.11, 0.2, 0.24, 0.3, 0.42, 0.5, 0.61, 0.75, 0.93, 0.5])
    targets = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, np.nan])
    model = [
        0.4107744107744108, 0.3903508771929825, 0.2870370370370371, 0.25000000000000006, 0.16666666666666669,
        0.16666666666666669, 0.04166666666666673, 0.08333333333333334, 0.0,
    ]  # fmt: skip
    treat_all = [
        0.4107744107744108, 0.3859649122807018, 0.35185185185185186, 0.27083333333333337, 0.22222222222222227,
        -0.16666666666666657, -0.4583333333333331, -4.833333333333333, -10.666666666666655,
    ]  # fmt: skip
    np.testing.assert_allclose(net_benefit(probs, targets, THRESHOLDS), model, rtol=1e-12)
    np.testing.assert_allclose(net_benefit(np.ones(13), targets, THRESHOLDS), treat_all, rtol=1e-12)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_net_benefit_is_its_formula(case: Case) -> None:
    found = net_benefit(*case, THRESHOLDS)
    table = pd.DataFrame({"prob": case[0].astype(np.float64), "target": case[1]}).dropna()
    if table["target"].nunique() < 2:
        assert np.isnan(found).all()
        return
    for threshold, value in zip(THRESHOLDS, found, strict=True):
        treated = table[table["prob"] >= threshold]["target"]
        true, false = (treated == 1).sum() / len(table), (treated == 0).sum() / len(table)
        assert value == pytest.approx(true - false * threshold / (1 - threshold), abs=1e-12)


def test_a_threshold_of_0_treats_all() -> None:
    probs, targets = np.array([0.0, 0.4, 0.9]), np.array([0.0, 0.0, 1.0])
    assert net_benefit(probs, targets, np.zeros(1)) == pytest.approx(1 / 3)
