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
from cxrlit.inspection.charts import chart_bins, chart_n_findings, draw_levels, heat_matrix
from cxrlit.inspection.counts import IndexCounts, compare_prevalence, count_parts, count_rows
from cxrlit.inspection.survey import survey_data


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


def test_charts_hold_every_image() -> None:
    parts = count_parts(make_index(), LABELS)
    assert sum(int(bar.cells[0].split()[0]) for bar in chart_n_findings(parts)) == 400
    ages = chart_bins([part.ages for part in parts], range(0, 121, 10))
    assert ages[0].name == "0–9"
    assert ages[-1].name == "80–89"
    for column, part in enumerate(parts):
        assert sum(int(bar.cells[column].split()[0]) for bar in ages) == len(part.ages)
    assert max(bar.length for bar in ages) == 1
    assert chart_bins([np.array([])], (1, 2)) == []


def test_the_colour_of_a_matrix_rises_with_the_share() -> None:
    part = count_parts(make_index(), LABELS)[0]
    for heats, shares in zip(heat_matrix(part), part.conditional, strict=True):
        assert [heat.step for heat in heats] == np.ceil(shares * 10).astype(int).tolist()
        assert [heat.share for heat in heats] == [f"{100 * share:.1f} %" for share in shares]


def test_the_outline_of_gray_levels() -> None:
    levels = np.zeros(256)
    levels[[0, 10, 20]] = 0.7, 0.2, 0.1
    path, highest = draw_levels(levels)
    assert highest == pytest.approx(0.2)
    steps = path.removeprefix("M0 100").removesuffix("V100Z").split()
    assert len(steps) == 256
    tops = [float(step[1:].partition("H")[0]) for step in steps]
    assert [tops[0], tops[10], tops[20], tops[30]] == pytest.approx([0, 0, 50, 100])
    for empty in (np.zeros(256), np.eye(256)[0]):
        assert "nan" not in draw_levels(empty)[0]
