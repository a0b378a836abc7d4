"""A group's metrics are those of its images; gaps are flagged where there are any, and hardly ever where not."""

import numpy as np
import pandas as pd
import pytest
from made_up import LABELS, draw_table, fill_table, make_point
from matplotlib.text import Text
from scipy.special import expit, ndtri

from cxrlit.evaluation.compare.changes import adjust_holm
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.report.subgroups_section import build_subgroups_section
from cxrlit.evaluation.subgroups.gaps import NO_GAP, OTHERS, describe_gaps
from cxrlit.evaluation.subgroups.subgroup_metrics import (
    AT_THRESHOLD,
    COUNTS,
    GAPS,
    METRICS,
    TESTED,
    Subgroups,
    measure_subgroups,
)
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.bootstrap import bootstrap
from cxrlit.metrics.brier_score import brier_score
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.calibration_error import expected_calibration_error
from cxrlit.metrics.confusion import count_decisions, decision_metrics, f1_over_labels
from cxrlit.metrics.intervals import MIN_PATIENTS, interval
from cxrlit.metrics.macro import per_label
from cxrlit.metrics.operating_point import OperatingPoint

ATTRIBUTES = ("sex", "age", "view")
BANDS = (18, 40, 60, 80)


def measure(table: pd.DataFrame, point: OperatingPoint | None = None, n_replicates: int = 200) -> Subgroups:
    return measure_subgroups(table, point or make_point(), ATTRIBUTES, BANDS, n_replicates, seed=1)


def pick(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    drawn = draw_table(0)
    drawn.loc[drawn.index[:40], ["target_Mass", "target_Nodule"]] = np.nan
    drawn.loc[drawn["patient"].isin(["P3", "P4"]), "sex"] = None
    return drawn


@pytest.fixture(scope="module")
def found(table: pd.DataFrame) -> Subgroups:
    return measure(table)


def test_the_metrics_of_a_group_are_those_of_its_images(table: pd.DataFrame) -> None:
    """Those that calibration changes are of calibrated probs, the others of the probs as they are."""
    slopes = np.array([0.5, 50, np.nan])  # steep enough to tie what float64 cannot tell from 1
    calibration = Calibration("platt", LABELS, slopes, np.array([1, -1, np.nan]), {"Pneumonia": "x"})
    point = OperatingPoint(calibration, make_point().thresholds, {})
    found = measure(table, point)
    assert found.excluded == {}
    assert list(found.metrics.columns) == list(METRICS)
    probs, targets = split_arrays(table)
    calibrated = point.calibrate(probs)
    rows = ((table["age"] >= 40) & (table["age"] < 60)).to_numpy()
    group = pick(found.metrics, attribute="age", group="40 to 59")
    counts = count_decisions(calibrated[rows], targets[rows], point.thresholds.values)
    wanted = {
        "auroc": per_label(auroc, probs[rows], targets[rows]),
        "brier": per_label(brier_score, calibrated[rows], targets[rows]),
        "ece": per_label(expected_calibration_error, calibrated[rows], targets[rows]),
        **decision_metrics(counts),
    }
    for metric, values in wanted.items():
        shown = pick(group, metric=metric).set_index("label")["value"]
        np.testing.assert_allclose(shown[list(LABELS)], values, atol=1e-12)
        assert float(shown["macro"]) == pytest.approx(float(values.mean()), abs=1e-12)
    over = f1_over_labels(counts)
    f1 = pick(group, metric="f1").set_index("label")["value"]
    for kind in ("micro", "weighted"):
        assert f1[kind] == pytest.approx(float(over[f"f1_{kind}"]), abs=1e-12)
    of_group = pick(found.counts, attribute="age", group="40 to 59")
    assert list(of_group.columns) == list(COUNTS)
    assert of_group["label"].tolist() == list(LABELS)
    for name in counts._fields:
        assert of_group[name].tolist() == getattr(counts, name).tolist()
    known = ~np.isnan(targets[rows])
    assert of_group["images"].tolist() == known.sum(axis=0).tolist()
    assert of_group["patients"].tolist() == [table.loc[rows, "patient"][column].nunique() for column in known.T]
    assert of_group["positives"].tolist() == (targets[rows] == 1).sum(axis=0).tolist()


def test_intervals_are_of_resampled_patients_of_all_groups_together(table: pd.DataFrame, found: Subgroups) -> None:
    areas = pick(found.metrics, attribute="view", group="PA", metric="auroc").set_index("label")
    probs, targets = split_arrays(table)
    targets = np.where((table["view"] == "PA").to_numpy()[:, None], targets, np.nan)
    wanted = bootstrap(["auroc"], probs, targets, table["patient"].to_numpy(), None, 200, 1)["auroc"]
    np.testing.assert_array_equal(areas["low"][list(LABELS)], interval(wanted).low)
    np.testing.assert_array_equal(areas["high"][list(LABELS)], interval(wanted).high)
    assert areas["low"]["macro"] == interval(wanted.macro()).low[0]
    assert areas["n_labels"]["macro"] == 3


def test_the_order_of_rows_and_labels_does_not_matter(table: pd.DataFrame) -> None:
    first = measure(table, n_replicates=60)
    turned = [f"{kind}_{label}" for kind in ("prob", "target") for label in LABELS[::-1]]
    names = [column for column in table if column not in turned]
    second = measure(table.sample(frac=1, random_state=3)[[*names, *turned]], n_replicates=60)
    for one, two in ((first.metrics, second.metrics), (first.gaps, second.gaps), (first.counts, second.counts)):
        keys = [column for column in ("attribute", "group", "metric", "label") if column in one]
        one, two = (part.sort_values(keys, ignore_index=True) for part in (one, two))
        pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-9, atol=1e-9)


def test_a_group_of_few_patients_has_blank_cells_with_reasons(found: Subgroups) -> None:
    group = pick(found.metrics, attribute="sex", group="unknown")
    assert pick(found.counts, attribute="sex", group="unknown")["patients"].max() == 2
    assert group["value"].isna().all()
    assert group["low"].isna().all()
    assert (group["reason"] != "").all()
    assert f"2 patients where {MIN_PATIENTS} are needed" in group["reason"].tolist()
    assert pick(group, label="Pneumonia", metric="auroc")["reason"].tolist() == ["no positive"]
    macro = pick(group, label="macro")
    assert set(macro["reason"]) == {"no label has a value"}
    assert macro["n_labels"].tolist() == [0] * len(macro)
    others = found.metrics[found.metrics["group"] != "unknown"]
    assert (others["value"].isna() | others["low"].notna() | (others["reason"] != "")).all()
    assert "unknown" not in {*found.gaps["group"], *found.gaps["against"]}


def test_a_label_without_a_threshold_says_so(table: pd.DataFrame) -> None:
    found = measure(table, make_point(never=["Nodule"]), n_replicates=60)
    for part in (found.metrics, found.gaps):
        decided = part[(part["label"] == "Nodule") & part["metric"].isin(AT_THRESHOLD)]
        assert set(decided["reason"]) == {"no threshold: validation has no positive"}
        assert decided["value"].isna().all()
    assert pick(found.metrics, label="Nodule", metric="auroc")["value"].notna().sum() >= 8
    assert found.counts.loc[found.counts["label"] == "Nodule", ["TP", "FP", "TN", "FN"]].isna().all(axis=None)
    macro = pick(found.metrics, label="macro", metric="f1", attribute="view")
    assert macro["n_labels"].tolist() == [2, 2]


def test_a_gap_is_what_a_group_has_above_the_others(table: pd.DataFrame, found: Subgroups) -> None:
    """For recall, above the others' images together; for AUROC, above the mean of the others over their positives."""
    gaps = found.gaps
    assert list(gaps.columns) == list(GAPS)
    values = found.metrics.set_index(["attribute", "group", "metric", "label"])["value"]
    row = pick(gaps, attribute="sex", metric="recall", label="Mass").iloc[0]
    assert (row["group"], row["against"]) == ("F", "M")  # of two groups there is one gap
    assert row["gap"] == pytest.approx(values["sex", "F", "recall", "Mass"] - values["sex", "M", "recall", "Mass"])
    assert len(pick(gaps, attribute="sex", metric="recall")) == 4
    group = pick(gaps, attribute="age", group="40 to 59", label="Nodule").set_index("metric")
    assert set(group["against"]) == {OTHERS}
    probs, targets = split_arrays(table)
    others = ((table["age"] < 40) | (table["age"] >= 60)).to_numpy()
    decided = decision_metrics(count_decisions(probs[others], targets[others], np.full(3, 0.5)))
    for metric in ("recall", "specificity"):
        assert group["value_against"][metric] == pytest.approx(decided[metric][1], abs=1e-12)
    counts = pick(found.counts, attribute="age", label="Nodule").set_index("group")["positives"].drop("40 to 59")
    areas = values["age", :, "auroc", "Nodule"].drop("40 to 59")
    assert group["value_against"]["auroc"] == pytest.approx(np.average(areas, weights=counts[areas.index]), abs=1e-12)
    assert (gaps["value"] - gaps["value_against"] - gaps["gap"]).abs().max() < 1e-12


def test_p_interval_and_correction_of_a_gap_agree(found: Subgroups) -> None:
    gaps = found.gaps
    assert set(gaps["metric"]) == set(TESTED)
    tested = gaps[gaps["p"].notna()]
    assert ((tested["p"] <= 0.05) == ((tested["low"] > 0) | (tested["high"] < 0))).all()
    assert (tested["flagged"] == ((tested["low_holm"] > 0) | (tested["high_holm"] < 0))).all()
    assert (tested["low_holm"] <= tested["low"]).all()
    assert (gaps["p"].isna() == (gaps["reason"] != "")).all()
    for _, family in gaps.groupby(["attribute", "metric"]):
        np.testing.assert_array_equal(family["p_holm"], adjust_holm(family["p"].to_numpy()))
        assert set(family["n_tested"]) == {family["p"].notna().sum()}


def test_ages_of_different_prevalence_are_no_gap() -> None:
    """Age alone tells which images are positive: over all ages scores seem better than within any."""
    drawn = draw_table(4, n_patients=400)
    rng = np.random.default_rng(0)
    old = (drawn["age"] >= 60).to_numpy()[:, None]
    targets = (rng.random((len(drawn), 3)) < np.where(old, 0.6, 0.05)).astype(np.float32)
    noise = rng.normal(size=targets.shape)
    found = measure(fill_table(drawn, expit(targets + 2 * old + noise), targets))
    gaps = pick(found.gaps, attribute="age", metric="auroc")
    together = per_label(auroc, *split_arrays(fill_table(drawn, expit(targets + 2 * old + noise), targets)))
    assert together.min() > gaps["value"].max()
    assert not gaps["flagged"].any()


def test_what_is_flagged_is_said_in_words() -> None:
    drawn = draw_table(1, n_patients=400)
    probs, targets = split_arrays(drawn)
    women = (drawn["sex"] == "F").to_numpy() & (targets[:, 1] == 1)
    worse = probs.astype(np.float64)
    worse[women, 1] *= 0.4
    found = measure(fill_table(drawn, worse, targets))
    flagged = found.gaps[found.gaps["flagged"]]
    assert {("auroc", "Nodule"), ("recall", "Nodule")} <= set(zip(flagged["metric"], flagged["label"], strict=True))
    assert set(flagged["attribute"]) == {"sex"}
    said = describe_gaps(found.gaps)
    row = pick(flagged, metric="recall", label="Nodule").iloc[0]
    assert (
        f"sex: recall of Nodule is lower in F ({row['value']:.3f}) than in M ({row['value_against']:.3f}), by "
        f"{-row['gap']:.3f} [{-row['high_holm']:.3f}, {-row['low_holm']:.3f}]; p < 0.001, Holm over 4 gaps" in said
    )
    assert said[-1] == "view: no gap is more than chance (tested: 4 of AUROC, 4 of recall, 4 of specificity)"
    assert any(line.startswith("sex: no other gap is more than chance (tested: 4 of specificity") for line in said)
    assert any(line.startswith("sex: macro AUROC is lower in F") for line in said)


def test_the_page_says_over_how_many_labels_a_macro_is_and_has_the_interval_of_the_sentence(found: Subgroups) -> None:
    by_sex = build_subgroups_section(found, list(LABELS)).sections[0]
    metrics, gaps = by_sex.tables
    macros = metrics.frame[metrics.frame["label"].str.startswith("macro")]
    n_labels = pick(found.metrics, attribute="sex", metric="auroc", label="macro")["n_labels"].tolist()
    assert [int(label.split()[2].strip(",")) for label in macros["label"]] == n_labels
    assert f"over {n_labels[0]}" in by_sex.pictures[0].caption
    assert any(text.get_text().startswith("macro over") for text in by_sex.pictures[0].figure.findobj(Text))
    [column] = [column for column in gaps.columns or () if column.name == "gap"]
    assert (column.low, column.high) == ("low_holm", "high_holm")


def test_groups_too_small_for_a_gap() -> None:
    drawn = draw_table(2, n_patients=12)
    drawn["sex"] = np.where(drawn["patient"] == "P1", "F", "M")
    drawn["view"] = "PA"
    found = measure(drawn)
    gaps = pick(found.gaps, attribute="sex")
    assert gaps["gap"].isna().all()
    assert not gaps["flagged"].any()
    assert pick(gaps, label="macro")["reason"].tolist() == [NO_GAP] * 3
    assert set(gaps["n_tested"]) == {0}
    assert "sex: the groups are too small to test any gap" in describe_gaps(found.gaps)
    assert pick(found.gaps, attribute="view").empty  # one group has nothing to be held against
    nothing = measure(drawn.drop(columns=["sex", "view", "age"]))
    assert [list(part.columns) for part in (nothing.metrics, nothing.counts, nothing.gaps)] == [
        list(METRICS), list(COUNTS), list(GAPS)
    ]  # fmt: skip
    assert sorted(nothing.excluded) == ["age", "sex", "view"]
    assert describe_gaps(nothing.gaps) == []


def draw_people(rng: np.random.Generator, gap: float = 0.0) -> pd.DataFrame:
    """300 patients in groups of very different sizes, whose findings are more frequent with age.

    All groups have an AUROC of 0.8, but for the first label of women, which is ``gap`` lower.
    """
    patients = np.repeat(np.arange(300), rng.geometric(0.25, 300))
    n = len(patients)
    age = rng.choice([10, 30, 50, 70, 90], 300, p=[0.05, 0.3, 0.4, 0.2, 0.05])[patients]
    sex = rng.choice(["F", "M"], 300, p=[0.4, 0.6])[patients]
    people = {"view": rng.choice(["AP", "PA"], n), "age": age, "sex": sex}
    prevalence = np.array([0.2, 0.1, 0.05]) * np.where(age >= 60, 2, np.where(age < 40, 0.5, 1))[:, None]
    own, shared = rng.normal(size=(n, 3)), rng.normal(size=(300, 3))[patients]
    targets = np.sqrt(0.6) * shared + np.sqrt(0.4) * own > ndtri(1 - prevalence)
    apart = np.full((n, 3), 2 * ndtri(0.8))
    apart[sex == "F", 0] = 2 * ndtri(0.8 - gap)
    scores = apart * targets + rng.normal(size=(300, 3))[patients] + rng.normal(size=(n, 3))
    table = pd.DataFrame({"image": np.arange(n).astype(str), "patient": patients.astype(str), **people})
    return fill_table(table, expit(scores - 1.5), targets.astype(np.float32))


@pytest.mark.slow
def test_without_a_gap_hardly_any_is_flagged_and_with_one_it_is_found() -> None:
    rng, flagged = np.random.default_rng(0), []
    for _ in range(120):
        gaps = measure(draw_people(rng), n_replicates=200).gaps
        flagged.append(gaps.groupby(["attribute", "metric"])["flagged"].any())
    by_family = pd.DataFrame(flagged).mean()
    assert len(by_family) == 9
    assert by_family.mean() <= 0.05
    assert by_family.max() <= 0.09  # 0.05, and two standard errors of 120
    found = []
    for _ in range(25):
        gaps = pick(measure(draw_people(rng, gap=0.25), n_replicates=200).gaps, attribute="sex", metric="auroc")
        found.append(gaps.set_index("label").loc["Mass", ["flagged", "gap"]])
    assert pd.DataFrame(found)["flagged"].mean() >= 0.8
    assert pd.DataFrame(found)["gap"].astype(float).mean() == pytest.approx(-0.25, abs=0.04)
