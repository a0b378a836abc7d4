"""The predictions table reads back to the bit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cxrlit.evaluation.predictions import make_predictions, read_predictions, split_arrays, write_predictions
from cxrlit.labels import LABELS

COLUMNS = ["image", "patient", *(f"prob_{label}" for label in LABELS), *(f"target_{label}" for label in LABELS)]


def make_table(probs: NDArray[np.float32], targets: NDArray[np.float32]) -> pd.DataFrame:
    part = pd.DataFrame(targets, columns=list(LABELS)).assign(
        image=[f"{row}.png" for row in range(len(probs))], patient=[f"00{row // 2}" for row in range(len(probs))]
    )
    return make_predictions(part, LABELS, probs)


@given(
    arrays.arrays(np.float32, (3, 8), elements=st.floats(0, 1, width=32)),
    arrays.arrays(np.float32, (3, 8), elements=st.sampled_from([0.0, 1.0, np.nan])),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_float32_comes_back(tmp_path: Path, probs: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
    write_predictions(tmp_path / "predictions.csv", make_table(probs, targets))
    back_probs, back_targets = split_arrays(read_predictions(tmp_path / "predictions.csv"))
    assert back_probs.dtype == back_targets.dtype == np.float32
    np.testing.assert_array_equal(back_probs.view(np.uint32), probs.view(np.uint32))
    np.testing.assert_array_equal(back_targets, targets)


def test_columns_and_cells_are_as_agreed(tmp_path: Path) -> None:
    targets = np.zeros((2, 8), np.float32)
    targets[0, 1], targets[1, 2] = 1, np.nan
    write_predictions(tmp_path / "predictions.csv", make_table(np.full((2, 8), 0.5, np.float32), targets))
    lines = (tmp_path / "predictions.csv").read_text().split("\n")
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "0.png,000,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0,1,0,0,0,0,0,0"
    assert lines[2] == "1.png,000,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0,0,,0,0,0,0,0"
    assert lines[3:] == [""]


@pytest.mark.parametrize("name", ["NA", "nan", "null", "007", "1e5", 'a,"b"', "Zoë"])
def test_names_stay_as_they_are(tmp_path: Path, name: str) -> None:
    table = make_table(np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32)).assign(image=name, patient=name)
    write_predictions(tmp_path / "predictions.csv", table)
    back = read_predictions(tmp_path / "predictions.csv")
    assert back.columns.tolist() == COLUMNS
    assert back["image"].tolist() == back["patient"].tolist() == [name, name]
