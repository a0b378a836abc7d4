"""Two measurements beside each other: paired on the same patients, apart on others."""

import numpy as np
import pytest
from predicted import draw_arrays, fix_thresholds, make_table

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.measure.measure import measure
from cxrlit.evaluation.validation.change import compare_parts
from cxrlit.metrics.bootstrap import bootstrap
from cxrlit.metrics.intervals import interval_of_change

POINT = fix_thresholds(np.full(8, 0.5))


def test_apart_is_each_value_less_the_other() -> None:
    first = measure("home", make_table(*draw_arrays(150, seed=1)), POINT, 300, seed=0)
    second = measure("external", make_table(*draw_arrays(120, seed=2)), POINT, 300, seed=1)
    table = compare_parts(first, second, ("home", "external"), same_patients=False)
    rows = table.set_index(["metric", "label"])
    for metric in ("auroc", "brier", "f1"):
        for label in (*LABELS, "macro"):
            row = rows.loc[(metric, label)]
            assert row["home"] == pytest.approx(first.value(metric, label), abs=1e-12)
            assert row["external"] == pytest.approx(second.value(metric, label), abs=1e-12)
            assert row["change"] == pytest.approx(row["external"] - row["home"], abs=1e-12)
            assert row["change_low"] < row["change"] < row["change_high"]
    # Two independent errors add up in squares.
    error = rows.loc[("auroc", "macro"), "change_high"] - rows.loc[("auroc", "macro"), "change"]
    alone = [
        rows.loc[("auroc", "macro"), f"{name}_high"] - rows.loc[("auroc", "macro"), name]
        for name in ("home", "external")
    ]
    assert error == pytest.approx(np.hypot(*alone), rel=0.25)
    assert rows.loc[("f1", "micro"), "change"] == pytest.approx(
        second.value("f1", "micro") - first.value("f1", "micro")
    )


def test_a_macro_is_over_the_labels_of_both() -> None:
    probs, targets = draw_arrays(100, seed=1)
    first = measure("home", make_table(probs, targets), POINT, 100)
    targets = targets.copy()
    targets[:, 2] = np.nan
    second = measure("external", make_table(probs, targets), POINT, 100, seed=1)
    rows = compare_parts(first, second, ("home", "external"), same_patients=False).set_index(["metric", "label"])
    macro = rows.loc[("auroc", "macro")]
    assert macro["n_labels"] == 7
    assert macro["change"] == pytest.approx(0, abs=1e-12)
    assert macro["home"] != pytest.approx(first.value("auroc"), abs=1e-6)
    assert np.isnan(rows.loc[("auroc", LABELS[2]), "change"])
    assert "external: undefined" in rows.loc[("auroc", LABELS[2]), "reason"]


def test_the_same_patients_are_paired() -> None:
    probs, targets = draw_arrays(200, seed=1)
    first = measure("before", make_table(probs, targets), POINT, 200)
    widths = []
    for seed, same_patients in ((0, True), (1, False)):
        second = measure("after", make_table(np.clip(probs + 0.01, 0, 1), targets), POINT, 200, seed)
        table = compare_parts(first, second, ("before", "after"), same_patients)
        row = table.set_index(["metric", "label"]).loc[("brier", "macro")]
        widths.append(row["change_high"] - row["change_low"])
    assert widths[0] < 0.2 * widths[1]


def test_two_samples_that_share_patients_have_no_interval_of_the_change() -> None:
    sides = [measure(name, make_table(*draw_arrays(100, seed)), POINT, 100, seed) for seed, name in enumerate("ab")]
    table = compare_parts(*sides, ("a", "b"), same_patients=False, why_no_interval="3 patients are in both")
    assert table[["change_low", "change_high"]].isna().all(axis=None)
    assert table["reason"].str.endswith("change: 3 patients are in both").all()
    assert table["change"].notna().any()
    assert table["a_low"].notna().any()


@pytest.mark.slow
def test_the_interval_of_unpaired_samples_holds_the_true_change() -> None:
    """Two hospitals with clustered patients and the same AUROC: 95 % of the intervals hold 0."""
    rng = np.random.default_rng(0)
    held, n_trials = 0, 300
    for trial in range(n_trials):
        sides = []
        for n_patients, seed in ((80, trial), (60, n_trials + trial)):
            patients = np.repeat(np.arange(n_patients), 3)
            mood = rng.normal(size=n_patients)[patients]
            targets = (rng.random(n_patients) < 0.35)[patients].astype(np.float32)[:, None]
            scores = (targets[:, 0] + mood + rng.normal(size=len(patients)) * 0.5)[:, None]
            sides.append(bootstrap(["auroc"], scores, targets, patients, None, 300, seed)["auroc"])
        found = interval_of_change(sides[1].minus_other_patients(sides[0]))
        held += bool(found.low[0] <= 0 <= found.high[0])
    assert 0.92 <= held / n_trials <= 0.98
