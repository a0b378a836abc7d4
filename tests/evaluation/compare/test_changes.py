"""Two models on the same images: corrections, and intervals that agree with their tests."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrlit.evaluation.compare.changes import COLUMNS, adjust_holm, compare_metric, find_holm_levels
from cxrlit.evaluation.compare.noninferiority import Question, answer
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.confusion import count_decisions, f1_score
from cxrlit.metrics.delong import estimate_areas, p_of_areas
from cxrlit.metrics.intervals import NO_VARIATION
from cxrlit.metrics.macro import per_label

LABELS = ("Mass", "Nodule", "Pneumonia")
ASK = Question(must_improve=("Nodule",), margin=0.01)
p_values = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05, float("nan")]), min_size=1, max_size=5)


@given(p_values)
@settings(max_examples=300, deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(values: list[float]) -> None:
    """A p is adjusted to the largest, over all sets of hypotheses with it, of the set's Bonferroni p."""
    p = np.array(values)
    adjusted = adjust_holm(p)
    defined = [column for column in range(len(p)) if not np.isnan(p[column])]
    for column in range(len(p)):
        if column not in defined:
            assert np.isnan(adjusted[column])
            continue
        sets = [chosen for size in range(1, len(defined) + 1) for chosen in combinations(defined, size)]
        wanted = max(min(1.0, len(chosen) * p[list(chosen)].min()) for chosen in sets if column in chosen)
        assert adjusted[column] == pytest.approx(wanted, abs=1e-12)


@given(p_values)
@settings(max_examples=300, deadline=None)
def test_an_interval_of_holms_level_excludes_what_holm_rejects(values: list[float]) -> None:
    p = np.array(values)
    levels, adjusted = find_holm_levels(p), adjust_holm(p)
    for level, plain, corrected in zip(levels, p, adjusted, strict=True):
        if not np.isnan(plain) and abs(corrected - 0.05) > 1e-9:
            assert (plain <= 1 - level) == (corrected <= 0.05)


def draw_models(seed: int, n: int = 1500) -> tuple[NDArray[np.float64], ...]:
    """Probs of a baseline and of a candidate that is better at the second label and worse at the third."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n // 4, n)
    targets = (rng.random((n, 3)) < 0.3).astype(float)
    targets[rng.random((n, 3)) < 0.05] = np.nan
    shared = rng.normal(size=(n, 3)) + rng.normal(size=(n // 4, 3))[patients]
    scores = [
        1 / (1 + np.exp(-(np.nan_to_num(targets) * shift + shared + 0.5 * rng.normal(size=(n, 3)))))
        for shift in (np.array([1.0, 0.6, 1.8]), np.array([1.0, 1.8, 0.6]))
    ]
    return scores[0], scores[1], targets, patients


def test_changes_are_those_of_the_metric_and_their_tests_agree() -> None:
    first, second, targets, patients = draw_models(0)
    found = compare_metric("auroc", first, second, targets, patients, LABELS, n_replicates=300)
    wanted = per_label(auroc, second, targets) - per_label(auroc, first, targets)
    rows, macro = found.table[:-1], found.table.iloc[-1]
    assert found.table.columns.tolist() == list(COLUMNS)
    assert found.table["label"].tolist() == [*LABELS, "macro"]
    assert found.table["metric"].eq("auroc").all()
    assert found.table["n_labels"].tolist() == [pd.NA] * 3 + [3]
    np.testing.assert_allclose(rows["change"], wanted, atol=1e-12)
    assert macro["change"] == pytest.approx(wanted.mean(), abs=1e-12)
    same, better, worse = rows.to_dict("records")
    assert same["low"] < 0 < same["high"]
    assert better["low_holm"] > 0
    assert worse["high_holm"] < 0
    pairs = [np.stack([first[:, column], second[:, column]], axis=1) for column in range(3)]
    areas = [estimate_areas(pair, targets[:, column]) for column, pair in enumerate(pairs)]
    assert rows["p_delong"].tolist() == list(map(p_of_areas, areas))
    assert (np.diff(rows[["low_holm", "low", "change", "high", "high_holm"]]) >= 0).all()
    for end in ("", "_holm"):
        outside = (rows[f"low{end}"] > 0) | (rows[f"high{end}"] < 0)
        assert ((rows[f"p{end}"] <= 0.05) == outside).all()
    assert (rows[["p", "p_delong"]].to_numpy() <= rows[["p_holm", "p_delong_holm"]].to_numpy()).all()
    assert (rows["n_defined"] == 300).all()
    assert same["p_delong"] > 0.05
    assert same["p_delong"] == pytest.approx(same["p"], abs=0.3)
    assert worse["p_delong"] < 1e-6
    assert macro["p_holm"] == macro["p"]
    assert np.isnan(macro["p_delong"])


def test_f1_is_at_each_models_own_thresholds_and_the_macro_over_labels_that_both_have() -> None:
    first, second, targets, patients = draw_models(1)
    thresholds = np.array([0.5, 0.6, np.nan]), np.array([0.7, 0.8, 0.5])
    table = compare_metric("f1", first, second, targets, patients, LABELS, thresholds, n_replicates=100).table
    before, after = (
        f1_score(count_decisions(part, targets, np.nan_to_num(fixed)))
        for part, fixed in zip((first, second), thresholds, strict=True)
    )
    np.testing.assert_allclose(table["change"][:2], (after - before)[:2], atol=1e-12)
    assert table["reason"].tolist() == ["", "", "undefined", ""]
    assert table.loc[2, ["change", "low", "p_holm"]].isna().all()
    assert table["n_labels"].iloc[-1] == 2
    assert table["change"].iloc[-1] == pytest.approx((after - before)[:2].mean(), abs=1e-12)
    assert table["baseline"].iloc[-1] == pytest.approx(before[:2].mean(), abs=1e-12)


def test_a_model_against_itself_changes_nothing() -> None:
    first, _, targets, patients = draw_models(2)
    found = compare_metric("auroc", first, first, targets, patients, LABELS, n_replicates=50)
    assert found.table[["change", "low", "high", "p", "reason"]].to_numpy().tolist() == [[0, 0, 0, 1, ""]] * 4
    said = answer(found, ASK)
    assert said.verdict == "no"
    assert [part.verdict for part in said.criteria] == ["yes", "no", "yes", "no"]


def test_one_side_that_never_varies_is_named() -> None:
    """The F1 of a baseline that finds nothing is 0 in every resample, that of the candidate is not."""
    first, second, targets, patients = draw_models(1)
    first[:, :2] = 0.1
    second[:, 1] = 0.1
    thresholds = np.full(3, 0.5), np.full(3, 0.5)
    found, back = (
        compare_metric("f1", *pair, targets, patients, LABELS, thresholds, n_replicates=50)
        for pair in ((first, second), (second, first))
    )
    wanted = "the {} has the same value in every resample, so that how far off it may be cannot be told"
    assert found.table["reason"].tolist()[:3] == [wanted.format("baseline"), NO_VARIATION, ""]
    assert back.table["reason"][0] == wanted.format("candidate")
    assert np.isnan(found.table["low"][0])


def test_labels_of_one_class_leave_it_undecided() -> None:
    first, second, targets, patients = draw_models(3)
    targets[:, 0] = 0
    found = compare_metric("auroc", first, second, targets, patients, LABELS, n_replicates=50)
    assert found.table["n_labels"].iloc[-1] == 2
    said = answer(found, Question(("Nodule",), margin=1.0, macro_must_rise=False))
    assert said.verdict == "undecided"
    assert said.criteria[0].why == "no interval: undefined"
    targets[:] = 0
    nothing = compare_metric("auroc", first, second, targets, patients, LABELS, n_replicates=5)
    assert nothing.table["n_labels"].iloc[-1] == 0
    assert answer(nothing, ASK).verdict == "undecided"
