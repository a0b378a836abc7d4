"""Scores as probs: what differs in the file differs here, and what is no prob is told what it may be."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.config.evaluate import Scores
from cxrlit.core.errors import DataError
from cxrlit.data.tables.read_scores import narrow_probs, read_scores
from cxrlit.data.tables.text_table import TextTable
from cxrlit.metrics.auroc import auroc

EXAMPLES = settings(max_examples=100, deadline=None)
LOGITS = st.floats(-1e4, 1e4, allow_nan=False) | st.sampled_from([0.0, 37.0, 38.0, 40.0, 800.0, -750.0, -800.0, 1e300])


def read(cells: list[str], kind: Scores = "probs") -> list[float]:
    """Of one column."""
    table = TextTable(Path("scores.csv"), pd.DataFrame({"p": cells}, dtype=str), range(1, len(cells) + 1), unit="row")
    return read_scores(table, ["p"], kind)[:, 0].tolist()


@given(st.lists(st.floats(0, 1), min_size=1))
@EXAMPLES
def test_probs_are_what_is_written_to_the_bit(probs: list[float]) -> None:
    assert read([repr(prob) for prob in probs]) == probs


@pytest.mark.parametrize("text", ["1e-320", "4.9e-324", "0.30000000000000004", "0.1", ".5", "1.", "+0.5", "5E-1"])
def test_numbers_in_every_form(text: str) -> None:
    assert read([text]) == [float(text)]


@given(st.lists(LOGITS, min_size=2, max_size=40), st.randoms())
@EXAMPLES
def test_the_sigmoid_makes_no_ties_and_keeps_the_order(logits: list[float], chance: object) -> None:
    logits = [*logits, -1.0]
    probs = np.array(read([repr(logit) for logit in logits], "logits"))
    assert ((probs >= 0) & (probs <= 1)).all()
    np.testing.assert_array_equal(np.sign(np.subtract.outer(probs, probs)), np.sign(np.subtract.outer(logits, logits)))
    exact = np.array([1 / (1 + math.exp(-logit)) if logit > -700 else 0.0 for logit in logits])
    np.testing.assert_allclose(probs, exact, rtol=1e-13, atol=1e-300)


def test_auroc_of_logits_that_a_sigmoid_would_tie() -> None:
    logits, targets = np.array([40.0, 50.0, 60.0, 45.0, -1.0]), np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    assert len(np.unique(1 / (1 + np.exp(-logits)))) < len(logits)
    probs = np.array(read([str(logit) for logit in logits], "logits"))
    assert auroc(probs, targets) == auroc(logits, targets) == 1
    assert auroc(1 / (1 + np.exp(-logits)), targets) < 1


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
@EXAMPLES
def test_percent_keeps_the_order_too(percent: list[float]) -> None:
    percent = [*percent, 99.5, np.nextafter(99.5, 100)]
    probs = np.array(read([repr(float(number)) for number in percent], "percent"))
    np.testing.assert_array_equal(
        np.sign(np.subtract.outer(probs, probs)), np.sign(np.subtract.outer(percent, percent))
    )
    np.testing.assert_allclose(probs, np.array(percent) / 100, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        (["0.5", "-2.5"], "probs", "row 2: p is -2.5, outside [0, 1]; all are in [-2.5, 0.5]: if they are logits, say"),
        (["0.5", "3.5", "7"], "probs", "rows 2, 3: p is 3.5, outside [0, 1]; all are in [0, 7]: scores=percent, if"),
        (["5", "300"], "probs", "rows 1, 2: p is 5, outside [0, 1]; all are in [5, 300]: if they are logits, say"),
        (["0.5", "1.0000001"], "probs", "row 2: p is 1.0000001, outside [0, 1]; if it was rounded, write 0 and 1"),
        (["0.5", "-1e-9"], "probs", "p is -1e-09, outside [0, 1]; if it was rounded"),
        (["50", "101"], "percent", "row 2: p is 101, outside [0, 100]"),
        (["50", "-1"], "percent", "row 2: p is -1, outside [0, 100]"),
        (["0.5", "0.1"], "percent", "scores=percent, and all of them are in [0, 1]: these are probs"),
        (["0.5", "0.1"], "logits", "scores=logits, and all of them are in [0, 1]: these are probs"),
        (["0.5", ""], "probs", "row 2: p '' is blank: every image needs a score of every label; predict it, or"),
        (["0.5", "NaN"], "logits", "row 2: p 'NaN' is no finite number"),
        (["-inf", "0.5"], "logits", "row 1: p '-inf' is no finite number"),
        (["0,5"], "probs", "row 1: p '0,5' is no finite number; decimals are written with a point"),
        (["1_0"], "logits", "'1_0' is no finite number"),
        (["٣"], "logits", "is no finite number"),
        (["0x1"], "logits", "is no finite number"),
        (["1e999"], "logits", "is no finite number"),
    ],
)
def test_what_is_no_score_is_told_with_its_rows(cells: list[str], kind: Scores, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(cells, kind)
    assert message in str(caught.value)


def test_float32_is_float32_again_and_nothing_else_is() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.random((1000, 8)).astype(np.float32)
    nine = np.array([float(f"{value:.9g}") for value in narrow.ravel().tolist()]).reshape(narrow.shape)
    for written in (nine, narrow.astype(np.float64)):
        assert (narrow_probs(written) == narrow).all()
        assert narrow_probs(written).dtype == np.float32
    for other in (rng.random((10, 8)), np.round(rng.random((10, 8)), 3), np.append(nine[:2], [[0.1] * 8], axis=0)):
        assert narrow_probs(other) is other
    # the float32 in full, and in 9 digits: two numbers, and so they stay
    both = np.array([0.349999994, float(np.float32(0.35))])
    assert narrow_probs(both) is both
