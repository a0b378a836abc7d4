"""Two predictions tables become changes and an answer, whatever the order of their rows and columns."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import LABELS, draw_table, make_point

from cxrlit.core.errors import ConfigError, DataError
from cxrlit.evaluation.compare.changes import compare_metric
from cxrlit.evaluation.compare.inputs import pair_rows
from cxrlit.evaluation.compare.models import ComparisonResult, compare_predictions
from cxrlit.evaluation.compare.noninferiority import Question, answer
from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.operating_point import OperatingPoint

BASELINE, CANDIDATE = draw_table(0, n_patients=40), draw_table(0, n_patients=40, shift=2.5)
POINTS = make_point(threshold=0.5), make_point(threshold=0.6)
ASK = Question(("Nodule",))


def compare(
    baseline: pd.DataFrame = BASELINE, candidate: pd.DataFrame = CANDIDATE, **changes: object
) -> ComparisonResult:
    options = {"points": POINTS, "question": ASK, "n_replicates": 60, "seed": 3, **changes}
    return compare_predictions(baseline, candidate, **options)  # type: ignore[arg-type]


def test_the_table_is_that_of_the_statistics() -> None:
    found = compare()
    (before, targets), (after, _) = split_arrays(BASELINE), split_arrays(CANDIDATE)
    patients = BASELINE["patient"].to_numpy()
    areas = compare_metric("auroc", before, after, targets, patients, LABELS, n_replicates=60, seed=3)
    scores = compare_metric("f1", before, after, targets, patients, LABELS, (np.full(3, 0.5), np.full(3, 0.6)), 60, 3)
    pd.testing.assert_frame_equal(found.tabulate(), pd.concat([areas.table, scores.table], ignore_index=True))
    assert found.answer == answer(areas, ASK)
    assert (found.n_images, found.n_patients, found.excluded) == (len(BASELINE), 40, {})
    assert compare(metric="f1").answer == answer(scores, ASK)
    assert compare(question=None).answer is None


@given(st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None)
def test_the_order_of_rows_and_labels_does_not_matter(random: object) -> None:
    def shuffle(table: pd.DataFrame) -> pd.DataFrame:
        rows, columns = list(table.index), list(table.columns)
        random.shuffle(rows)  # type: ignore[attr-defined]
        random.shuffle(columns)  # type: ignore[attr-defined]
        return table.loc[rows, columns].reset_index(drop=True)

    baseline, candidate = shuffle(BASELINE), shuffle(CANDIDATE)
    turned = compare(baseline, candidate).tabulate().sort_values(["metric", "label"], ignore_index=True)
    wanted = compare().tabulate().sort_values(["metric", "label"], ignore_index=True)
    pd.testing.assert_frame_equal(turned, wanted, check_exact=False, rtol=0, atol=1e-12)
    paired = pair_rows(baseline, candidate, ("a", "b"))
    assert paired["image"].tolist() == candidate["image"].tolist()
    assert list_labels(paired) == list_labels(candidate)
    pd.testing.assert_frame_equal(paired.set_index("image").loc[BASELINE["image"], BASELINE.columns[1:]].reset_index(),
                                  BASELINE)  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "are_same"),
    [
        (("7", "12"), ("00007", "12.0"), True),
        (("nih/7", "nih/A 1"), ("nih/7.0", "nih/a  1"), True),
        (("7", "12"), ("12", "7"), False),
        (("nih/7", "pc/7"), ("pc/7", "nih/7"), False),
    ],
)
def test_patients_are_known_by_the_key_of_their_spelling(
    ours: tuple[str, str], theirs: tuple[str, str], are_same: bool
) -> None:
    before, after = (BASELINE[:2].assign(patient=patients) for patients in (ours, theirs))
    if are_same:
        assert pair_rows(before, after, ("a", "b"))["image"].tolist() == after["image"].tolist()
        return
    with pytest.raises(DataError, match=r"^patient of 2 images is another in a than in b"):
        pair_rows(before, after, ("a", "b"))


def test_the_other_way_round_every_change_is_the_opposite() -> None:
    there, back = compare().tabulate(), compare(CANDIDATE, BASELINE, points=POINTS[::-1]).tabulate()
    np.testing.assert_allclose(there["change"], -back["change"], atol=1e-12)
    np.testing.assert_allclose(there["low_holm"], -back["high_holm"], atol=1e-12)
    np.testing.assert_allclose(there["p_holm"], back["p_holm"], atol=1e-12)


def test_f1_is_that_of_calibrated_probs() -> None:
    points = tuple(
        OperatingPoint(
            Calibration("platt", LABELS, np.full(3, slope), np.full(3, 0.2), {}),
            make_point(threshold=0.5).thresholds,
            {},
        )
        for slope in (0.5, 2)
    )
    (before, targets), (after, _) = split_arrays(BASELINE), split_arrays(CANDIDATE)
    calibrated = points[0].calibrate(before), points[1].calibrate(after)
    thresholds = np.full(3, 0.5), np.full(3, 0.5)
    wanted = compare_metric("f1", *calibrated, targets, BASELINE["patient"].to_numpy(), LABELS, thresholds, 60, 3)
    found = compare(points=points).comparisons["f1"].table
    pd.testing.assert_frame_equal(found, wanted.table)
    uncalibrated = compare(points=(POINTS[0], POINTS[0])).comparisons["f1"].table
    assert (found[["baseline", "candidate"]] != uncalibrated[["baseline", "candidate"]]).all(axis=None)


@pytest.mark.parametrize("missing", ["no thresholds.json", make_point(never=LABELS)])
def test_without_thresholds_f1_is_left_out_with_the_reason(missing: str | OperatingPoint) -> None:
    found = compare(points=(POINTS[0], missing))
    why = missing if isinstance(missing, str) else "validation has no positive"
    assert found.excluded == {"f1": f"candidate has no thresholds: {why}"}
    assert list(found.comparisons) == ["auroc"]
    assert compare(points=("here", "there")).excluded["f1"] == (
        "baseline has no thresholds: here; candidate has no thresholds: there"
    )
    with pytest.raises(ConfigError, match="metric=f1: candidate has no thresholds"):
        compare(points=(POINTS[0], missing), metric="f1")


def test_what_is_undefined_says_why() -> None:
    tables = [table.assign(target_Mass=0.0, target_Nodule=np.nan) for table in (BASELINE, CANDIDATE)]
    found = compare(*tables, points=(make_point(never=["Pneumonia"]), POINTS[1]))
    classes = ["no positive", "no known target"]
    why = "baseline: no threshold: validation has no positive"
    assert found.comparisons["auroc"].table["reason"].tolist() == [*classes, "", ""]
    assert found.comparisons["f1"].table["reason"].tolist() == [*classes, why, "undefined"]
    assert found.answer
    assert found.answer.verdict == "undecided"
    assert found.answer.criteria[1].why == "no interval: no known target"
    tables = [table.assign(target_Mass=1.0) for table in (BASELINE, CANDIDATE)]
    assert compare(*tables).comparisons["auroc"].table["reason"][0] == "no negative"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            CANDIDATE.drop(columns=["prob_Mass", "target_Mass"]),
            r"1 label is in old alone \(Mass\): compare models of",
        ),
        (
            CANDIDATE.rename(columns=lambda name: name.replace("Mass", "Hernia")),
            r"1 label is in old alone \(Mass\), and 1 label is in new alone \(Hernia\)",
        ),
        (CANDIDATE[1:], r"1 image is in old alone \(00000.png\): predict the same images with both"),
        (
            CANDIDATE.replace({"image": {"00003.png": "x.png"}}),
            r"1 image is in old alone \(00003.png\), and 1 image is in new alone \(x.png\)",
        ),
        (CANDIDATE.replace({"image": {"00003.png": "00004.png"}}), r"new: 1 image stands in it twice \(00004.png\)"),
        (
            CANDIDATE.replace({"patient": {"P0": "P39"}}),
            r"patient of \d+ images is another in old than in new \(00000.png",
        ),
        (
            CANDIDATE.assign(target_Nodule=1 - CANDIDATE["target_Nodule"]),
            rf"target_Nodule of {len(CANDIDATE)} images is another in old than in new \(00000.png, .*\): these are",
        ),
        (
            CANDIDATE.assign(target_Mass=CANDIDATE["target_Mass"].mask(CANDIDATE.index == 5)),
            r"target_Mass of 1 image is another in old than in new \(00005.png\)",
        ),
    ],
)
def test_tables_that_do_not_agree_are_refused_and_named(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        compare(candidate=table, names=("old", "new"))


def test_a_question_about_a_label_that_there_is_not() -> None:
    with pytest.raises(
        ConfigError, match="must_improve: Hernia is none of the labels; they are Mass, Nodule, Pneumonia"
    ):
        compare(question=Question(("Mass", "Hernia")))
    with pytest.raises(DataError, match="Nodule has none"):
        compare(points=(POINTS[0], make_point(labels=["Mass", "Pneumonia"])))
