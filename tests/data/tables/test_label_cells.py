"""Cells of labels: each spelling is what it plainly is, everything else is refused with a remedy that works."""

import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.core.errors import DataError
from cxrlit.data.tables.label_cells import UNCERTAIN, read_mark, read_marks
from cxrlit.data.tables.text_table import TextTable

PRESENT = ["1", "1.0", "1.00", "1.", "+1", "01", "1e0", "1E+0", "10e-1", "1,0", "1,00", "TRUE", "True", "t", "yes", "Y",
           "Positive", "POS", "present"]  # fmt: skip
ABSENT = ["0", "0.0", "0.00", "-0", "00", ".0", "0e5", "0,0", "FALSE", "f", "No", "n", "negative", "Neg", "absent"]
UNKNOWN = ["", "NA", "n/a", "nan", "NaN", "<NA>", "null", "NULL", "None", "-", "--", "?", ".", "unknown", "Unknown",
           "todo", "TBD", "missing", "not available", "not_available", "#N/A", "–"]  # fmt: skip
WRONG = ["2", "-1", "0.5", "0.99999999999999999999", "1e-400", "1.0000000000000001", "11", "100", "1,000", "1 0", "1;0",
         "maybe", "uncertain", "x", "1?", "+", "1%", "inf", "1_0", "１", "yes/no", "-2", "Mass", "O", "l"]  # fmt: skip


def read(*cells: str, **options: object) -> list[float]:
    column = pd.Series(cells, name="Mass")
    table = TextTable(Path("t.csv"), column.to_frame(), range(2, len(cells) + 2))
    return read_marks(table.cells, ["Mass"], table, **options)[:, 0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(("cells", "value"), [(PRESENT, 1.0), (ABSENT, 0.0), (UNKNOWN, np.nan)])
def test_stated_spellings(cells: list[str], value: float) -> None:
    np.testing.assert_array_equal(read(*cells), [value] * len(cells))


@pytest.mark.parametrize("cell", WRONG)
def test_anything_else_is_refused_with_its_line(cell: str) -> None:
    with pytest.raises(DataError, match=r"^t\.csv, lines 3, 5: Mass '.*' is ") as caught:
        read("1", cell, "0", cell)
    assert len(str(caught.value).splitlines()) == 1


KNOWN = {text.casefold() for text in (*PRESENT, *ABSENT, *UNKNOWN)}
NUMBERS = string.digits + "+-.,eE "


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=6) | st.text(NUMBERS, max_size=8) | st.sampled_from([*PRESENT, *ABSENT, *WRONG]))
def test_no_other_cell_becomes_a_target(cell: str) -> None:
    """Neither 1, 0, blank nor a stated spelling: not 1 and not 0."""
    mark = read_mark(cell)
    if mark in {0, 1} and cell.casefold() not in KNOWN:
        plain = cell.replace(",", ".")
        assert set(plain) <= set(NUMBERS)
        assert float(plain) == mark


def test_the_remedy_for_a_number_works() -> None:
    for cell in ("-1", "-1.00", "2", "9"):
        fault = f"is neither 1 nor 0: if that number means uncertain, say key={cell}"
        with pytest.raises(DataError, match=fault.replace(".", r"\.")):
            read("1", cell, "0", uncertain_key="key")
        assert read("1", cell, "0", uncertain=float(cell)) == [1, UNCERTAIN, 0]


@pytest.mark.parametrize("uncertain", [None, -1.0])
def test_several_numbers_are_no_uncertain_ones(uncertain: float | None) -> None:
    with pytest.raises(DataError, match=r"Mass '0\.73' is no label, nor are 0\.12: .* probabilities and counts are no"):
        read("1", "0.73", "0.12", uncertain=uncertain, uncertain_key="key")
    with pytest.raises(DataError, match=r"Mass 'maybe' is no label: write 1 or 0 \(or true, yes, positive, \.\.\.\)"):
        read("0.73", "maybe", uncertain=uncertain, uncertain_key="key")
    if uncertain is not None:
        with pytest.raises(DataError, match=r"Mass '2' is no label: write 1 or 0 .*, -1 \(uncertain\), or NA"):
            read("-1", "2", uncertain=uncertain)


def test_all_columns_are_looked_at_before_a_number_is_asked_about() -> None:
    cells = pd.DataFrame({"Mass": ["1", "-1"], "Nodule": ["2", "0"]})
    table = TextTable(Path("t.csv"), cells, [2, 3])
    with pytest.raises(DataError, match="line 2: Nodule '2' is no label, nor are -1"):
        read_marks(cells, ["Mass", "Nodule"], table, uncertain_key="key")
