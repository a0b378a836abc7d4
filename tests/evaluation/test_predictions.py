"""The predictions table reads back to the bit, and what somebody changed is told, with its lines."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.evaluation.predictions import (
    list_labels,
    make_predictions,
    read_predictions,
    split_arrays,
    write_predictions,
)
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.operating_point import OperatingPoint, Thresholds
from cxrlit.metrics.types import Floats

COLUMNS = ["image", "patient", *(f"prob_{label}" for label in LABELS), *(f"target_{label}" for label in LABELS)]
TARGETS = arrays.arrays(np.float32, (3, 8), elements=st.sampled_from([0.0, 1.0, np.nan]))
AGES = st.none() | st.floats(0, 120, width=32)
EXAMPLES = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_table(probs: Floats, targets: NDArray[np.float32], **people: object) -> pd.DataFrame:
    part = pd.DataFrame(targets, columns=list(LABELS)).assign(
        image=[f"{row}.png" for row in range(len(probs))],
        patient=[f"00{row // 2}" for row in range(len(probs))],
        **people,
    )
    return make_predictions(part, LABELS, probs)


def write_and_read(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    write_predictions(folder / "predictions.csv", table)
    return read_predictions(folder / "predictions.csv")


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(0, 1, width=32)), TARGETS)
@EXAMPLES
def test_every_float32_comes_back(tmp_path: Path, probs: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
    back_probs, back_targets = split_arrays(write_and_read(tmp_path, make_table(probs, targets)))
    assert back_probs.dtype == back_targets.dtype == np.float32
    np.testing.assert_array_equal(back_probs.view(np.uint32), probs.view(np.uint32))
    np.testing.assert_array_equal(back_targets, targets)


@given(arrays.arrays(np.float64, (3, 8), elements=st.floats(0, 1)), TARGETS)
@EXAMPLES
def test_every_float64_comes_back(tmp_path: Path, probs: NDArray[np.float64], targets: NDArray[np.float32]) -> None:
    back, _ = split_arrays(write_and_read(tmp_path, make_table(probs, targets)))
    assert back.dtype == np.float64 or (probs.astype(np.float32) == probs).all()
    np.testing.assert_array_equal(back.astype(np.float64), probs)


@given(
    st.lists(st.sampled_from(["PA", "AP", "LATERAL", None]), min_size=3, max_size=3),
    st.lists(AGES, min_size=3, max_size=3),
    st.lists(st.sampled_from(["M", "F", None]), min_size=3, max_size=3),
)
@EXAMPLES
def test_what_is_known_of_people_comes_back(
    tmp_path: Path, views: list[str | None], ages: list[float | None], sexes: list[str | None]
) -> None:
    people = {"view": views, "age": np.array(ages, dtype=np.float32), "sex": sexes}
    table = make_table(np.full((3, 8), 0.25, np.float32), np.zeros((3, 8), np.float32), **people)
    known = [
        name for name, cells in (("view", views), ("age", ages), ("sex", sexes)) if any(x is not None for x in cells)
    ]
    assert table.columns.tolist() == [*COLUMNS[:2], *known, *COLUMNS[2:]]
    pd.testing.assert_frame_equal(write_and_read(tmp_path, table), table)


def test_columns_and_cells_are_as_agreed(tmp_path: Path) -> None:
    targets = np.zeros((2, 8), np.float32)
    targets[0, 1], targets[1, 2] = 1, np.nan
    write_predictions(tmp_path / "predictions.csv", make_table(np.full((2, 8), 0.5, np.float32), targets))
    lines = (tmp_path / "predictions.csv").read_text().split("\n")
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "0.png,000,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0,1,0,0,0,0,0,0"
    assert lines[2] == "1.png,000,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0,0,,0,0,0,0,0"
    assert lines[3:] == [""]


def make_point() -> OperatingPoint:
    """Calibrated by Platt's scaling but for the first label; the last has no threshold."""
    rng = np.random.default_rng(3)
    slope, intercept = rng.uniform(0.3, 2, 8), rng.normal(size=8)
    slope[0] = intercept[0] = np.nan
    values = rng.uniform(0.2, 0.7, 8)
    values[-1] = np.nan
    reasons = {LABELS[-1]: "validation has no positive"}
    return OperatingPoint(
        Calibration("platt", LABELS, slope, intercept, {LABELS[0]: "none"}),
        Thresholds(LABELS, values, values, reasons),
        {},
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_file_of_an_evaluation_says_calibrated_probs_and_decisions(tmp_path: Path, dtype: type) -> None:
    rng, point = np.random.default_rng(0), make_point()
    probs = rng.random((200, 8)).astype(dtype)
    bounds = point.threshold_probs(dtype)
    probs[0] = np.nan_to_num(bounds).astype(dtype)  # at the threshold, as near as the type has a number
    probs[1] = np.nextafter(probs[0], dtype(0))
    targets = (rng.random((200, 8)) < 0.3).astype(np.float32)
    path, table = tmp_path / "predictions.csv", make_table(probs, targets)
    write_predictions(path, table, point)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [f"{kind}_{label}" for kind in ("prob", "calibrated", "pred", "target") for label in LABELS]
    assert list(rows[0]) == ["image", "patient", *kinds]
    calibrated = point.calibrate(probs)
    for column, label in enumerate(LABELS):
        for row, cells in enumerate(rows):
            prob, other, pred = (cells[f"{kind}_{label}"] for kind in ("prob", "calibrated", "pred"))
            assert float(prob) == probs[row, column]  # the number itself, also of a float32 that is read as float64
            assert float(other) == calibrated[row, column]
            if label == LABELS[-1]:
                assert pred == ""
                continue
            assert pred == str(int(float(prob) >= bounds[column]))
            assert pred == str(int(float(other) >= point.thresholds.values[column]))
    pd.testing.assert_frame_equal(read_predictions(path), table)  # which follow from the probs and are not read


def test_a_file_with_nine_digits_is_read_as_before(tmp_path: Path) -> None:
    table = make_table(np.random.default_rng(1).random((20, 8)).astype(np.float32), np.zeros((20, 8), np.float32))
    table.to_csv(tmp_path / "predictions.csv", index=False, float_format="%.9g")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "predictions.csv"), table)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "007", "1e5", 'a,"b"', "Zoë"])
def test_names_stay_as_they_are(tmp_path: Path, name: str) -> None:
    table = make_table(np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32))
    back = write_and_read(tmp_path, table.assign(image=[name, "b"], patient=f"p{name}"))
    assert back.columns.tolist() == COLUMNS
    assert back["image"].tolist() == [name, "b"]
    assert back["patient"].tolist() == [f"p{name}", f"p{name}"]


HEADER = "image,patient,view,age,sex,prob_Mass,prob_Nodule,target_Mass,target_Nodule"
ROWS = ("a.png,1,PA,50,F,0.25,0.5,1,0", "b.png,1,,,,0.75,1,,1")


def write(folder: Path, *lines: str) -> Path:
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder / "predictions.csv"


def test_the_order_of_the_columns_is_of_no_account(tmp_path: Path) -> None:
    wanted = read_predictions(write(tmp_path, HEADER, *ROWS))
    assert list_labels(wanted) == ["Mass", "Nodule"]
    turned = [",".join(reversed(line.split(","))) for line in (HEADER, *ROWS)]
    back = read_predictions(write(tmp_path, *turned))
    assert list_labels(back) == ["Nodule", "Mass"]
    pd.testing.assert_frame_equal(back[wanted.columns], wanted)


def swap(before: str, after: str) -> Callable[[str], str]:
    return lambda text: text.replace(before, after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap("image,", "file,"), "the column image is missing; there are file, patient"),
        (swap("patient,", "person,"), "the column patient is missing"),
        (swap("prob_", "p_"), "no column begins with prob_, so it is no predictions table; there are image, patient"),
        (swap("prob_Mass", "score_Mass"), "the column prob_Mass is missing"),
        (swap("target_Mass", "is_Mass"), "the column target_Mass is missing"),
        (swap("Nodule", "Mass"), "names each label once"),
        (swap("Nodule", "age"), "age is the name of another column"),
        (swap("Nodule", "=1+1"), "the label '=1+1': string should match pattern"),
        (swap("b.png", "a.png"), "1 image stands in it twice (a.png in lines 2, 3)"),
        (swap("b.png", ""), "line 3: image '' is blank"),
        (swap("b.png", "b\x1b[2J"), "line 3: image 'b\\\\x1b[2J' holds U+001B (a control character)"),
        (swap("b.png,1", "b.png,"), "line 3: patient '' is blank"),
        (swap("PA", "front"), "line 2: view 'front' is none of PA, AP, LATERAL"),
        (swap(",F,", ",female,"), "line 2: sex 'female' is none of F, M"),
        (swap(",50,", ",old,"), "line 2: age 'old' is no age"),
        (swap("0.75", "0,75"), "line 3: it has 10 cells and the header 9"),
        (swap("0.75", ""), "line 3: prob_Mass '' is blank"),
        (swap("0.75", "nan"), "line 3: prob_Mass 'nan' is no finite number"),
        (swap("0.75", "inf"), "line 3: prob_Mass 'inf' is no finite number"),
        (swap("0.75", "high"), "line 3: prob_Mass 'high' is no finite number"),
        (swap("0.75", "1_0"), "line 3: prob_Mass '1_0' is no finite number"),
        (swap("0.75", "-0.75"), "line 3: prob_Mass is -0.75, outside [0, 1]"),
        (swap("0.75", "1.5"), "line 3: prob_Mass is 1.5, outside [0, 1]"),
        (swap("1,0\n", "2,0\n"), "line 2: target_Mass '2' is no label: write 1 or 0"),
        (swap("1,0\n", "-1,0\n"), "line 2: target_Mass '-1' is no label"),
        (lambda text: text.split("\n")[0], "the table has no rows"),
        (lambda text: "", "it is empty"),
    ],
)
def test_what_somebody_changed_is_told_with_its_lines(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    text = "\n".join((HEADER, *ROWS)) + "\n"
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    read_predictions(path)
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_table_is_read_once(tmp_path: Path, table_opens: list[Path]) -> None:
    path = write(tmp_path, HEADER, *ROWS, "c.png,1,,,,0.75,2,,1")
    with pytest.raises(DataError, match=r"line 4: prob_Nodule is 2, outside"):
        read_predictions(path)
    assert table_opens == [path]


def test_a_spreadsheet_may_have_saved_it(tmp_path: Path) -> None:
    wanted = read_predictions(write(tmp_path, HEADER, *ROWS))
    text = "\ufeff" + "\r\n".join((HEADER, *ROWS)).replace(",1,0", ",1.0,0.0") + "\r\n"
    (tmp_path / "predictions.csv").write_bytes(text.encode())
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "predictions.csv"), wanted)
