"""Counts of the whole and of its parts, against loops over the rows."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inspecting import read

from cxrlit.config import InspectConfig
from cxrlit.core.labels import LABELS
from cxrlit.inspection.charts import chart_counts, count_bins, count_n_findings, draw_levels, draw_prevalence
from cxrlit.inspection.counts import IndexCounts, compare_prevalence, count_parts, count_rows
from cxrlit.inspection.survey import survey_data
from cxrlit.inspection.table_sections import tabulate_together


def make_index(n: int = 400, unknown: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Random targets, some of them unknown, of patients with a few images each."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([1.0, 0.0, np.nan], p=[0.25, 0.75 - unknown, unknown], size=(n, len(LABELS)))
    patients = rng.integers(0, n // 3, n)
    parts = np.array(["train", "val", "test"])[patients % 3]
    return pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(n)],
            "patient": patients.astype(str),
            **dict(zip(LABELS, targets.T.astype(np.float32), strict=True)),
            "view": rng.choice(np.array(["PA", "AP", None], dtype=object), n),
            "sex": rng.choice(np.array(["F", "M", None], dtype=object), n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 90, n)),
            "split": parts,
        }
    )


def check_against_loops(counts: IndexCounts, rows: list[dict[Any, Any]], labels: tuple[str, ...]) -> None:
    assert counts.n_images == len(rows)
    per_patient = Counter(row["patient"] for row in rows)
    assert sorted(counts.per_patient) == sorted(per_patient.values())
    assert counts.n_patients == len(per_patient)
    for k, label in enumerate(labels):
        assert counts.positives[k] == sum(row[label] == 1 for row in rows)
        assert counts.negatives[k] == sum(row[label] == 0 for row in rows)
        assert counts.unknown[k] == sum(row[label] != row[label] for row in rows)
        assert counts.patients_with[k] == len({row["patient"] for row in rows if row[label] == 1})
        known = [row[label] for row in rows if row[label] in (0, 1)]
        assert counts.prevalence[k] == pytest.approx(sum(known) / len(known))
    for (i, one), (j, other) in product(enumerate(labels), repeat=2):
        with_one = [row for row in rows if row[one] == 1 and row[other] in (0, 1)]
        both = sum(row[one] == 1 and row[other] == 1 for row in rows)
        assert counts.together[i, j] == both
        assert counts.conditional[i, j] == pytest.approx(both / len(with_one))
    n_findings = Counter(sum(row[label] == 1 for label in labels) for row in rows)
    assert dict(enumerate(counts.n_findings)) == {n: n_findings.get(n, 0) for n in range(max(n_findings) + 1)}
    assert counts.cardinality == pytest.approx(sum(n * times for n, times in n_findings.items()) / len(rows))
    assert counts.n_clear == sum(all(row[label] == 0 for label in labels) for row in rows)
    no_positive = [row for row in rows if not any(row[label] == 1 for label in labels)]
    assert counts.n_open == sum(any(row[label] != row[label] for label in labels) for row in no_positive)
    assert counts.views == Counter(row["view"] if isinstance(row["view"], str) else "unknown" for row in rows)
    assert counts.sexes == Counter(row["sex"] if isinstance(row["sex"], str) else "unknown" for row in rows)
    assert sorted(counts.ages) == sorted(row["age"] for row in rows if row["age"] == row["age"])


@pytest.mark.parametrize("unknown", [0.0, 0.2, 0.6])
def test_counts_of_random_targets(unknown: float) -> None:
    index = make_index(unknown=unknown)
    parts = count_parts(index, LABELS)
    assert [part.name for part in parts] == ["all", "train", "val", "test"]
    check_against_loops(parts[0], index.to_dict("records"), LABELS)
    for part in parts[1:]:
        check_against_loops(part, index[index["split"] == part.name].to_dict("records"), LABELS)


def test_counts_of_a_label_table(nih_tree: Path, make_config: Callable[..., InspectConfig]) -> None:
    config = make_config(nih_tree)
    survey = survey_data(read(config), config.data)
    lines = (nih_tree / "Data_Entry_2017_v2020.csv").read_text().splitlines()[1:]
    table = [line.split(",") for line in lines]
    split = dict(zip(survey.rows["image"], survey.rows["split"], strict=True))
    for part in survey.counts:
        rows = [
            {
                "patient": patient,
                **{label: float(label in findings.split("|")) for label in LABELS},
                "age": float(age),
                "sex": sex,
                "view": view,
            }
            for image, findings, _, patient, age, sex, view, *_ in table
            if part.name in ("all", split[image])
        ]
        check_against_loops(part, rows, LABELS)


def test_without_a_split_there_is_the_whole() -> None:
    assert [part.name for part in count_parts(make_index().drop(columns="split"), LABELS)] == ["all"]


def test_the_relative_difference_of_prevalence() -> None:
    index = pd.DataFrame({"image": list("abcdefgh"), "patient": list("abcdefgh"), "view": None, "sex": None})
    index = index.assign(age=np.nan, A=[1, 1, 0, 0, 0, 0, 0, 0], B=np.nan, C=0.0)
    whole, part = (count_rows(rows, ["A", "B", "C"], "x") for rows in (index, index.iloc[[0, 2, 3]]))
    np.testing.assert_allclose(whole.prevalence, [0.25, np.nan, 0])
    np.testing.assert_allclose(compare_prevalence(part, whole), [1 / 3, np.nan, np.nan])


def test_bins_hold_every_image() -> None:
    parts = count_parts(make_index(), LABELS)
    bins, counts = count_n_findings(parts)
    assert [int(of.sum()) for of in counts] == [part.n_images for part in parts]
    assert len(bins) == len(counts[0]) == len(counts[-1])
    bins, counts = count_bins([part.ages for part in parts], range(0, 121, 10))
    assert (bins[0], bins[-1]) == ("0–9", "80–89")
    assert [int(of.sum()) for of in counts] == [len(part.ages) for part in parts]
    assert count_bins([np.array([1, 10**6])], (1, 2)) == (["1", "2 or more"], [pytest.approx([1, 1])])
    assert count_bins([np.array([])], (1, 2)) == ([], [pytest.approx([])])


def test_a_chart_is_a_table_and_a_picture_of_the_whole() -> None:
    counts = [np.array([1, 3]), np.array([0, 2])]
    table, picture = chart_counts("ages", "Images by age", "years", ["all", "train"], ["0–9", "10 or more"], counts)
    assert table.frame.to_numpy().tolist() == [
        ["0–9", "1 (25.0 %)", "0 (0.0 %)"],
        ["10 or more", "3 (75.0 %)", "2 (100.0 %)"],
    ]
    assert picture.alt == "Images by age: years 0–9: 1 (25.0 %); years 10 or more: 3 (75.0 %)"
    assert [bar.get_width() for bar in picture.figure.axes[0].patches] == [1, 3]


def test_the_prevalence_of_each_part_is_drawn() -> None:
    parts = count_parts(make_index(), LABELS)
    picture = draw_prevalence(parts, LABELS)
    widths = [bar.get_width() for bar in picture.figure.axes[0].patches]
    np.testing.assert_allclose(widths, np.concatenate([part.prevalence for part in parts]))
    assert f"{LABELS[0]} {100 * parts[0].prevalence[0]:.1f} % all, " in picture.alt


def test_the_colour_of_a_matrix_rises_with_the_share() -> None:
    part = count_parts(make_index(), LABELS)[0]
    for row, (_, *cells) in enumerate(tabulate_together(part, LABELS).grid.rows):
        shares = part.conditional[row]
        assert [cell.shade for cell in cells] == np.ceil(shares * 10).astype(int).tolist()
        texts = zip(part.together[row], shares, strict=True)
        assert [cell.text for cell in cells] == [f"{number} ({100 * share:.1f} %)" for number, share in texts]


def test_gray_levels_are_drawn_up_to_the_highest_between_black_and_white() -> None:
    levels = np.zeros(256)
    levels[[0, 10, 20]] = 0.7, 0.2, 0.1
    picture = draw_levels(levels)
    [axes] = picture.figure.axes
    assert axes.get_ylim() == pytest.approx((0, 0.2))
    assert axes.patches[0].get_data().values.tolist() == levels.tolist()  # type: ignore[attr-defined]
    assert "is 20.0 % of the pixels; black itself (70.0 %) and white itself (0.0 %)" in picture.caption
    assert draw_levels(np.eye(256)[0]).figure.axes[0].get_ylim() == (0, 1)
