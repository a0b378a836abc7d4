"""Calibration and thresholds as one file: what is written reads back, and what is no such file is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxrlit.core.errors import DataError
from cxrlit.evaluation.measure.tune_thresholds import fit_operating_point
from cxrlit.metrics.calibration import Calibration
from cxrlit.metrics.operating_point import ABOVE_ALL, OperatingPoint, Thresholds, no_operating_point
from cxrlit.metrics.read_operating_point import read_operating_point

LABELS = ("Mass", "Nodule", "Empty")
ORIGIN = {"tuned_on": "val", "split_name": "official", "split_hash": "abc", "checkpoint": "finetune-1/best.ckpt"}


def fit(method: Any = "platt", rule: Any = "f1_quantiles", wanted: float | None = None) -> OperatingPoint:
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 3)) < 0.2).astype(np.float32)
    targets[:, 2] = 0
    probs = np.clip(0.2 * targets + 0.8 * rng.random((200, 3)), 0, 1).astype(np.float32)
    return fit_operating_point(probs, targets, LABELS, method=method, rule=rule, wanted=wanted, origin=ORIGIN)


@pytest.mark.parametrize(("method", "rule", "wanted"), [("platt", "f1_quantiles", None), (None, "sensitivity", 0.9)])
def test_what_is_written_reads_back_to_the_bit(method: Any, rule: Any, wanted: Any, tmp_path: Path) -> None:
    point = fit(method, rule, wanted)
    point.write(tmp_path / "thresholds.json")
    again = read_operating_point(tmp_path / "thresholds.json")
    np.testing.assert_array_equal(again.thresholds.values, point.thresholds.values)
    np.testing.assert_array_equal(again.thresholds.f1, point.thresholds.f1)
    assert (again.thresholds.rule, again.thresholds.wanted) == (rule, wanted)
    assert again.thresholds.reasons == {"Empty": "validation has no positive"}
    assert dict(again.origin) == ORIGIN
    probs = np.random.default_rng(1).random((50, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.calibrate(probs), point.calibrate(probs))


def test_thresholds_are_of_calibrated_probs() -> None:
    """The same images are decided present with and without calibration where the rule is the same."""
    probs = np.random.default_rng(1).random((500, 3)).astype(np.float32)
    raw, platt = fit(None), fit("platt")
    assert not np.allclose(raw.thresholds.values[:2], platt.thresholds.values[:2])
    decided = [point.calibrate(probs)[:, :2] >= point.thresholds.values[:2] for point in (raw, platt)]
    assert (decided[0] == decided[1]).mean() > 0.99
    np.testing.assert_array_equal(raw.calibrate(probs), probs.astype(np.float64))
    np.testing.assert_array_equal(platt.calibrate(probs)[:, 2], probs[:, 2].astype(np.float64))  # not fitted


def fix(slope: float, intercept: float, threshold: float) -> OperatingPoint:
    """Of one label."""
    value = np.array([threshold])
    calibration = Calibration("platt", ("Mass",), np.array([slope]), np.array([intercept]), {})
    return OperatingPoint(calibration, Thresholds(("Mass",), value, value, {}), {})


def list_numbers_around(value: float, dtype: Any) -> Any:
    """The probs of a type that are nearest to a value, the ends of the scale, and some between."""
    bits = np.int32 if dtype == np.float32 else np.int64
    middle = np.array([min(value, 1)], dtype).view(bits)
    window = np.clip(middle + np.arange(-300, 301, dtype=bits), 0, np.ones(1, dtype).view(bits)).view(dtype)
    ends = np.array([0, 1e-45, 2.0**-149, 0.5, 1 - 2.0**-24, np.nextafter(1.0, 0), 1], dtype)
    return np.concatenate([window, ends, np.linspace(0, 1, 101, dtype=dtype)])


@given(
    st.floats(-6, 6).map(lambda power: 10.0**power),
    st.floats(-30, 30),
    st.floats(0, 1),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
@example(1.0, 0.0, 0.0, np.float32, False)  # every prob is present
@example(1.0, 0.0, 1.0, np.float64, False)  # of the largest alone
@example(0.13, -2.0, 0.8, np.float32, False)  # above what a prob of 1 is calibrated to: none is present
@example(0.13, -2.0, 0.8, np.float64, False)
@example(1e6, 0.0, 0.5, np.float64, False)
@example(1e-6, 0.0, 0.5, np.float32, False)
@example(2.0, -1.0, 0.25, np.float32, True)  # a threshold that is a calibrated prob
@settings(max_examples=150, deadline=None)
def test_both_thresholds_make_the_same_decision(
    slope: float, intercept: float, threshold: float, dtype: Any, is_tie: bool
) -> None:
    if is_tie:
        threshold = float(fix(slope, intercept, 0).calibrate(np.array([[threshold]], dtype))[0, 0])
    point = fix(slope, intercept, threshold)
    [bound] = point.threshold_probs(dtype)
    assert 0 <= bound <= ABOVE_ALL
    probs = list_numbers_around(float(bound), dtype)
    decided = point.calibrate(probs[:, None])[:, 0] >= threshold
    np.testing.assert_array_equal(probs >= bound, decided)
    np.testing.assert_array_equal([float(repr(prob)) >= bound for prob in probs.tolist()], decided)  # out of a CSV


def test_without_calibration_both_thresholds_are_one() -> None:
    point = fit(None)
    np.testing.assert_array_equal(point.threshold_probs(), point.thresholds.values)
    platt = fit("platt")
    np.testing.assert_array_equal(np.isnan(platt.threshold_probs()), [False, False, True])
    assert (platt.threshold_probs()[:2] != platt.thresholds.values[:2]).all()


def test_the_file_says_which_threshold_is_which(tmp_path: Path) -> None:
    point, path = fit(), tmp_path / "thresholds.json"
    point.write(path)
    plain = json.loads(path.read_text())
    assert plain["thresholds"]["Mass"] == point.thresholds.values[0]
    assert plain["threshold_prob"]["Mass"] == point.threshold_probs()[0]
    assert plain["threshold_prob"]["Empty"] is None
    del plain["threshold_prob"]  # as before there was one, and by hand
    path.write_text(json.dumps(plain))
    np.testing.assert_array_equal(read_operating_point(path).threshold_probs(), point.threshold_probs())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_threshold_that_no_prob_reaches_reads_back(tmp_path: Path, dtype: Any) -> None:
    point = fix(0.13, -2.0, 0.9999)
    point.write(tmp_path / "thresholds.json", dtype)
    assert json.loads((tmp_path / "thresholds.json").read_text())["threshold_prob"] == {"Mass": ABOVE_ALL}
    assert read_operating_point(tmp_path / "thresholds.json").thresholds.values.tolist() == [0.9999]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": {"Mass": 0.6}}, "threshold_prob of Mass is 0.4, and its threshold and calibration make it 0.6"),
        ({"threshold_prob": {"Mass": None}}, "threshold_prob of Mass is None"),
        ({"thresholds": {"Mass": None}}, "threshold_prob of Mass is 0.4, .* make it None"),
        ({"calibration": {"method": "platt", "slope": {"Mass": 2.0}, "intercept": {"Mass": 0.0}, "reasons": {}}},
         "remove the key threshold_prob, or put the threshold back"),
        ({"threshold_prob": {"Nodule": 0.4}}, "threshold_prob and thresholds are not of the same labels"),
        ({"threshold_prob": {"Mass": 1.5}}, "threshold_prob.Mass"),
        ({"threshold_prob": {"Mass": "0.4"}}, "threshold_prob.Mass"),
    ],
)  # fmt: skip
def test_a_stale_threshold_of_raw_probs_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    plain = {"thresholds": {"Mass": 0.4}, "threshold_prob": {"Mass": 0.4}}
    (tmp_path / "thresholds.json").write_text(json.dumps(plain))
    read_operating_point(tmp_path / "thresholds.json")
    (tmp_path / "thresholds.json").write_text(json.dumps(plain | change))
    with pytest.raises(DataError, match=message):
        read_operating_point(tmp_path / "thresholds.json")


def test_labels_are_taken_by_name() -> None:
    point = fit()
    turned = point.only(("Nodule", "Mass"))
    np.testing.assert_array_equal(turned.thresholds.values, point.thresholds.values[[1, 0]])
    assert turned.calibration is not None
    assert point.calibration is not None
    np.testing.assert_array_equal(turned.calibration.slope, point.calibration.slope[[1, 0]])
    assert turned.thresholds.reasons == {}
    with pytest.raises(DataError, match=r"Hernia has none: add a number, or null for no decisions"):
        point.only(("Mass", "Hernia"))
    with pytest.raises(DataError, match=r"Hernia, Fibrosis, Edema, Pneumonia have none"):
        point.only(("Mass", "Hernia", "Fibrosis", "Edema", "Pneumonia"))


def test_without_validation_each_label_says_why() -> None:
    point = no_operating_point(LABELS, "there are no validation images")
    assert np.isnan(point.thresholds.values).all()
    assert set(point.thresholds.reasons) == set(LABELS)


def test_a_file_by_hand_needs_thresholds_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"thresholds": {"Mass": 0.3, "Nodule": null}}')
    point = read_operating_point(tmp_path / "mine.json")
    assert point.thresholds.values[0] == 0.3
    assert point.thresholds.rule is None
    assert point.thresholds.reasons == {"Nodule": "none is given"}
    (tmp_path / "mine.json").write_text('{"thresholds": {"Mass": 1, "Nodule": 0}}')
    assert read_operating_point(tmp_path / "mine.json").thresholds.values.tolist() == [1, 0]


GOOD: dict[str, Any] = {"thresholds": {"Mass": 0.5}}
CALIBRATION: dict[str, Any] = {"method": "platt", "slope": {"Mass": 1.0}, "intercept": {"Mass": 0.0}, "reasons": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "it must be a JSON object with the key thresholds"),
        ('{"thresholds": {"Mass": 0.2, "Mass": 0.9}}', "the key 'Mass' is there twice"),
        ('{"thresholds": {"Mass": true}}', "thresholds.Mass"),
        ('{"thresholds": {"Mass": "0.2"}}', "thresholds.Mass"),
        ('{"thresholds": {"Mass": ' + "9" * 6000 + "}}", "thresholds.Mass: Input should be a finite number"),
        (json.dumps({**GOOD, "calibration": {**CALIBRATION, "slope": {"Mass": 1e300}}}), "slope"),
        (json.dumps({**GOOD, "calibration": {**CALIBRATION, "slope": {"Mass": 1e-9}}}), "slope"),
        ('{"thresholds": {}}', "thresholds"),
        ('{"thresholds": {"Mass": NaN}}', "thresholds.Mass"),
        (json.dumps({"thresholds": {"Mass": 1.5}}), "thresholds.Mass"),
        (json.dumps({**GOOD, "_target_": "os.system"}), "_target_"),
        (json.dumps({**GOOD, "rule": "best"}), "rule"),
        (json.dumps({**GOOD, "calibration": {**CALIBRATION, "slope": {"Mass": -1.0}}}), "slope"),
        (json.dumps({**GOOD, "calibration": {**CALIBRATION, "slope": {"Nodule": 1.0}}}), "not of the same labels"),
    ],
)
def test_what_is_no_such_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "thresholds.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_operating_point(tmp_path / "thresholds.json")


def test_a_file_that_is_not_there_or_huge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_operating_point(tmp_path / "none.json")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(DataError, match="too large"):
        read_operating_point(tmp_path / "huge.json")
