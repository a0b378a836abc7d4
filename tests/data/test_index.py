"""What an index may be, and what its hash knows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrlit.core.errors import DataError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.index import check_index, hash_index, read_targets

COLUMNS = (*FIXED_COLUMNS, *LABELS)


def make_index(n_images: int = 6) -> pd.DataFrame:
    targets = np.random.default_rng(0).integers(0, 2, (n_images, len(LABELS))).astype(np.float32)
    targets[0, 0] = np.nan
    return pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(n_images)],
            "source": "some",
            "path": [f"/data/{row}.png" for row in range(n_images)],
            "file": [f"{row}.png" for row in range(n_images)],
            "n_bytes": range(100, 100 + n_images),
            "mtime_ns": 0,
            "patient": [f"{row // 2}" for row in range(n_images)],
            "study": "1",
            "view": "PA",
            "age": np.float32(50),
            "sex": "F",
            **{label: targets[:, column] for column, label in enumerate(LABELS)},
        }
    )


def change(index: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    changed = index.copy()
    changed[column] = [value if number == row else old for number, old in enumerate(index[column])]
    return changed


def test_rows_come_out_by_image_and_columns_in_order() -> None:
    index = make_index()
    shuffled = index.sample(frac=1, random_state=1, ignore_index=True)[[*reversed(COLUMNS)]].assign(other=1)
    checked = check_index(shuffled, LABELS, "some", "here")
    pd.testing.assert_frame_equal(checked, index)
    assert tuple(checked.columns) == COLUMNS


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(DataError, match="here: there are no images"):
        check_index(make_index()[:0], LABELS, "some", "here")


def test_duplicate_images_are_named() -> None:
    with pytest.raises(DataError, match=r"1 image stands in it twice \(3\.png\)"):
        check_index(change(make_index(), 5, "image", "3.png"), LABELS, "some", "here")


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/x.png", "a\\x.png", "x/", ".", "..", ""])
def test_an_image_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="file names without folders"):
        check_index(change(make_index(), 2, "image", name), LABELS, "some", "here")


@pytest.mark.parametrize("patient", [None, float("nan"), ""])
def test_an_image_without_a_patient_is_named(patient: Any) -> None:
    with pytest.raises(DataError, match=r"1 image has no patient: 2\.png"):
        check_index(change(make_index(), 2, "patient", patient), LABELS, "some", "here")


@pytest.mark.parametrize("target", [0.5, 2, -1, np.inf])
def test_a_target_is_0_or_1_or_unknown(target: float) -> None:
    with pytest.raises(DataError, match=rf"Mass of 4\.png is {float(target)}"):
        check_index(change(make_index(), 4, "Mass", target), LABELS, "some", "here")


def test_targets_are_in_the_order_of_the_labels() -> None:
    index = make_index()
    targets = read_targets(index[[*reversed(COLUMNS)]], LABELS)
    assert targets.dtype == np.float32
    for column, label in enumerate(LABELS):
        np.testing.assert_array_equal(targets[:, column], index[label])


@pytest.mark.parametrize(
    ("column", "value"),
    [("image", "9.png"), ("n_bytes", 7), ("patient", "9"), *((label, np.nan) for label in LABELS[1:])],
)
@pytest.mark.parametrize("row", [0, 5])
def test_the_hash_knows_every_cell(row: int, column: str, value: Any) -> None:
    assert hash_index(change(make_index(), row, column, value), LABELS) != hash_index(make_index(), LABELS)


def test_the_hash_knows_unknown_from_absent() -> None:
    unknown, absent, present = (change(make_index(), 0, "Mass", value) for value in (np.nan, 0.0, 1.0))
    assert len({hash_index(index, LABELS) for index in (unknown, absent, present)}) == 3


def test_the_hash_is_that_of_what_is_trained_on() -> None:
    index = make_index()
    shuffled = check_index(index.sample(frac=1, random_state=1, ignore_index=True), LABELS, "some", "here")
    moved = index.assign(path="/elsewhere", age=np.nan, sex=None, view="AP")
    assert hash_index(index, LABELS) == hash_index(shuffled, LABELS) == hash_index(moved, LABELS)
