"""The images that are shown are the most certain ones, right and wrong, and no patient twice."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.evaluation.localisation.shown_images import KINDS, choose_examples
from cxrlit.metrics.operating_point import Thresholds

LABELS = ("Mass", "Nodule")


def fix(*values: float) -> Thresholds:
    return Thresholds(LABELS, np.array(values), np.full(2, np.nan), {})


def make_table(rows: list[tuple[str, float, float]], label: str = "Mass") -> pd.DataFrame:
    """Patient, prob and target of each image of one label; the other label is absent and improbable."""
    patients, probs, targets = zip(*rows, strict=True)
    other = LABELS[label == "Mass"]
    return pd.DataFrame(
        {
            "image": [f"{number:03d}.png" for number in range(len(rows))],
            "patient": patients,
            f"prob_{label}": np.float32(probs),
            f"prob_{other}": np.float32(0),
            f"target_{label}": np.float32(targets),
            f"target_{other}": np.float32(np.nan),
        }
    )


def test_the_most_certain_come_first() -> None:
    rows = [
        ("a", 0.9, 1), ("b", 0.95, 1), ("c", 0.6, 1), ("d", 0.5, 1), ("e", 0.1, 1), ("f", 0.2, 1), ("g", 0.3, 1),
        ("h", 0.8, 0), ("i", 0.99, 0), ("j", 0.0, 0), ("k", 0.97, np.nan),
    ]  # fmt: skip
    examples = choose_examples(make_table(rows), fix(0.5, 0.5), {("010.png", "Mass"), ("004.png", "Mass")}, 2)
    shown = {kind: [(example.image, example.rank) for example in examples if example.kind == kind] for kind in KINDS}
    assert shown == {
        "true_positive": [("001.png", 1), ("000.png", 2)],
        "false_positive": [("008.png", 1), ("007.png", 2)],
        "false_negative": [("004.png", 1), ("005.png", 2)],
        "with_box": [("010.png", 1), ("004.png", 2)],
    }
    assert {example.label for example in examples} == {"Mass"}
    first = examples[0]
    assert (first.prob, first.threshold, first.target) == (float(np.float32(0.95)), 0.5, 1)


def test_a_label_without_a_threshold_has_no_decisions() -> None:
    rows = [("a", 0.9, 1), ("b", 0.95, 0)]
    examples = choose_examples(make_table(rows), fix(np.nan, 0.5), {("000.png", "Mass")}, 3)
    assert [example.kind for example in examples] == ["with_box"]
    assert np.isnan(examples[0].threshold)


ROW = st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 0.2, 0.5, 0.9]), st.sampled_from([0, 1, np.nan]))


@given(st.lists(ROW, min_size=1, max_size=30), st.integers(1, 4), st.randoms())
@settings(max_examples=40, deadline=None)
def test_each_patient_once_and_by_its_most_certain_image(rows: list, n: int, random: object) -> None:
    table = make_table(rows)
    examples = choose_examples(table, fix(0.5, 0.5), set(), n)
    shuffled = table.sample(frac=1, random_state=random.randint(0, 99))  # type: ignore[attr-defined]
    assert choose_examples(shuffled, fix(0.5, 0.5), set(), n) == examples
    by_image = table.set_index("image")
    for kind, target, found in (("true_positive", 1, True), ("false_positive", 0, True), ("false_negative", 1, False)):
        of_kind = [example for example in examples if example.kind == kind]
        members = table[(table["target_Mass"] == target) & ((table["prob_Mass"] >= 0.5) == found)]
        best = members.groupby("patient")["prob_Mass"].agg("max" if found else "min").sort_values(ascending=not found)
        np.testing.assert_array_equal([example.prob for example in of_kind], best.iloc[:n])
        patients = by_image.loc[[example.image for example in of_kind], "patient"]
        assert patients.is_unique
        for example, patient in zip(of_kind, patients, strict=True):
            assert example.prob == best[patient]
