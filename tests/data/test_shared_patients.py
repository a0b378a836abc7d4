"""Patients are known again however they are spelled, and by their ids alone in no other data set."""

import pytest

from cxrlit.data.split import find_shared

SAME = [
    ("7", "00007"), ("7", "7.0"), ("7.00", "07"), ("7.", "+7"), ("7.e0", "7"), ("7", "\u0667"), ("A\u22121", "A-1"),
     ("A7", "a007"), ("P0001-02", "P1-2"),
    ("A 1", "a  1"), ("\uff17", "7"), ("A\u20131", "A-1"), ("patient00007", "patient7"), ("1234567890", "1234567890.0"),
]  # fmt: skip
OTHERS = [("7", "70"), ("A7", "B7"), ("7", "A7"), ("7.5", "7"), ("1-2", "12"), ("A1.0", "A10"), ("17", "1 7"),
          ("00e1", "00e5"), ("1e10", "10e9"), ("S1.05", "S1.5")]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_patient(one: str, other: str) -> None:
    assert find_shared([f"nih/{one}", "nih/x"], [f"nih/{other}", "nih/y"]) == ([f"nih/{one}"], [])
    assert find_shared([f"clinic/{one}", "nih/x"], [f"nih/{other}"]) == ([], [f"clinic/{one}"])


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_two_patients(one: str, other: str) -> None:
    assert find_shared([f"nih/{one}"], [f"nih/{other}"]) == ([], [])


def test_drawn_patients_are_nobody() -> None:
    assert find_shared(["synthetic/7"], ["nih/7"]) == find_shared(["nih/7"], ["synthetic/7"]) == ([], [])
    assert find_shared(["synthetic/7"], ["synthetic/07"]) == (["synthetic/7"], [])


def test_a_name_may_hold_anything() -> None:
    """Names of a checkpoint are not checked: a line break does not move the others."""
    assert find_shared(["a/7", "a/b/8"], ["a/1\n2", "a/07", "a/b/08", "", "a"]) == (["a/7", "a/b/8"], [])
    assert find_shared([], []) == ([], [])
