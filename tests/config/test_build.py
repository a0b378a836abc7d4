"""What a config names is built with its arguments, and every fault is one line that names the key."""

from pathlib import Path

import pytest

from cxrlit.config import Instantiable
from cxrlit.config.build import build_target, check_target
from cxrlit.core.errors import ConfigError


def test_lists_and_dicts_arrive_as_such() -> None:
    assert type(build_target("part", {"_target_": "builtins.dict", "one": [1, 2]})["one"]) is list
    assert type(build_target("part", {"_target_": "builtins.dict", "one": {"two": 3}})["one"]) is dict


def test_the_programs_arguments_come_first_and_win() -> None:
    spec: Instantiable = {"_target_": "fractions.Fraction", "denominator": 5}
    assert str(build_target("part", spec, 3)) == "3/5"
    assert str(build_target("part", spec, 3, denominator=4)) == "3/4"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "part._target_: it is missing: +part._target_=CLASS"),
        ({"_target_": 3}, "part._target_: it must be the dotted name of a class"),
        ({"_target_": "fractions.Nothing"}, "part._target_=fractions.Nothing: fractions has no Nothing"),
        ({"_target_": "no_such_module.Thing"}, "part._target_=no_such_module.Thing: No module named 'no_such_module'"),
        ({"_target_": "math.floor"}, "part._target_=math.floor: floor is not a class"),
        (
            {"_target_": "fractions.Fraction", "bottom": 3},
            "part.bottom: fractions.Fraction has no such argument; it takes numerator, denominator; "
            "~part.bottom drops it",
        ),
        (
            {"_target_": "fractions.Fraction", "denominator": "two"},
            "part: fractions.Fraction cannot be built: TypeError: both arguments should be Rational instances",
        ),
    ],
)
def test_a_fault_is_one_line(spec: Instantiable, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        build_target("part", spec)
    assert str(fault.value) == message


def test_a_class_of_the_users_own_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts_of_mine.py").write_text("class Part:\n    def __init__(self, size):\n        self.size = size\n")
    with pytest.raises(ConfigError, match="No module named 'parts_of_mine'"):
        check_target("part", {"_target_": "parts_of_mine.Part"})
    monkeypatch.syspath_prepend(tmp_path)
    assert build_target("part", {"_target_": "parts_of_mine.Part", "size": 3}).size == 3
    with pytest.raises(ConfigError, match="cannot be built: TypeError: "):
        build_target("part", {"_target_": "parts_of_mine.Part"})
