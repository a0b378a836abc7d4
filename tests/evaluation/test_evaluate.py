"""Evaluation from end to end: the command on a small phase, on other data, and what it refuses."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lab import QUICK, Lab, evaluate, read_times
from PIL import Image
from tiny import Outcome, run_command, write_tree

from cxrlit.config import EvaluateConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.labels import LABELS
from cxrlit.data.tta import average_logits
from cxrlit.evaluation.measure.measure import measure
from cxrlit.evaluation.measure.tune_thresholds import tune_thresholds
from cxrlit.evaluation.predict import load_network, open_images
from cxrlit.evaluation.predictions import read_predictions, split_arrays
from cxrlit.evaluation.report.changes_section import build_external_section
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.macro import macro, per_label
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.archive import write_archive
from cxrlit.model.checkpoint import read_checkpoint

TABLES = {
    "predictions_val.csv", "predictions_test.csv", "eval_summary.csv", "eval_per_label_auroc.csv",
    "confusion_template.csv", "eval_thresholds.csv", "eval_metrics.csv", "eval_decision_curves.csv", "thresholds.json",
    "dropped.csv", "eval_subgroups.csv", "eval_subgroup_counts.csv", "eval_gaps.csv", "evaluation.json",
}  # fmt: skip


def test_evaluation_writes_its_tables_and_nothing_else(frozen: Path) -> None:
    assert {path.name for path in (frozen / "eval").iterdir()} == TABLES
    split = read_checkpoint(frozen).metadata.read_split()
    for part in ("val", "test"):
        table = read_predictions(frozen / "eval" / f"predictions_{part}.csv")
        assert table.columns.tolist() == [
            "image", "patient", *(f"prob_{label}" for label in LABELS), *(f"target_{label}" for label in LABELS)
        ]  # fmt: skip
        assert table["image"].tolist() == split.loc[split["split"] == part, "image"].tolist()  # each once
        assert table["patient"].tolist() == split.loc[split["split"] == part, "patient"].tolist()


@pytest.mark.slow
def test_evaluation_gives_the_number_of_the_best_epoch(lab: Lab) -> None:
    folder = lab.train_well("max_epochs=4", "lr=1e-2")
    evaluate(folder, folder / "eval")
    facts = json.loads((folder / "phase.json").read_text())
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["val_auroc_macro"].idxmax() != metrics["val_auroc_macro"].idxmin()
    assert facts["best_epoch"] == metrics["epoch"][metrics["val_auroc_macro"].idxmax()]
    summary = pd.read_csv(folder / "eval" / "eval_summary.csv").set_index("split")
    best = metrics["val_auroc_macro"].max()
    assert summary.loc["val", "auroc_macro"] == pytest.approx(best, abs=1e-12)
    aurocs = pd.read_csv(folder / "eval" / "eval_per_label_auroc.csv")
    val = aurocs[aurocs["split"] == "val"].set_index("label")["auroc"]
    for label in LABELS:
        expected = metrics.set_index("epoch").loc[facts["best_epoch"], f"val_auroc_{label}"]
        assert val[label] == pytest.approx(expected, abs=1e-12)
    # the last checkpoint is another one, and holds its own number
    evaluate(folder / "last.ckpt", folder / "last")
    last = pd.read_csv(folder / "last" / "eval_summary.csv").set_index("split").loc["val", "auroc_macro"]
    assert last == pytest.approx(metrics["val_auroc_macro"].iloc[-1], abs=1e-12)


def test_the_tables_follow_from_the_predictions(frozen: Path) -> None:
    tables = {part: read_predictions(frozen / "eval" / f"predictions_{part}.csv") for part in ("val", "test")}
    summary = pd.read_csv(frozen / "eval" / "eval_summary.csv").set_index("split")
    for part, table in tables.items():
        expected = macro(per_label(auroc, *split_arrays(table)))
        assert summary.loc[part, "auroc_macro"] == pytest.approx(expected.value, abs=1e-12)
        assert summary.loc[part, "n_labels"] == expected.n_labels
    point = read_operating_point(frozen / "eval" / "thresholds.json")
    probs, targets = split_arrays(tables["val"])
    tuned = tune_thresholds(point.calibrate(probs), targets, LABELS, "f1_quantiles")
    saved = json.loads((frozen / "eval" / "thresholds.json").read_text())
    assert saved["tuned_on"] == "val"
    assert saved["calibration"]["method"] == "platt"
    np.testing.assert_array_equal([saved["thresholds"][label] for label in LABELS], tuned.values)
    confusion = pd.read_csv(frozen / "eval" / "confusion_template.csv")
    np.testing.assert_array_equal(confusion["threshold"], tuned.values)
    assert (confusion[["TP", "FP", "TN", "FN"]].sum(axis=1) == len(tables["test"])).all()
    hashes = {json.loads((frozen / "phase.json").read_text())["split_hash"], saved["split_hash"]}
    assert hashes == set(summary["split_hash"])


def test_evaluation_repeats_to_the_bit(frozen: Path, tmp_path: Path) -> None:
    before = read_times(frozen)
    outcome = run_command(
        "evaluate.py", f"ckpt={frozen}", f"out={tmp_path / 'again'}", "trainer.num_workers=2", *QUICK[1:]
    )
    assert outcome.code == 0, outcome.err
    for name in TABLES:
        assert (tmp_path / "again" / name).read_bytes() == (frozen / "eval" / name).read_bytes(), name
    assert read_times(frozen) == before


def test_test_images_have_no_say_in_thresholds(frozen: Path, tree: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved)
    split = read_checkpoint(frozen).metadata.read_split()
    rng = np.random.default_rng(9)
    for image in split.loc[split["split"] == "test", "image"]:
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(moved / "images" / image)
    out = tmp_path / "out"
    evaluate(frozen, out, f"data.root={moved}", f"cache_dir={tmp_path / 'cache'}")
    same = {name: (out / name).read_bytes() == (frozen / "eval" / name).read_bytes() for name in TABLES}
    assert same["predictions_val.csv"]
    assert same["thresholds.json"]
    assert not same["predictions_test.csv"]


def test_evaluation_of_other_data_is_refused(frozen: Path, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "other", n_patients=20)
    outcome = run_command("evaluate.py", f"ckpt={frozen}", f"data.root={other}", f"out={tmp_path / 'out'}")
    assert outcome.code != 0
    assert re.match(r"error: 30 of 50 images cannot be used", outcome.err)
    table = tmp_path / "other" / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace(",3\n", ",99\n"))
    outcome = run_command("evaluate.py", f"ckpt={frozen}", f"data.root={other}", f"out={tmp_path / 'out'}")
    assert "1 image has another file, patient or target than during training (0003.png)" in outcome.err
    assert not (tmp_path / "out").exists()


def swap_train_and_test(facts: dict[str, Any]) -> dict[str, Any]:
    names = {",train": ",TEST", ",test": ",train"}
    split = facts["split"]
    for old, new in {**names, ",TEST": ",test"}.items():
        split = split.replace(old, new)
    return {**facts, "split": split}


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "split is empty": (lambda facts: {**facts, "split": ""}, "the checkpoint's split is damaged"),
    "split without columns": (lambda facts: {**facts, "split": "a,b\n1,2\n"}, "the checkpoint's split is damaged"),
    "fewer hashes": (lambda facts: {**facts, "rows": facts["rows"][1:]}, "images and "),
    "format is of another version": (lambda facts: {**facts, "format": 3}, "its format is 3, and this version of"),
    "format is a tensor": (lambda facts: {**facts, "format": torch.ones(2)}, "its format is"),
    "config without a key": (
        lambda facts: {**facts, "config": {key: value for key, value in facts["config"].items() if key != "seed"}},
        "best.ckpt: its config or split cannot be used: seed: the key is missing",
    ),
    "train and test exchanged": (swap_train_and_test, "patients that the checkpoint was trained on are in the test"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint_whose_facts_cannot_be_is_refused(frozen: Path, tmp_path: Path, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    content = torch.load(frozen / "best.ckpt", weights_only=True)
    write_archive(tmp_path / "best.ckpt", {**content, "cxrlit": damage(content["cxrlit"])})
    outcome = run_command("evaluate.py", f"ckpt={tmp_path / 'best.ckpt'}", f"cache_dir={tmp_path / 'cache'}")
    assert outcome.code != 0
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert reason in outcome.err
    assert not (tmp_path / "eval").exists()


# ----------------------------------------------------------------------------- the mean of several


def read_probs(folder: Path, part: str = "test") -> np.ndarray:
    return split_arrays(read_predictions(folder / f"predictions_{part}.csv"))[0]


@pytest.fixture
def pair(frozen: Path, second: Path) -> tuple[Path, Path]:
    """Two frozen phases on one split, evaluated."""
    return frozen, second


@pytest.fixture(scope="module")
def regrouped(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """A frozen phase on another split, evaluated."""
    lab = Lab(tmp_path_factory.mktemp("regrouped"), cache, tree, weights)
    folder = lab.train_well("data.split=grouped", "data.split_seed=5")
    evaluate(folder, folder / "eval")
    return folder


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_an_ensemble_is_the_mean_of_its_members(pair: tuple[Path, Path], average: Any, tmp_path: Path) -> None:
    members = [read_probs(folder / "eval") for folder in pair]
    assert np.abs(members[0] - members[1]).max() > 0.01
    outcome = run_command("evaluate.py", f"ckpt=[{pair[0]},{pair[1]}]", f"average={average}", f"out={tmp_path}", *QUICK)
    assert outcome.code == 0, outcome.err
    logits = np.stack([np.log(member.astype(float) / (1 - member.astype(float))) for member in members])
    expected = average_logits(logits.astype(np.float32), average)
    np.testing.assert_allclose(read_probs(tmp_path), expected, atol=1e-6)
    names = [f"{folder.name}/best.ckpt" for folder in pair]
    summary = pd.read_csv(tmp_path / "eval_summary.csv")
    assert set(summary["checkpoint"]) == {" + ".join(names)}
    assert set(summary["predicted"]) == {f"the mean {average} of 2 checkpoints on each image"}


@pytest.mark.slow
def test_an_ensemble_has_a_folder_of_its_own(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first = shutil.copytree(pair[0], tmp_path / pair[0].name)
    before = read_times(first / "eval")
    outcome = run_command("evaluate.py", f"ckpt=[{first},{pair[1]}]", "tta=flip", *QUICK)
    assert outcome.code == 0, outcome.err
    [folder] = first.glob("eval-ensemble-*-flip")
    assert (folder / "eval_summary.csv").is_file()
    assert read_times(first / "eval") == before


@pytest.mark.slow
def test_a_member_that_is_there_twice_is_refused(frozen: Path, tmp_path: Path) -> None:
    again = shutil.copytree(frozen, tmp_path / "renamed")
    outcome = run_command("evaluate.py", f"ckpt=[{frozen},{again}]", f"out={tmp_path / 'out'}", *QUICK)
    assert outcome.code != 0
    assert outcome.err == f"error: {again}/best.ckpt: it is the same checkpoint as {frozen}/best.ckpt: name each once\n"


def test_members_with_other_splits_are_refused(frozen: Path, regrouped: Path, tmp_path: Path) -> None:
    outcome = run_command("evaluate.py", f"ckpt=[{frozen},{regrouped}]", f"out={tmp_path / 'out'}")
    assert outcome.code != 0
    assert "a patient that one tests may have trained the other" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tta", "side", "places"),
    [("flip", 32, [(0, 0)]), ("crops", 37, [(2, 2), (0, 0), (0, 5), (5, 0), (5, 5)])],
)
def test_tta_is_the_mean_over_views(
    frozen: Path, cache: Path, tmp_path: Path, tta: str, side: int, places: list[tuple[int, int]]
) -> None:
    """Each place is where a square of 32 x 32 pixels begins, which counts as it is and as its mirror image."""
    evaluate(frozen, tmp_path / tta, f"tta={tta}", f"cache_dir={cache}")
    checkpoint = read_checkpoint(frozen)
    config = compose_defaults("evaluate", EvaluateConfig, {"ckpt": str(frozen), "cache_dir": str(cache)})
    datamodule = open_images(checkpoint, load_internal([checkpoint], config), config.trainer, cache, tta)
    assert datamodule.img_size == side
    table = read_predictions(tmp_path / tta / "predictions_test.csv")
    assert table["image"].tolist() == datamodule.parts["test"]["image"].tolist()
    images = torch.from_numpy(datamodule.store.take(datamodule.parts["test"]["row"])).unsqueeze(1)
    network = load_network(checkpoint).eval()
    squares = [images[..., top : top + 32, left : left + 32] for top, left in places]
    with torch.inference_mode():
        probs = [network(view).double().sigmoid() for square in squares for view in (square, square.flip(-1))]
    assert min((one - other).abs().max() for one, other in itertools.combinations(probs, 2)) > 1e-4
    expected = torch.stack(probs).mean(dim=0).numpy()
    np.testing.assert_allclose(split_arrays(table)[0], expected, atol=5e-3 if torch.cuda.is_available() else 1e-6)


# ----------------------------------------------------------------------------- on other data


def write_other(folder: Path, patients: str = "x", missing: str | None = None) -> Path:
    """A table of other patients with a split column; one label may not be there."""
    write_tree(folder, n_patients=60, seed=7)
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    findings = table.pop("Finding Labels").str.split("|")
    for label in LABELS:
        if label != missing:
            table[label] = findings.map(lambda found, label=label: int(label in found))
    table["split"] = np.array(["train", "test", "val"])[np.arange(60) % 3]
    table = table.assign(patient=patients + table.pop("Patient ID").astype(str)).rename(columns={"Image Index": "file"})
    table["file"] = "images/" + table["file"]
    table.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def evaluate_on(table: Path, folder: Path, out: Path, *arguments: str) -> Outcome:
    return run_command(
        "evaluate.py", f"ckpt={folder}", "data=table", f"data.table={table}", "data.name=other",
        "data.columns.image=file", "data.columns.patient=patient", f"out={out}", f"cache_dir={out.parent / 'cache'}",
        *QUICK, *arguments,
    )  # fmt: skip


def test_other_data_beside_the_test_at_home(frozen: Path, tmp_path: Path) -> None:
    before = read_times(frozen)
    outcome = evaluate_on(write_other(tmp_path / "other", missing="Mass"), frozen, tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert read_times(frozen) == before
    at_home = read_operating_point(frozen / "eval" / "thresholds.json")
    fixed = read_operating_point(tmp_path / "out" / "thresholds.json")
    np.testing.assert_array_equal(fixed.thresholds.values, at_home.thresholds.values)
    table = pd.read_csv(tmp_path / "out" / "eval_external.csv", keep_default_na=False, dtype=str)
    rows = table.set_index(["metric", "label"])
    home = pd.read_csv(frozen / "eval" / "eval_metrics.csv").query("part == 'test'").set_index(["metric", "label"])
    for metric, label in (("auroc", "Nodule"), ("f1", "Nodule"), ("brier", "Effusion"), ("f1", "micro")):
        for name, column in (("home", "value"), ("home_low", "low"), ("home_high", "high")):
            assert float(rows.loc[(metric, label), name] or "nan") == pytest.approx(
                home.loc[(metric, label), column], abs=1e-12, nan_ok=True
            )
    assert rows.loc[("auroc", "Mass"), ["external", "change"]].tolist() == ["", ""]
    assert (
        "no known target"
        in pd.read_csv(tmp_path / "out" / "eval_per_label_auroc.csv")
        .query("split == 'external' and label == 'Mass'")["reason"]
        .item()
    )
    assert rows.loc[("auroc", "macro"), "n_labels"] == "7"
    change = float(rows.loc[("auroc", "Nodule"), "external"]) - float(rows.loc[("auroc", "Nodule"), "home"])
    assert float(rows.loc[("auroc", "Nodule"), "change"]) == pytest.approx(change)
    predictions = read_predictions(tmp_path / "out" / "predictions_external.csv")
    assert len(predictions) == 60
    drawn = [measure("external", predictions, fixed, 100, seed).metrics for seed in (0, 1)]  # 0 is the seed at home
    like_home, elsewhere = (of.set_index(["metric", "label"]).loc[("auroc", "Effusion"), "low"] for of in drawn)
    assert like_home != pytest.approx(elsewhere)
    assert float(rows.loc[("auroc", "Effusion"), "external_low"]) == pytest.approx(elsewhere)


def test_a_part_of_other_data(frozen: Path, tmp_path: Path) -> None:
    table = write_other(tmp_path / "other")
    outcome = evaluate_on(table, frozen, tmp_path / "out", "part=test", "data.columns.split=split")
    assert outcome.code == 0, outcome.err
    images = pd.read_csv(table).query("split == 'test'")["file"].str.removeprefix("images/")
    assert read_predictions(tmp_path / "out" / "predictions_external.csv")["image"].tolist() == images.tolist()


def test_recalibration_is_on_other_patients_than_its_numbers(frozen: Path, tmp_path: Path) -> None:
    outcome = evaluate_on(
        write_other(tmp_path / "other"), frozen, tmp_path / "out", "recalibrate=true", "recalibrate_fraction=0.5"
    )
    assert outcome.code == 0, outcome.err
    rest = read_predictions(tmp_path / "out" / "predictions_external.csv")
    assert 20 < len(rest) < 40
    table = pd.read_csv(tmp_path / "out" / "eval_recalibration.csv").set_index(["metric", "label"])
    assert table.loc[("auroc", "Nodule"), "change"] == 0
    assert table.loc[("brier", "Nodule"), "before"] != table.loc[("brier", "Nodule"), "after"]
    refitted = read_operating_point(tmp_path / "out" / "thresholds_recalibrated.json")
    assert refitted.origin["tuned_on"] == "recalibration"
    fixed = read_operating_point(tmp_path / "out" / "thresholds.json")
    assert not np.array_equal(refitted.thresholds.values, fixed.thresholds.values)


def test_patients_of_the_training_are_refused_elsewhere(frozen: Path, tree: Path, tmp_path: Path) -> None:
    outcome = run_command("evaluate.py", f"ckpt={frozen}", "data=nih", f"data.root={tree}", f"out={tmp_path / 'out'}")
    assert outcome.code != 0
    assert "patients of nih trained or tuned the model (" in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_home_test_is_no_external_validation(frozen: Path, tree: Path, tmp_path: Path) -> None:
    arguments = (f"ckpt={frozen}", "data=nih", f"data.root={tree}", f"out={tmp_path / 'out'}")
    outcome = run_command("evaluate.py", *arguments, "part=test")
    assert outcome.code != 0
    assert f"this is no external validation. To evaluate it: python evaluate.py ckpt={frozen}" in outcome.err
    outcome = run_command("evaluate.py", *arguments)
    assert f": to evaluate its own test part: python evaluate.py ckpt={frozen}" in outcome.err
    assert "part=test" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_home_test_patients_among_the_external_ones_are_named(frozen: Path, tmp_path: Path) -> None:
    path = write_other(tmp_path / "other")
    table = pd.read_csv(path)
    split = read_checkpoint(frozen).metadata.read_split()
    table.loc[:2, "patient"] = split.loc[split["split"] == "test", "patient"].unique()[:3]
    table.to_csv(path, index=False)
    outcome = evaluate_on(path, frozen, tmp_path / "out", "data.name=nih")
    assert outcome.code == 0, outcome.err
    said = "3 of 60 external patients are home test patients"
    assert said in " ".join(outcome.out.split())
    changes = pd.read_csv(tmp_path / "out" / "eval_external.csv")
    assert changes[["change_low", "change_high"]].isna().all(axis=None)
    assert changes["reason"].str.contains(said).all()
    assert [said in text for text in build_external_section(changes, LABELS, "nih", said).concerns] == [True]


@pytest.mark.slow
def test_other_data_need_the_evaluation_at_home(frozen: Path, tmp_path: Path) -> None:
    folder = tmp_path / frozen.name
    shutil.copytree(frozen, folder, ignore=shutil.ignore_patterns("eval"))
    table = write_other(tmp_path / "other")
    outcome = evaluate_on(table, folder, tmp_path / "out")
    assert outcome.code != 0
    assert f"first run python evaluate.py ckpt={folder}" in outcome.err
    evaluate(folder, folder / "eval", "threshold_rule=youden")
    outcome = evaluate_on(table, folder, tmp_path / "out")
    assert "threshold_rule=f1_quantiles: at home it is youden, and stays so on other data" in outcome.err
    outcome = evaluate_on(table, folder, tmp_path / "out", "threshold_rule=youden")
    assert outcome.code == 0, outcome.err


# ----------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    "arguments",
    ["threshold_rule=sensitivity min_rate=0.9 calibration=none", "threshold_rule=youden calibration=temperature"],
)
def test_rules_and_calibrations(frozen: Path, tmp_path: Path, arguments: str) -> None:
    evaluate(frozen, tmp_path, *arguments.split())
    saved = json.loads((tmp_path / "thresholds.json").read_text())
    assert f"threshold_rule={saved['rule']}" in arguments
    assert (saved["calibration"] or {"method": "none"})["method"] in arguments
    recall = pd.read_csv(tmp_path / "eval_per_label_auroc.csv").query("split == 'val'")["recall"]
    if "sensitivity" in arguments:
        assert (recall >= 0.9).all()


def test_given_thresholds_stay_as_they_are(frozen: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"thresholds": dict.fromkeys(reversed(LABELS), 0.25)}))
    evaluate(frozen, tmp_path / "out", f"thresholds={tmp_path / 'mine.json'}")
    confusion = pd.read_csv(tmp_path / "out" / "confusion_template.csv")
    assert (confusion["threshold"] == 0.25).all()
    assert confusion["label"].tolist() == list(LABELS)
    outcome = run_command("evaluate.py", f"ckpt={frozen}", f"thresholds={tmp_path / 'mine.json'}", "calibration=none")
    assert "calibration=none and thresholds=FILE, which holds both, contradict" in outcome.err
    (tmp_path / "mine.json").write_text('{"thresholds": {"Mass": 0.2}}')
    outcome = run_command(
        "evaluate.py", f"ckpt={frozen}", f"thresholds={tmp_path / 'mine.json'}", f"out={tmp_path / 'not'}"
    )
    others = ", ".join(label for label in LABELS if label != "Mass")
    assert f"{others} have none: add a number, or null" in outcome.err


# ----------------------------------------------------------------------------- predictions of any program


def evaluate_table(predictions: Path, out: Path, *arguments: str) -> Outcome:
    return run_command("evaluate.py", f"predictions={predictions}", f"out={out}", *QUICK, *arguments)


def join_parts(frozen: Path, folder: Path) -> tuple[Path, Path]:
    """The predictions of a phase as another program would hand them over: scores, and a table of what is true."""
    parts = {part: read_predictions(frozen / "eval" / f"predictions_{part}.csv") for part in ("val", "test")}
    table = pd.concat([part.assign(split=name) for name, part in parts.items()]).sample(frac=1, random_state=0)
    scores = table[["image", *(f"prob_{label}" for label in reversed(LABELS))]]
    scores = scores.rename(columns=lambda name: name.removeprefix("prob_").lower())
    scores.to_csv(folder / "scores.csv", index=False, float_format="%.9g")
    truth = table[["image", "patient", "split", *(f"target_{label}" for label in LABELS)]]
    truth.rename(columns=lambda name: name.removeprefix("target_")).to_csv(folder / "truth.csv", index=False)
    return folder / "scores.csv", folder / "truth.csv"


def test_predictions_give_the_numbers_of_their_checkpoint(frozen: Path, tmp_path: Path) -> None:
    scores, truth = join_parts(frozen, tmp_path)
    probs = "{" + ",".join(f"{label}: {label.lower()}" for label in LABELS) + "}"
    outcome = evaluate_table(scores, tmp_path / "out", f"targets={truth}", f"columns.probs={probs}")
    assert outcome.code == 0, outcome.err
    for name in ("eval_metrics.csv", "eval_thresholds.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (frozen / "eval" / name).read_bytes(), name


def test_predictions_of_a_data_source(frozen: Path, tree: Path, tmp_path: Path) -> None:
    scores, _ = join_parts(frozen, tmp_path)
    outcome = evaluate_table(
        scores, tmp_path / "out", "data=nih", f"data.root={tree}", f"cache_dir={tmp_path / 'cache'}"
    )
    assert outcome.code == 0, outcome.err
    first, second = (pd.read_csv(folder / "eval_summary.csv") for folder in (tmp_path / "out", frozen / "eval"))
    pd.testing.assert_series_equal(first["auroc_macro"], second["auroc_macro"])
    assert first["split_hash"].tolist() == second["split_hash"].tolist()


def test_predictions_without_validation_have_no_thresholds(frozen: Path, tmp_path: Path) -> None:
    outcome = evaluate_table(frozen / "eval" / "predictions_test.csv", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    ours = pd.read_csv(frozen / "eval" / "eval_per_label_auroc.csv").query("split == 'test'")
    theirs = pd.read_csv(tmp_path / "out" / "eval_per_label_auroc.csv")
    assert theirs["split"].unique().tolist() == ["test"]
    np.testing.assert_array_equal(theirs["auroc"], ours["auroc"])
    assert theirs["f1"].isna().all()
    confusion = pd.read_csv(tmp_path / "out" / "confusion_template.csv")
    assert confusion["reason"].str.contains("there are no validation images").all()


def test_bad_predictions_are_a_line_that_names_rows(frozen: Path, tmp_path: Path) -> None:
    table = pd.read_csv(frozen / "eval" / "predictions_test.csv")
    table.loc[2, "prob_Mass"] = 1.7
    table.to_csv(tmp_path / "bad.csv", index=False)
    outcome = evaluate_table(tmp_path / "bad.csv", tmp_path / "out")
    assert outcome.code != 0
    assert outcome.err.count("\n") == 1
    assert "prob_Mass" in outcome.err
    assert "line 4" in outcome.err
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------- the report


def read_titles(folder: Path) -> str:
    page = (folder / "report.html").read_text()
    return " | ".join(re.findall(r"<h2[^>]*>([^<]*)</h2>", page))


@pytest.mark.slow
def test_the_report_has_all_that_was_measured(pair: tuple[Path, Path], tree: Path, tmp_path: Path) -> None:
    arguments = ("report=true", "localise=gradcam++", f"baseline={pair[0]}")
    evaluate(pair[1], tmp_path / "first", *arguments)
    titles = read_titles(tmp_path / "first")
    for title in ("Summary", "Calibration", "Thresholds", f"Change from {pair[0].name}", "Heatmaps"):
        assert title in titles
    changes = pd.read_csv(tmp_path / "first" / "eval_comparison.csv").set_index(["metric", "label"])
    aurocs = [pd.read_csv(folder / "eval" / "eval_summary.csv")["auroc_macro"][1] for folder in pair]
    assert changes.loc[("auroc", "macro"), "change"] == pytest.approx(aurocs[1] - aurocs[0])
    assert "a heatmap of 32 pixels is one cell" in (tmp_path / "first" / "report.html").read_text()
    evaluate(pair[1], tmp_path / "second", *arguments)
    for path in sorted((tmp_path / "first").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes(), path
    evaluate(pair[1], tmp_path / "first")  # nothing of an earlier evaluation stays
    assert {path.name for path in (tmp_path / "first").iterdir()} == TABLES


@pytest.mark.slow
def test_the_report_of_other_data(frozen: Path, tmp_path: Path) -> None:
    outcome = evaluate_on(write_other(tmp_path / "other"), frozen, tmp_path / "out", "recalibrate=true", "report=true")
    assert outcome.code == 0, outcome.err
    titles = read_titles(tmp_path / "out")
    assert "External validation on other | Recalibration" in titles
    summary = (tmp_path / "out" / "report.html").read_text().partition("<h2>Summary</h2>")[2]
    n_images = len(read_predictions(tmp_path / "out" / "predictions_external.csv"))
    assert n_images < 60
    assert f"{n_images} of 60 images (all of other): the others fitted the recalibration" in summary
    assert re.match(r"\s*<p>From home to other, macro AUROC .* changes by .*</p>", summary)
    assert "of another hospital" not in summary


@pytest.mark.slow
def test_a_baseline_on_another_split_is_refused(frozen: Path, regrouped: Path, tmp_path: Path) -> None:
    outcome = run_command("evaluate.py", f"ckpt={frozen}", f"baseline={regrouped}", f"out={tmp_path / 'out'}", *QUICK)
    assert outcome.code != 0
    assert "models are compared on one split" in outcome.err
    assert not (tmp_path / "out").exists()
