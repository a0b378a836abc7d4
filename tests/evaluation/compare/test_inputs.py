"""A path names a model's predictions, what turns them into decisions, and where they come from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import LABELS, draw_table, make_point, write_evaluation

from cxrlit.core.errors import DataError
from cxrlit.evaluation.compare.inputs import ModelPredictions, find_concerns, read_model_predictions
from cxrlit.evaluation.predictions import write_predictions
from cxrlit.metrics.operating_point import OperatingPoint

TABLE = draw_table(0, n_patients=8)


@pytest.fixture
def phase(tmp_path: Path) -> Path:
    """A phase folder with an evaluation."""
    folder = tmp_path / "finetune-1a2b3c4d"
    write_evaluation(folder / "eval", TABLE, checkpoint="finetune-1a2b3c4d/best.ckpt")
    (folder / "phase.json").write_text("{}")
    return folder


def test_a_phase_folder_its_evaluation_and_a_file_of_it_are_the_same(phase: Path) -> None:
    for path in (phase, phase / "eval", phase / "eval" / "predictions_test.csv"):
        side = read_model_predictions(path, "test")
        assert side.path == phase / "eval" / "predictions_test.csv"
        assert (side.name, side.phase, side.slug) == (
            "finetune-1a2b3c4d/best.ckpt", "finetune-1a2b3c4d", "finetune-1a2b3c4d"
        )  # fmt: skip
        assert (side.split_name, side.split_hash, side.history) == ("official", "0123456789ab", None)
        assert side.is_evaluation
        assert isinstance(side.point, OperatingPoint)
        np.testing.assert_array_equal(side.point.thresholds.values, np.full(3, 0.5))
        assert side.thresholds == phase / "eval" / "thresholds.json"
        assert side.predictions["image"].tolist() == TABLE["image"].tolist()


def test_predictions_are_read_once(phase: Path, table_opens: list[Path]) -> None:
    file = phase / "eval" / "predictions_test.csv"
    assert len(read_model_predictions(file, "test").predictions) == len(TABLE)
    assert table_opens == [file]


def test_the_summary_says_more_of_the_predictions_than_the_thresholds_do(phase: Path) -> None:
    """Thresholds may have been given, and be another model's."""
    row = {"split": "test", "split_name": "grouped", "split_hash": "ffff", "checkpoint": "highres-9/last.ckpt"}
    pd.DataFrame([row]).to_csv(phase / "eval" / "eval_summary.csv", index=False)
    side = read_model_predictions(phase, "test")
    assert (side.name, side.split_name, side.split_hash) == ("highres-9/last.ckpt", "grouped", "ffff")
    assert side.slug == "highres-9-last.ckpt"
    assert side.predicted is None
    pd.DataFrame([{**row, "predicted": "two eyes"}]).to_csv(phase / "eval" / "eval_summary.csv", index=False)
    assert read_model_predictions(phase, "test").predicted == "two eyes"
    (phase / "eval" / "eval_summary.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"eval_summary.csv: not the summary of an evaluation"):
        read_model_predictions(phase, "test")


def test_a_file_that_is_of_no_evaluation_takes_no_thresholds_that_are_not_its_own(phase: Path) -> None:
    other = phase / "eval" / "mine.csv"
    write_predictions(other, TABLE)
    side = read_model_predictions(other, "test")
    assert (side.name, side.slug, side.is_evaluation) == ("mine.csv", "mine", False)
    assert side.point == "there is no thresholds.json beside mine.csv"
    assert (side.split_hash, side.history, side.thresholds) == (None, None, None)
    given = read_model_predictions(other, "test", phase / "eval" / "thresholds.json")
    assert isinstance(given.point, OperatingPoint)
    assert given.split_hash is None
    # one that is called as an evaluation's, of a part that the evaluation beside it does not have
    row = {"split": "test", "split_name": "grouped", "split_hash": "ffff", "checkpoint": "highres-9/last.ckpt"}
    pd.DataFrame([row]).to_csv(phase / "eval" / "eval_summary.csv", index=False)
    write_predictions(phase / "eval" / "predictions_mine.csv", TABLE)
    assert not read_model_predictions(phase / "eval" / "predictions_mine.csv", "test").is_evaluation


def test_what_is_not_there_is_named_with_a_remedy(phase: Path, tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_text("")
    (tmp_path / "frozen-1").mkdir()
    (tmp_path / "frozen-1" / "phase.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "frozen-2").mkdir()
    (tmp_path / "frozen-2" / "phase.json").write_text("{}")
    write_evaluation(tmp_path / "frozen-2" / "eval-flip", TABLE)
    write_predictions(tmp_path / "parts.csv", TABLE.assign(split="test"))
    for path, part, message in [
        (tmp_path / "nope", "test", "nope: there is no such folder or file"),
        (tmp_path / "best.ckpt", "test", "best.ckpt: a checkpoint: name its phase folder"),
        (tmp_path / "frozen-1", "test", f"no predictions in it: run cxrlit evaluate ckpt={tmp_path / 'frozen-1'}"),
        (tmp_path / "frozen-2", "test", f", or name one that is there as it is: {tmp_path / 'frozen-2' / 'eval-flip'}"),
        (tmp_path / "empty", "test", "empty: there are no predictions in it: name a phase folder"),
        (phase, "val", "there is no predictions_val.csv in it: say split=test"),
        (tmp_path / "parts.csv", "test", "it has a column split: run cxrlit evaluate predictions="),
    ]:
        with pytest.raises(DataError) as fault:
            read_model_predictions(path, part)
        assert message in str(fault.value)


ONCE = "one checkpoint on each image"


def make_side(name: str, **changes: object) -> ModelPredictions:
    point = make_point(tuned_on="val", split_hash="0123", checkpoint=f"{name}/best.ckpt")
    path = Path(name) / "eval" / "predictions_test.csv"
    side = ModelPredictions(path, f"{name}/best.ckpt", TABLE, True, None, point, "official", "0123", ONCE, ())
    return replace(side, **changes)  # type: ignore[arg-type]


OTHER = {"predictions": draw_table(0, n_patients=8, shift=2)}


@pytest.mark.parametrize(
    ("baseline", "candidate", "part", "concern"),
    [
        ({}, OTHER, "test", None),
        ({}, {}, "test", "the two have the same predictions"),
        ({}, {**OTHER, "history": ("scratch-0", "old-1")}, "test", "the candidate started from the baseline"),
        ({"history": ("new-2",)}, OTHER, "test", "the baseline started from the candidate: name the earlier"),
        ({}, OTHER, "val", "epochs and thresholds were chosen on these images"),
        (
            {},
            {**OTHER, "point": make_point(tuned_on="val", split_hash="0123", checkpoint="x/best.ckpt")},
            "test",
            "the thresholds of new-2/best.ckpt were tuned for x/best.ckpt",
        ),
        (
            {},
            {**OTHER, "point": make_point(tuned_on="val", split_hash="9999")},
            "test",
            "F1: the thresholds of the baseline were tuned by f1_grid after no calibration, on val of split 0123; "
            "those of the candidate by f1_grid after no calibration, on val of split 9999",
        ),
        ({"point": "none"}, OTHER, "test", None),
        (
            {},
            {**OTHER, "predicted": "the mean probs of one checkpoint on each image and its mirror image"},
            "test",
            "the two were predicted in different ways: the baseline by one checkpoint on each image, the candidate by "
            "the mean probs of one checkpoint on each image and its mirror image",
        ),
        ({"predicted": None}, OTHER, "test", None),
        ({}, {**OTHER, "predicted": f"{ONCE} in fp32"}, "test", None),
        ({"split_hash": None}, OTHER, "test", None),
    ],
)
def test_concerns(baseline: dict[str, object], candidate: dict[str, object], part: str, concern: str | None) -> None:
    found = find_concerns(make_side("old-1", **baseline), make_side("new-2", **candidate), part)
    assert len(found) == (concern is not None)
    assert not concern or found[0].startswith(concern)


def test_another_split_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"the split of old-1/\S+ is 0123, that of new-2/\S+ is 4567: models are compared"
    ):
        find_concerns(make_side("old-1"), make_side("new-2", split_hash="4567"), "test")


def test_thresholds_of_other_rules_or_by_hand_are_told_apart(phase: Path) -> None:
    path = phase / "eval" / "thresholds.json"
    path.write_text(json.dumps({"thresholds": dict.fromkeys(LABELS, 0.3)}))
    side = read_model_predictions(phase, "test")
    assert (side.name, side.split_hash) == ("predictions_test.csv", None)
    [concern] = find_concerns(make_side("old-1"), replace(side, **OTHER), "test")
    assert concern.endswith("those of the candidate by hand after no calibration, on images unknown of split unknown")
