"""Predictions of any program: what is read as it stands, and what is told, with its rows, images or labels."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strangers import make_config, write

from cxrlit.config import NIHData
from cxrlit.core.errors import ConfigError, CXRLitError, DataError, LeakageError
from cxrlit.core.labels import FIXED_COLUMNS, LABELS
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.split import hash_split
from cxrlit.evaluation.predictions import (
    list_labels,
    make_predictions,
    read_predictions,
    split_arrays,
    write_predictions,
)
from cxrlit.evaluation.third_party.join import JoinedPredictions
from cxrlit.evaluation.third_party.read_predictions import read_foreign
from cxrlit.metrics.auroc import auroc

SCORES = ("image,prob_Mass,prob_Nodule", "a.png,0.25,0.5", "b.png,0.125,0.75", "c.png,1,0", "d.png,0.1,0.2")
TRUTH = (
    "image,patient,split,view,age,sex,Mass,Nodule",
    "a.png,p1,test,PA,50,F,1,0",
    "b.png,p1,test,AP,051Y,female,0,",
    "c.png,p2,val,lateral,,,1,-1",
    "d.png,p3,train,,7,M,0,1",
)
EXAMPLES = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(
    folder: Path, scores: Sequence[str] = SCORES, truth: Sequence[str] | None = TRUTH, /, **changes: Any
) -> JoinedPredictions:
    """Read tables that are given as lines."""
    labels = None if truth is None else write(folder, *truth, name="labels.csv")
    return read_foreign(write(folder, *scores), labels, make_config(**changes))


def test_each_table_is_read_once(tmp_path: Path, table_opens: list[Path]) -> None:
    assert set(read(tmp_path).parts) == {"val", "test"}
    assert table_opens == [tmp_path / "predictions.csv", tmp_path / "labels.csv"]


def test_a_table_that_is_named_twice_is_read_once(tmp_path: Path, table_opens: list[Path]) -> None:
    path = write(tmp_path, "image,patient,prob_Mass,target_Mass", "a.png,1,0.5,1", "b.png,2,0.25,0")
    twice = read_foreign(path, path, make_config())
    assert table_opens == [path]
    write(tmp_path, "image,patient,prob_Mass,target_Mass", "a.png,1,0.5,1", "b.png,2,0.25,0")
    once = read_foreign(path, None, make_config())
    pd.testing.assert_frame_equal(twice.parts["test"], once.parts["test"])


def refuse(folder: Path, scores: Sequence[str] = SCORES, truth: Sequence[str] | None = TRUTH, /, **changes: Any) -> str:
    """The message of the error, which is one line of a reasonable length."""
    with pytest.raises(CXRLitError) as caught:
        read(folder, scores, truth, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message.replace(str(folder), "")) < 500
    return message


def change(lines: Sequence[str], before: str, after: str) -> list[str]:
    """The lines with a text replaced, which must be there."""
    assert before in "\n".join(lines)
    return [line.replace(before, after) for line in lines]


def add(lines: Sequence[str], *cells: str) -> list[str]:
    """The lines with one more cell each, or with several."""
    return [",".join(pair) for pair in zip(lines, cells, strict=True)]


def drop(lines: Sequence[str], column: str) -> list[str]:
    """The lines without a column."""
    place = lines[0].split(",").index(column)
    return [",".join(cell for number, cell in enumerate(line.split(",")) if number != place) for line in lines]


# ----------------------------------------------------------------------------- what is read


def test_scores_and_labels_become_predictions_tables(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert list(found.parts) == ["val", "test"]
    test = found.parts["test"]
    assert test.to_dict("list") == {
        "image": ["a.png", "b.png"],
        "patient": ["p1", "p1"],
        "view": ["PA", "AP"],
        "age": [50, 51],
        "sex": ["F", "F"],
        "prob_Mass": [0.25, 0.125],
        "prob_Nodule": [0.5, 0.75],
        "target_Mass": [1, 0],
        "target_Nodule": [0, pytest.approx(np.nan, nan_ok=True)],
    }
    assert test["age"].dtype == np.float32
    assert found.parts["val"].columns.tolist() == [name for name in test.columns if name not in {"age", "sex"}]
    assert found.dropped.columns.tolist() == ["image", "path", "reason"]
    assert found.dropped.empty
    assert found.split.to_dict("list") == {
        "image": ["a.png", "b.png", "c.png", "d.png"],
        "patient": ["p1", "p1", "p2", "p3"],
        "split": ["test", "test", "val", "train"],
    }
    assert found.notes == [
        f"{tmp_path / 'labels.csv'}: 1 target is -1, which is uncertain: taken for unknown",
        "1 image of train is predicted, and left out",
    ]


def make_ours(probs: np.ndarray, seed: int = 0, labels: Sequence[str] = LABELS) -> pd.DataFrame:
    """A predictions table as an evaluation makes it: two images a patient."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([0, 1, np.nan], probs.shape).astype(np.float32)
    part = pd.DataFrame(targets, columns=list(labels)).assign(
        image=[f"{row:04d}.png" for row in range(len(probs))],
        patient=[f"{row // 2:03d}" for row in range(len(probs))],
        view=rng.choice(["PA", "AP"], len(probs)),
        age=rng.integers(1, 90, len(probs)).astype(np.float32),
        sex=rng.choice(["M", "F"], len(probs)),
    )
    return make_predictions(part, labels, probs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_ours_reads_with_no_settings(tmp_path: Path, dtype: type, form: str) -> None:
    table = make_ours(np.random.default_rng(1).random((40, 8)).astype(dtype))
    path = tmp_path / f"ours.{form}"
    if form == "csv":
        write_predictions(path, table)
    else:
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    found = read_foreign(path, None, make_config())
    assert list(found.parts) == ["test"]
    pd.testing.assert_frame_equal(found.parts["test"], table)
    pd.testing.assert_frame_equal(read_predictions(path), table)
    assert found.notes == [
        "no column says train, val or test: every image is taken for test",
        "no image is in val: thresholds and calibration stay blank",
    ]


def test_a_table_of_ours_as_the_labels_of_another_model(tmp_path: Path) -> None:
    table = make_ours(np.random.default_rng(1).random((40, 8)).astype(np.float32))
    write_predictions(tmp_path / "ours.csv", table)
    others = np.random.default_rng(2).random((40, 8))
    scores = pd.DataFrame(others, columns=list(LABELS)).assign(image=table["image"])
    scores.to_csv(tmp_path / "theirs.csv", index=False)
    found = read_foreign(tmp_path / "theirs.csv", tmp_path / "ours.csv", make_config()).parts["test"]
    probs, targets = split_arrays(found)
    np.testing.assert_array_equal(probs, others)
    np.testing.assert_array_equal(targets, split_arrays(table)[1])
    assert found["patient"].tolist() == table["patient"].tolist()


@given(order=st.randoms(use_true_random=False))
@EXAMPLES
def test_the_order_of_rows_and_columns_is_of_no_account(tmp_path: Path, order: Any) -> None:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((20, 3)), columns=["Mass", "Nodule", "Hernia"])
    scores.insert(0, "image", [f"{row}.png" for row in range(20)])
    truth = pd.DataFrame(rng.integers(0, 2, (20, 3)), columns=["Nodule", "Hernia", "Mass"])
    truth = truth.assign(
        image=scores["image"], patient=[row // 2 for row in range(20)], split=["val"] * 8 + ["test"] * 12
    )

    def shuffle(table: pd.DataFrame) -> pd.DataFrame:
        rows, columns = list(range(len(table))), list(table.columns)
        order.shuffle(rows)
        order.shuffle(columns)
        return table.iloc[rows][columns]

    tables = {}
    for name, change_table in (("plain", lambda table: table), ("shuffled", shuffle)):
        change_table(scores).to_csv(tmp_path / "scores.csv", index=False)
        change_table(truth).to_csv(tmp_path / "truth.csv", index=False)
        tables[name] = read_foreign(tmp_path / "scores.csv", tmp_path / "truth.csv", make_config())
    for part, table in tables["plain"].parts.items():
        pd.testing.assert_frame_equal(tables["shuffled"].parts[part][table.columns], table)
    assert hash_split(tables["plain"].split) == hash_split(tables["shuffled"].split)


@pytest.mark.parametrize("form", ["tsv", "gz", "parquet", "mark and crlf"])
def test_other_forms_of_the_same_tables(tmp_path: Path, form: str) -> None:
    wanted = read(tmp_path)
    frames = {name: pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=True) for name in ("predictions", "labels")}
    end = {"tsv": "tsv", "gz": "csv.gz", "parquet": "parquet"}.get(form, "txt")
    for name, frame in frames.items():
        path = tmp_path / f"{name}.{end}"
        if form == "parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(path)
        elif form == "mark and crlf":
            frame.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
        else:
            frame.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")
    found = read_foreign(tmp_path / f"predictions.{end}", tmp_path / f"labels.{end}", make_config())
    for part, table in wanted.parts.items():
        pd.testing.assert_frame_equal(found.parts[part], table)


def test_auroc_is_that_of_the_numbers_in_the_file(tmp_path: Path) -> None:
    """Scores that float32 would tie, and that a reader which is off by a bit would turn around."""
    rng = np.random.default_rng(0)
    scores = 0.5 + rng.permutation(200) * 2.0**-53
    targets = rng.integers(0, 2, 200)
    pairs = zip(scores.tolist(), targets, strict=True)
    lines = [f"{row},{row},{score!r},{target}" for row, (score, target) in enumerate(pairs)]
    table = read(tmp_path, ["image,patient,prob_Mass,target_Mass", *lines], None).parts["test"]
    probs, truth = split_arrays(table)
    assert auroc(probs[:, 0], truth[:, 0]) == auroc(scores, targets.astype(float))
    assert auroc(probs[:, 0].astype(np.float32), truth[:, 0]) == 0.5


def test_columns_by_the_names_that_the_config_gives(tmp_path: Path) -> None:
    scores = ("file,p_m,p_n", "a,2.5,-1", "b,-3,0.5")
    truth = ("Image Index,pid,fold,m,n,gender", "a,1,valid,1,0,M", "b,2,Testing,True,1.00,F")
    columns = {
        "image": ["file", "Image Index"],
        "patient": ["pid"],
        "split": ["fold"],
        "sex": ["gender"],
        "probs": {"Nodule": "p_n", "Mass": "p_m"},
        "targets": {"Mass": "m", "Nodule": "n"},
    }
    found = read(tmp_path, scores, truth, columns=columns, scores="logits")
    assert list_labels(found.parts["val"]) == ["Nodule", "Mass"]
    probs, targets = split_arrays(found.parts["test"])
    np.testing.assert_allclose(probs, 1 / (1 + np.exp([[-0.5, 3]])), rtol=1e-15)
    assert targets.tolist() == [[1, 1]]
    assert found.parts["test"]["sex"].tolist() == ["F"]


def test_a_name_alone_is_a_list_of_one() -> None:
    assert make_config(columns={"image": "file"}) == make_config(columns={"image": ["file"]})


@pytest.mark.parametrize("header", ["image,Mass,Nodule", "image,prob_mass,prob_NODULE", "image, mass , nodule"])
def test_labels_are_found_whatever_the_case_of_their_names(tmp_path: Path, header: str) -> None:
    found = read(tmp_path, [header, *SCORES[1:]])
    probs, targets = split_arrays(found.parts["test"])
    assert probs.tolist() == [[0.25, 0.5], [0.125, 0.75]]
    np.testing.assert_array_equal(targets, [[1, 0], [0, np.nan]])


def test_what_both_tables_may_say_is_taken_from_where_it_is(tmp_path: Path) -> None:
    wanted = read(tmp_path)
    columns = ["patient", "split", "view", "age", "sex"]
    for moved in ([], ["patient"], ["split"], ["patient", "split"], columns):
        cells = {line.split(",")[0]: dict(zip(TRUTH[0].split(","), line.split(","), strict=True)) for line in TRUTH}
        scores = [",".join([line, *(cells[line.split(",")[0]][name] for name in moved)]) for line in SCORES]
        truth = list(TRUTH)
        for name in moved:
            truth = drop(truth, name)
        found = read(tmp_path, scores, truth)
        for part, table in wanted.parts.items():
            pd.testing.assert_frame_equal(found.parts[part], table)
        pd.testing.assert_frame_equal(found.split, wanted.split)


def test_both_tables_may_say_the_same(tmp_path: Path) -> None:
    scores = add(SCORES, "patient,split", "1,test", "1,test", "2,val", "3,train")
    assert read(tmp_path, scores).parts["test"]["patient"].tolist() == ["p1", "p1"]


def test_targets_of_the_predictions_count_where_labels_has_none(tmp_path: Path) -> None:
    scores = add(SCORES, "target_Mass", "0", "1", "1", "0")
    people = drop(drop(TRUTH, "Mass"), "Nodule")
    found = read(tmp_path, scores, people)
    assert found.parts["test"]["target_Mass"].tolist() == [0, 1]
    assert "no targets for Nodule: the metrics stay blank" in found.notes
    assert "the targets are those of the predictions; targets=FILE has none of them" in found.notes
    both = read(tmp_path, scores)
    assert both.parts["test"]["target_Mass"].tolist() == [1, 0]
    assert "the targets are those of targets=FILE; the target_ columns of the predictions are not read" in both.notes


def test_labels_without_targets_stay_blank_and_targets_without_scores_are_named(tmp_path: Path) -> None:
    scores = change(SCORES, "prob_Nodule", "prob_Hernia")
    found = read(
        tmp_path,
        scores,
        change(TRUTH, "Nodule", "target_Edema")[:1] + list(TRUTH[1:]),
        columns={"targets": {"Mass": "Mass"}},
    )
    assert list_labels(found.parts["test"]) == ["Mass", "Hernia"]
    assert found.parts["test"]["target_Hernia"].isna().all()
    assert found.notes[0] == "no targets for Hernia: the metrics stay blank"
    truth = change(change(TRUTH, "Mass", "target_Mass"), "Nodule", "target_Edema")
    notes = read(tmp_path, scores, truth).notes
    assert notes[:2] == ["no targets for Hernia: the metrics stay blank", "no scores for Edema: left out"]


def test_one_class_is_no_fault(tmp_path: Path) -> None:
    found = read(tmp_path, SCORES, change(change(TRUTH, "F,1,0", "F,1,1"), "female,0,", "female,1,1"))
    assert split_arrays(found.parts["test"])[1].tolist() == [[1, 1], [1, 1]]


# ----------------------------------------------------------------------------- which images count


def test_images_that_are_not_predicted_stop_it_or_are_listed(tmp_path: Path) -> None:
    message = refuse(tmp_path, [line for line in SCORES if not line.startswith("b")])
    assert "predictions.csv: 1 of the 2 images of test in " in message
    assert "labels.csv are not predicted (b.png): predict them, or say missing=drop to evaluate the others" in message
    message = refuse(tmp_path, [line.replace("b.png", "x.png") for line in SCORES])
    assert "are not predicted (b.png); 1 image that is predicted is not in " in message
    assert "labels.csv (x.png): predict them, or say" in message
    found = read(tmp_path, [line for line in SCORES if not line.startswith("b")], missing="drop")
    assert found.parts["test"]["image"].tolist() == ["a.png"]
    assert found.dropped.to_numpy().tolist() == [["b.png", "", "not predicted"]]
    assert "1 of the 2 images of test are not predicted: they are left out" in found.notes
    assert hash_split(found.split) == hash_split(read(tmp_path).split)


def test_a_val_part_that_is_not_predicted_at_all_is_none(tmp_path: Path) -> None:
    found = read(tmp_path, [line for line in SCORES if not line.startswith("c")])
    assert list(found.parts) == ["test"]
    assert "none of the 1 images of val is predicted: thresholds and calibration stay blank" in found.notes
    assert found.dropped["image"].tolist() == ["c.png"]


def test_a_test_part_that_is_not_predicted_at_all_is_an_error(tmp_path: Path) -> None:
    for missing in ("error", "drop"):
        message = refuse(tmp_path, [SCORES[0], *SCORES[3:]], missing=missing)
        assert "2 of the 2 images of test" in message
        assert message.endswith("are not predicted (a.png, b.png): predict them")
    assert "labels.csv: no image is in test; columns.split=[] takes every" in refuse(
        tmp_path, SCORES, change(TRUTH, ",test,", ",val,")
    )


def test_images_that_no_label_is_known_of_are_listed(tmp_path: Path) -> None:
    found = read(tmp_path, [*SCORES, "y.png,0.5,0.5", "x.png,0.5,0.5"])
    assert found.dropped["image"].tolist() == ["x.png", "y.png"]
    assert set(found.dropped["reason"]) == {f"not in {tmp_path / 'labels.csv'}"}
    assert any(note.startswith("2 images that are predicted are not in ") for note in found.notes)


def test_images_without_a_part_are_listed(tmp_path: Path) -> None:
    """The split of the predictions says nothing about images that are not predicted."""
    scores = add(SCORES, "split", "test", "test", "val", "train")
    found = read(tmp_path, scores, [*drop(TRUTH, "split"), "z.png,p9,,,,0,0"])
    assert found.dropped.to_numpy().tolist() == [["z.png", "", "in no part of a split"]]
    assert "z.png" not in found.split["image"].tolist()


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (["x/a.png", "x/b.png", "x/c.png", "x/d.png"], "without folders 4"),
        (["x\\a.png", "x\\b.png", "x\\c.png", "x\\d.png"], "without folders 4"),
        (["a", "b", "c", "d"], "without the end of the file name 4"),
        (["a.dcm", "b.jpg", "c.jpg", "d.jpg"], "without the end of the file name 4"),
        (["x/a", "x/b", "x/c", "x/d"], "without folders and the end of the file name 4"),
        (["A.PNG", "B.png", "c.Png", "D.PNG"], "in lower case 4"),
        (["a.png.0"], "without .0 1"),
        (["000a.png"], "without zeros in front 1"),
        (["a.png", "x/b.png"], "without folders 1"),
        (["zz.tif"], ""),
    ],
)
def test_names_that_are_only_written_otherwise_are_suggested(tmp_path: Path, names: list[str], how: str) -> None:
    message = refuse(tmp_path, [SCORES[0], *(f"{name},{number / 8},0" for number, name in enumerate(names))])
    if "a.png" in names:
        assert "not predicted (b.png); 1 image that is predicted is not in " in message
    else:
        predicted = f"{len(names)} images of {tmp_path / 'predictions.csv'} (such as {names[0]})"
        assert f"none of the {predicted} is in " in message
    assert f"; {how} names would be the same, so write them the same way in both" in message or not how
    assert ("would be the same" in message) == bool(how)


# ----------------------------------------------------------------------------- patients and parts


def test_without_patients_it_is_refused_until_the_user_says_so(tmp_path: Path) -> None:
    truth = drop(TRUTH, "patient")
    message = refuse(tmp_path, SCORES, truth)
    assert "labels.csv: no column says which images are of the same patient" in message
    assert (
        "columns.patient (the columns are image, split, view, age, sex, Mass, Nodule), or say patient=image" in message
    )
    found = read(tmp_path, SCORES, truth, patient="image")
    assert found.parts["test"]["patient"].tolist() == ["a.png", "b.png"]
    assert "patient=image, and " in refuse(tmp_path, patient="image")
    assert "labels.csv says who the patients are: drop one of them" in refuse(tmp_path, patient="image")
    assert read(tmp_path, SCORES, TRUTH, patient="image", columns={"patient": []}).split["patient"].tolist() == [
        "a.png", "b.png", "c.png", "d.png"
    ]  # fmt: skip


@pytest.mark.parametrize("other", ["train", "val"])
def test_a_patient_in_two_parts_is_a_leak(tmp_path: Path, other: str) -> None:
    truth = [*TRUTH, f"e.png,p1,{other},PA,50,F,1,0"]
    with pytest.raises(LeakageError, match=r"1 patient stands in two parts of the split \(p1\)"):
        read(tmp_path, [*SCORES, "e.png,0.5,0.5"], truth)
    with pytest.raises(LeakageError):  # also where the image is not predicted
        read(tmp_path, SCORES, truth)
    columns = ("patient,split,target_Mass", "p1,test,1", "p1,test,0", "p2,val,0", f"p1,{other},1")
    with pytest.raises(LeakageError):
        read(tmp_path, add(SCORES, *columns), None)


def test_a_patient_of_training_that_labels_does_not_know_is_a_leak(tmp_path: Path) -> None:
    columns = ("patient,split", "p1,test", "p1,test", "p2,val", "p3,train")
    scores = add(SCORES, *columns)
    read(tmp_path, scores)
    with pytest.raises(LeakageError, match=r"predictions\.csv: 1 patient stands in two parts of the split \(p1\)"):
        read(tmp_path, [*scores, "trained.png,0.5,0.5,p1,train"])


def test_tables_that_disagree_about_patients(tmp_path: Path) -> None:
    for patients, where in (
        (("1", "2", "3", "4"), "labels.csv and of two in"),
        (("1", "1", "1", "3"), "predictions.csv and of two in"),
    ):
        scores = add(SCORES, "patient", *patients)
        message = refuse(tmp_path, scores)
        assert f"{where} " in message
        assert "are images of one patient in " in message


def test_tables_that_disagree_about_the_split(tmp_path: Path) -> None:
    scores = add(SCORES, "split", "test", "test", "train", "train")
    assert "1 image is in one part in " in refuse(tmp_path, scores)
    assert "(c.png): mend one of them" in refuse(tmp_path, scores)
    scores = add(SCORES, "split", "test", "test", "validation", "train")
    read(tmp_path, scores)


# ----------------------------------------------------------------------------- columns and labels


NONE_WITH_SCORES = (
    "predictions.csv: no label has scores, those with targets are Mass, Nodule: name the column of each label with "
    "columns.probs={LABEL: COLUMN, ...}; the columns are p1, q1"
)
NEAR_MISS = (
    "pred Mass has no targets and Mass no scores: are they one label? Name the columns of all labels that count, "
    "columns.probs={Mass: pred Mass, ...}"
)
MASS = {"targets": {"Mass": "Mass"}}


@pytest.mark.parametrize(
    ("scores", "truth", "columns", "message"),
    [
        (change(SCORES, "image", "file"), TRUTH, {}, "predictions.csv: there is no column image: name it with columns"),
        (change(SCORES, "image", "file"), TRUTH, {"image": ["file"]}, "labels.csv: there is no column file: name it"),
        (SCORES, TRUTH, {"image": ["file"]}, "or [NAME,NAME] where the two tables differ; the columns are image, prob"),
        (SCORES, TRUTH, {"split": ["spilt"]}, "there is no column spilt: name it with columns.split=NAME"),
        (SCORES, TRUTH, {"age": ["years", "Age"]}, "there is no column years or Age: name it with columns.age"),
        (("image,p1,q1", *SCORES[1:]), TRUTH, {}, NONE_WITH_SCORES),
        (change(SCORES, "prob_", "pred "), TRUTH, {}, NEAR_MISS),
        (change(SCORES, "Nodule", "Noduel"), TRUTH, {}, "Noduel has no targets and Nodule no scores: are they one"),
        (change(SCORES, "Nodule", "Lung Nodule"), TRUTH, {}, "Lung Nodule has no targets and Nodule no scores"),
        (change(SCORES, "Nodule", "mass"), TRUTH, {}, "the columns prob_Mass, prob_mass may both be Mass: say col"),
        (SCORES, change(TRUTH, "Nodule", "MASS"), {}, "labels.csv: the columns Mass, MASS may both be Mass: say col"),
        (change(SCORES, "Nodule", "Mass"), TRUTH, {}, "there are two columns prob_Mass"),
        (change(SCORES, "Nodule", "No?dule"), TRUTH, MASS, "the label 'No?dule': string should match pattern"),
        (change(SCORES, "Nodule", "age"), TRUTH, MASS, "age is the name of another column"),
        (SCORES, None, {}, "predictions.csv: there are no targets: say targets=TABLE"),
        (SCORES, drop(drop(TRUTH, "Mass"), "Nodule"), {}, "predictions.csv: there are no targets: say targets=TABLE"),
        (SCORES, TRUTH, {"probs": {"Mass": "p"}}, "the column p is missing"),
        (SCORES, TRUTH, {"targets": {"Mass": "m"}}, "the column m is missing"),
        (SCORES, TRUTH, {"targets": {"Edema": "Mass"}}, "columns.targets: Edema has no scores; the labels with scores"),
        (SCORES, TRUTH, {"targets": {"Mass": "Mass", "Nodule": "Mass"}}, "the column Mass would be two things"),
        (SCORES, TRUTH, {"probs": {"Mass": "prob_Mass", "Nodule": "prob_Mass"}}, "prob_Mass would be two things"),
        (TRUTH, None, {"probs": {"Mass": "Mass"}, **MASS}, "the column Mass would be two things"),
    ],
)
def test_columns_that_cannot_be_told(
    tmp_path: Path, scores: Sequence[str], truth: Sequence[str] | None, columns: dict[str, Any], message: str
) -> None:
    assert message in refuse(tmp_path, scores, truth, columns=columns)


def test_the_labels_in_place_of_scores_are_noticed(tmp_path: Path) -> None:
    """AUROC 1, if nobody looked."""
    truth = drop(TRUTH, "Nodule")
    message = "the scores of Mass are its targets: name the columns of scores with columns.probs"
    assert message in refuse(tmp_path, truth, truth)


def test_a_column_of_both_tables_that_is_no_label_says_how_to_name_labels(tmp_path: Path) -> None:
    scores = add(change(SCORES, "prob_", ""), "visit", "0", "1", "2", "3")
    truth = add(TRUTH, "visit", "0", "1", "2", "3")
    message = refuse(tmp_path, scores, truth)
    assert "visit is 2, outside [0, 1]" in message
    assert message.endswith("; if the column is no label, name those of the labels with columns.probs")
    assert list_labels(read(tmp_path, scores, truth, columns={"probs": {"Mass": "Mass"}}).parts["test"]) == ["Mass"]


# ----------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([*SCORES, "a.png,0.5,0.5"], TRUTH, "predictions.csv: 1 image stands in it twice (a.png in lines 2, 6)"),
        (SCORES, [*TRUTH, TRUTH[1]], "labels.csv: 1 image stands in it twice (a.png in lines 2, 6)"),
        (change(SCORES, "b.png", ""), TRUTH, "predictions.csv, line 3: image '' is blank"),
        (change(SCORES, "0.125", ""), TRUTH, "predictions.csv, line 3: prob_Mass '' is blank"),
        (change(SCORES, "0.125", "NaN"), TRUTH, "predictions.csv, line 3: prob_Mass 'NaN' is no finite number"),
        (change(SCORES, "0.125", "1.25"), TRUTH, "line 3: prob_Mass is 1.25, outside [0, 1]; all are in [0, 1.25]"),
        (change(SCORES, "0.125", "-1.25"), TRUTH, "line 3: prob_Mass is -1.25, outside [0, 1]; all are in [-1.25, 1]"),
        (change(SCORES, "0.125", "0,125"), TRUTH, "predictions.csv, line 3: it has 4 cells and the header 3"),
        (SCORES, change(TRUTH, "male,0", "male,2"), "labels.csv, line 3: Mass '2' is no label: write 1 or 0"),
        (SCORES, change(TRUTH, "male,0", "male,0.5"), "labels.csv, line 3: Mass '0.5' is no label"),
        (SCORES, change(TRUTH, "male,0", "male,maybe"), "labels.csv, line 3: Mass 'maybe' is no label"),
        (SCORES, change(TRUTH, "male,0", "male,nix"), "labels.csv, line 3: Mass 'nix' is no label"),
        (SCORES, change(TRUTH, "b.png,p1", "b.png,"), "labels.csv, line 3: patient '' is blank"),
        (SCORES, change(TRUTH, ",val,", ",fold3,"), "labels.csv, line 4: split 'fold3' is no part of a split"),
        (SCORES, change(TRUTH, "051Y", "60-70"), "age '60-70' is no age from 0 to 120 years: correct it, or leave"),
    ],
)
def test_cells_that_cannot_be_understood(
    tmp_path: Path, scores: Sequence[str], truth: Sequence[str], message: str
) -> None:
    assert message in refuse(tmp_path, scores, truth)


def test_targets_of_1_and_minus_1_alone_are_asked_about(tmp_path: Path) -> None:
    truth = ("image,patient,Mass", "a.png,1,1", "b.png,2,-1", "c.png,3,-1.0", "d.png,4,")
    assert "labels.csv: 2 targets are -1 and none is 0: if -1 means absent, write 0" in refuse(
        tmp_path, drop(SCORES, "prob_Nodule"), truth
    )


def test_a_column_that_is_not_to_be_read_is_not(tmp_path: Path) -> None:
    truth = change(TRUTH, "051Y", "60-70")
    assert "age" not in read(tmp_path, SCORES, truth, columns={"age": []}).parts["test"]


def test_sexes_and_views_that_are_not_understood_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, SCORES, change(TRUTH, "female", "diverse"))
    assert f"{tmp_path / 'labels.csv'}: 1 cell of sex is not understood: sex unknown" in found.notes
    assert found.parts["test"]["sex"].tolist() == ["F", None]


@pytest.mark.parametrize("cell", ["1", "1.0", "1.000e+00", "TRUE", "yes", "+1"])
def test_targets_in_every_form(tmp_path: Path, cell: str) -> None:
    found = read(tmp_path, SCORES, change(TRUTH, "F,1,0", f"F,{cell},0"))
    assert found.parts["test"]["target_Mass"].tolist() == [1, 0]


# ----------------------------------------------------------------------------- a data source


@pytest.fixture
def source() -> SplitData:
    """What ``load_data`` gives, of six images."""
    images = [f"{name}.png" for name in "abcdef"]
    index = pd.DataFrame({"image": images, "patient": ["1", "1", "2", "3", "4", "5"]})
    index = index.assign(source="nih", path="", file="", n_bytes=0, mtime_ns=0, study=None, sex=None)
    index = index.assign(view=["PA", "AP"] * 3, age=np.arange(6, dtype=np.float32), Nodule=1.0, Mass=[0.0, 1] * 3)
    split = index[["source", "image", "patient"]].assign(split=["test", "test", "val", "test", "train", "train"])
    gone = pd.DataFrame({"source": "nih", "image": ["gone.png"], "path": "", "reason": "not on disk"})
    return SplitData(
        sources=("nih",),
        labels=("Nodule", "Mass"),
        index=index[[*FIXED_COLUMNS, "Nodule", "Mass"]],
        dropped=gone,
        excluded=gone.iloc[:0],
        stores={},
        split=split,
        split_name="official",
        max_dropped=0.05,
    )


def test_labels_of_a_data_source(tmp_path: Path, source: SplitData) -> None:
    path = write(tmp_path, *SCORES, "gone.png,0.5,0.5", "other.png,0.5,0.5")
    found = read_foreign(path, source, make_config())
    assert found.parts["test"].to_dict("list") == {
        "image": ["a.png", "b.png", "d.png"],
        "patient": ["1", "1", "3"],
        "view": ["PA", "AP", "AP"],
        "age": [0, 1, 3],
        "prob_Nodule": [0.5, 0.75, 0.2],
        "prob_Mass": [0.25, 0.125, 0.1],
        "target_Nodule": [1, 1, 1],
        "target_Mass": [0, 1, 1],
    }
    assert found.parts["val"]["image"].tolist() == ["c.png"]
    assert found.dropped.to_numpy().tolist() == [["gone.png", "", "not on disk"], ["other.png", "", "not in nih"]]
    assert hash_split(found.split) == source.split_hash


def test_a_data_source_spells_and_orders_its_labels(tmp_path: Path, source: SplitData) -> None:
    path = write(tmp_path, "image,hernia,MASS,nodule", *(f"{line},0.5" for line in SCORES[1:]))
    assert list_labels(read_foreign(path, source, make_config()).parts["test"]) == ["Nodule", "Mass"]
    path = write(tmp_path, "image,prob_Hernia,prob_MASS,prob_nodule", *(f"{line},0.5" for line in SCORES[1:]))
    found = read_foreign(path, source, make_config())
    assert list_labels(found.parts["test"]) == ["Nodule", "Mass", "Hernia"]
    assert found.notes[0] == "no targets for Hernia: the metrics stay blank"


def test_a_data_source_and_settings_that_do_not_go_with_it(tmp_path: Path, source: SplitData) -> None:
    path = write(tmp_path, *SCORES)
    with pytest.raises(ConfigError, match="patient=image, and nih says who the patients are"):
        read_foreign(path, source, make_config(patient="image"))
    with pytest.raises(ConfigError, match=r"columns\.targets goes with a table"):
        read_foreign(path, source, make_config(columns={"targets": {"Mass": "Mass"}}))
    with pytest.raises(DataError, match=r"none of the 1 images .* is in nih \(such as a\.png\)"):
        read_foreign(write(tmp_path, SCORES[0], "zz,0.5,0.5"), source, make_config())


def test_labels_of_the_real_sample(
    tmp_path: Path, nih_sample: Path, make_nih_config: Callable[[Path], NIHData]
) -> None:
    """Scores of all its images in another order, by names without the end: refused, and with it: joined."""
    data = load_data(make_nih_config(nih_sample), LABELS, tmp_path)
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((len(data.index), 8)), columns=[f"prob_{label}" for label in LABELS])
    scores = scores.assign(image=data.index["image"])
    shuffled = scores.sample(frac=1, random_state=0)
    path = tmp_path / "scores.csv"
    shuffled.assign(image=shuffled["image"].str.removesuffix(".png")).to_csv(path, index=False)
    with pytest.raises(DataError, match=f"without the end of the file name {len(scores)} names would be the same"):
        read_foreign(path, data, make_config())
    shuffled.to_csv(path, index=False)
    found = read_foreign(path, data, make_config())
    for part, table in found.parts.items():
        rows = (data.split["split"] == part).to_numpy()
        wanted = make_predictions(
            data.index[rows].reset_index(drop=True), LABELS, scores.iloc[rows, :8].to_numpy(np.float64)
        )
        pd.testing.assert_frame_equal(table, wanted, check_dtype=False)
        np.testing.assert_array_equal(split_arrays(table)[0], split_arrays(wanted)[0])
    assert hash_split(found.split) == data.split_hash


# ----------------------------------------------------------------------------- hostile files


PIECES = (b",", b"\n", b'"', b"\r", b"\t", b"nan", b"-1", b"1e999", b"\xff", b"\0", b"", b" ", b"\xc3\xa9", b"=cmd()")


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Content after one to three accidents."""
    for _ in range(int(rng.integers(1, 4))):
        start, length = int(rng.integers(0, len(content) + 1)), int(rng.integers(0, 12))
        piece = PIECES[int(rng.integers(len(PIECES)))]
        cells, lines = content.replace(b"\n", b",").split(b","), content.split(b"\n")
        before, inside, after = content[:start], content[start : start + length], content[start + length :]
        damaged = (
            before + piece + inside + after,
            before + after,
            before + inside * 3 + after,
            before,
            content.replace(cells[int(rng.integers(len(cells)))] or b",", piece, 1),
            b"\n".join(rng.permutation(lines).tolist()),
        )
        content = damaged[int(rng.integers(len(damaged)))]
    return content


def check_parts(found: JoinedPredictions) -> None:
    """Whatever was read is a predictions table."""
    for table in found.parts.values():
        probs, targets = split_arrays(table)
        assert ((probs >= 0) & (probs <= 1)).all()
        assert (np.isnan(targets) | (targets == 0) | (targets == 1)).all()
        assert table["image"].is_unique
        assert (table["patient"] != "").all()
    patients = [set(table["patient"]) for table in found.parts.values()]
    assert not any(one & other for one, other in itertools.combinations(patients, 2))


def read_whatever(read_table: Callable[[], JoinedPredictions]) -> str:
    """What a damaged table is told, which is one line; empty where what was read is a predictions table."""
    try:
        check_parts(read_table())
    except CXRLitError as error:
        return str(error)
    return ""


def damage_tables(folder: Path, n_tables: int, seed: int) -> list[str]:
    """What damaged tables are told."""
    rng = np.random.default_rng(seed)
    files = [folder / name for name in ("scores.csv", "truth.csv", "ours.csv")]
    write_predictions(files[2], make_ours(rng.random((3, 2)).astype(np.float32), labels=("Mass", "Nodule")))
    contents = ["\n".join(SCORES).encode(), "\n".join(TRUTH).encode(), files[2].read_bytes()]
    outcomes = []
    for number in range(n_tables):
        for place, (file, content) in enumerate(zip(files, contents, strict=True)):
            file.write_bytes(mutate(content, rng) if place == number % 3 else content)
        if number % 3 == 2:
            outcomes.append(read_whatever(lambda: read_foreign(files[2], None, make_config())))
            read_whatever(lambda: JoinedPredictions({"test": read_predictions(files[2])}, *[pd.DataFrame()] * 2, []))
        else:
            outcomes.append(read_whatever(lambda: read_foreign(files[0], files[1], make_config())))
    return outcomes


def check_outcomes(outcomes: list[str]) -> None:
    """Some were read, most refused, with a line of a reasonable length."""
    assert 0.05 < outcomes.count("") / len(outcomes) < 0.6
    assert max(len(message.splitlines()) for message in outcomes) == 1
    assert max(map(len, outcomes)) < 800


@pytest.mark.parametrize(("n_tables", "seed"), [(200, 0), pytest.param(2000, 1, marks=pytest.mark.slow)])
def test_damaged_tables_are_read_or_refused_with_a_line(tmp_path: Path, n_tables: int, seed: int) -> None:
    check_outcomes(damage_tables(tmp_path, n_tables, seed))


@pytest.mark.slow
def test_a_table_of_all_of_nih_in_a_few_hundred_megabytes(tmp_path: Path) -> None:
    table = make_ours(np.random.default_rng(0).random((112_120, 14)), labels=[f"label {n}" for n in range(14)])
    write_predictions(tmp_path / "all.csv", table)
    program = (
        "import resource, sys; from pathlib import Path; import strangers\n"
        "from cxrlit.evaluation.third_party.read_predictions import read_foreign\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = read_foreign(Path(sys.argv[1]), None, strangers.make_config())\n"
        "print(len(found.parts['test']), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "all.csv")]
    ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    n_rows, kibibytes = map(int, ended.stdout.split())
    assert n_rows == len(table)
    assert kibibytes < 600 * 1024


def test_damaged_parquet_tables(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    path = tmp_path / "ours.parquet"
    make_ours(rng.random((30, 2)).astype(np.float32), labels=("Mass", "Nodule")).to_parquet(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    outcomes = []
    for _ in range(300):
        damaged = content.copy()
        damaged[rng.integers(0, len(damaged), int(rng.integers(1, 5)))] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(damaged)) if rng.random() < 0.1 else None].tobytes())
        outcomes.append(read_whatever(lambda: read_foreign(path, None, make_config())))
    check_outcomes(outcomes)
