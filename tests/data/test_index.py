"""What an index may be, and what its hash knows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrlit.data.index import COLUMNS, check_index, hash_index, read_targets
from cxrlit.errors import DataError
from cxrlit.labels import LABELS


def make_index(n_images: int = 6) -> pd.DataFrame:
    targets = np.random.default_rng(0).integers(0, 2, (n_images, len(LABELS))).astype(np.float32)
    targets[0, 0] = np.nan
    return pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(n_images)],
            "path": [f"/data/{row}.png" for row in range(n_images)],
            "n_bytes": range(100, 100 + n_images),
            "patient": [f"{row // 2}" for row in range(n_images)],
            **{label: targets[:, column] for column, label in enumerate(LABELS)},
            "age": np.float32(50),
            "sex": "F",
            "view": "PA",
        }
    )


def change(index: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    changed = index.copy()
    changed[column] = [value if number == row else old for number, old in enumerate(index[column])]
    return changed


def test_rows_come_out_by_image_and_columns_in_order() -> None:
    index = make_index()
    shuffled = index.sample(frac=1, random_state=1, ignore_index=True)[[*reversed(COLUMNS)]].assign(other=1)
    checked = check_index(shuffled, "here")
    pd.testing.assert_frame_equal(checked, index)
    assert tuple(checked.columns) == COLUMNS


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(DataError, match="here: there are no images"):
        check_index(make_index()[:0], "here")


def test_duplicate_images_are_named() -> None:
    with pytest.raises(DataError, match=r"1 images stand in it twice \(3\.png\)"):
        check_index(change(make_index(), 5, "image", "3.png"), "here")


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/x.png", "a\\x.png", "x/", ".", "..", ""])
def test_an_image_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="file names without folders"):
        check_index(change(make_index(), 2, "image", name), "here")


@pytest.mark.parametrize("patient", [None, float("nan"), ""])
def test_an_image_without_a_patient_is_named(patient: Any) -> None:
    with pytest.raises(DataError, match=r"1 images have no patient: 2\.png"):
        check_index(change(make_index(), 2, "patient", patient), "here")


@pytest.mark.parametrize("target", [0.5, 2, -1, np.inf])
def test_a_target_is_0_or_1_or_unknown(target: float) -> None:
    with pytest.raises(DataError, match=rf"Mass of 4\.png is {float(target)}"):
        check_index(change(make_index(), 4, "Mass", target), "here")


def test_targets_are_in_the_order_of_the_labels() -> None:
    index = make_index()
    targets = read_targets(index[[*reversed(COLUMNS)]])
    assert targets.dtype == np.float32
    for column, label in enumerate(LABELS):
        np.testing.assert_array_equal(targets[:, column], index[label])


@pytest.mark.parametrize(
    ("column", "value"),
    [("image", "9.png"), ("n_bytes", 7), ("patient", "9"), *((label, np.nan) for label in LABELS[1:])],
)
@pytest.mark.parametrize("row", [0, 5])
def test_the_hash_knows_every_cell(row: int, column: str, value: Any) -> None:
    assert hash_index(change(make_index(), row, column, value)) != hash_index(make_index())


def test_the_hash_knows_unknown_from_absent() -> None:
    unknown, absent, present = (change(make_index(), 0, "Mass", value) for value in (np.nan, 0.0, 1.0))
    assert len({hash_index(index) for index in (unknown, absent, present)}) == 3


def test_the_hash_is_that_of_what_is_trained_on() -> None:
    index = make_index()
    shuffled = check_index(index.sample(frac=1, random_state=1, ignore_index=True), "here")
    moved = index.assign(path="/elsewhere", age=np.nan, sex=None, view="AP")
    assert hash_index(index) == hash_index(shuffled) == hash_index(moved)
