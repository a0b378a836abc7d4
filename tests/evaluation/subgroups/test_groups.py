"""Every image is in one group of each attribute, and what is not known is a group of its own."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.evaluation.subgroups.groups import MAX_GROUPS, UNKNOWN, find_attributes, name_bands

ATTRIBUTES = ("sex", "age", "view")
bands = st.lists(st.integers(1, 110), unique=True, max_size=6).map(sorted)


@settings(max_examples=60, deadline=None)
@given(bands, st.lists(st.floats(0, 120) | st.just(float("nan")), min_size=1, max_size=30))
def test_an_age_is_in_the_band_that_it_is_named_after(starts: list[int], ages: list[float]) -> None:
    found, excluded = find_attributes(pd.DataFrame({"age": ages}), ["age"], starts)
    if np.isnan(ages).all():
        assert (found, list(excluded)) == ([], ["age"])
        return
    [attribute] = found
    edges = [0, *starts, np.inf]
    for age, code in zip(ages, attribute.codes, strict=True):
        group = attribute.groups[code]
        if np.isnan(age):
            assert group == UNKNOWN
        else:
            place = name_bands(starts).index(group)
            assert edges[place] <= age < edges[place + 1]
    assert set(attribute.codes) == set(range(len(attribute.groups)))  # each has an image
    assert [group for group in attribute.groups if group != UNKNOWN] == [
        name for name in name_bands(starts) if name in attribute.groups
    ]
    assert attribute.known == [code for code, group in enumerate(attribute.groups) if group != UNKNOWN]


def test_bands_say_what_is_in_them() -> None:
    assert name_bands([1, 2, 40]) == ["0", "1", "2 to 39", "40 or more"]
    assert name_bands([0, 18]) == name_bands([18]) == ["0 to 17", "18 or more"]
    assert name_bands([]) == ["0 or more"]


@pytest.mark.parametrize("missing", [None, float("nan"), "", " ", "unknown", "Unknown", pd.NA])
def test_what_is_not_known_is_one_group_and_the_last(missing: object) -> None:
    table = pd.DataFrame({"sex": ["M", missing, "zz", "F"], "age": [1, missing, "40", 20.5]})
    sex, age = find_attributes(table, ["sex", "age"], [18, 40])[0]
    assert sex.groups == ("F", "M", "zz", UNKNOWN)
    assert sex.codes.tolist() == [1, 3, 2, 0]
    assert age.groups == ("0 to 17", "18 to 39", "40 or more", UNKNOWN)
    assert age.codes.tolist() == [0, 3, 2, 1]
    assert age.known == [0, 1, 2]


def test_what_cannot_be_told_apart_is_left_out_with_the_reason() -> None:
    table = pd.DataFrame({"sex": [None] * 40, "view": [f"view {row}" for row in range(40)], "age": ["-3"] * 40})
    found, excluded = find_attributes(table, ATTRIBUTES, [18])
    assert found == []
    assert excluded["sex"] == "the sex of every image is unknown"
    assert excluded["age"] == "the age of every image is unknown"
    assert excluded["view"] == f"view has 40 values: at most {MAX_GROUPS} are told apart"
    found, excluded = find_attributes(pd.DataFrame({"view": ["PA", "AP"]}), ATTRIBUTES, [18])
    assert [attribute.name for attribute in found] == ["view"]
    assert excluded == {"sex": "the predictions have no column sex", "age": "the predictions have no column age"}
    assert find_attributes(pd.DataFrame({"view": ["PA"]}), [], [18]) == ([], {})
