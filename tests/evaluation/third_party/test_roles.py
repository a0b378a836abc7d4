"""Columns of a table that plainly are patients, parts, views, ages and sexes, in predictions of another program."""

from pathlib import Path

import pytest

from cxrlit.config.evaluate import PredictionColumnsConfig
from cxrlit.core.errors import DataError
from cxrlit.evaluation.third_party.columns import find_roles

PATH = Path("labels.csv")


def find(*header: str, **named: list[str]) -> dict[str, str]:
    nothing = dict.fromkeys(PredictionColumnsConfig.model_fields)
    return find_roles({PATH: header}, PredictionColumnsConfig.model_validate({**nothing, **named}))[PATH]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("patient", ["patient", "Patient_ID", "PatientID", "subject_id"]),
        ("split", ["split", "Split", "data_split", "subset", "PARTITION"]),
        ("view", ["view", "ViewPosition"]),
        ("age", ["Age", "patient_age"]),
        ("sex", ["Sex", "gender"]),
    ],
)
def test_names_of_a_role(role: str, names: list[str]) -> None:
    for name in names:
        assert find("image", name, "Mass") == {"image": "image", role: name}
        assert find("image", name, "other", **{role: ["other"]}) == {"image": "image", role: "other"}
        assert find("image", name, **{role: []}) == {"image": "image"}
        # The name of the key goes first.
        assert find("image", "Subset", "split")["split"] == "split"


def test_two_that_may_be_one_are_named() -> None:
    with pytest.raises(DataError, match=r"Patient_ID, subject may each be the patient: .* with columns\.patient$"):
        find("image", "Patient_ID", "subject")
