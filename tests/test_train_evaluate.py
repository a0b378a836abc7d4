"""Training from end to end: what it writes, what it reuses, and that the numbers are the same again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lab import Lab, evaluate, read_times
from PIL import Image
from tiny import REPO, Outcome, plain_environment, run_command, write_tree

from cxrlit.core.files import hash_file
from cxrlit.core.labels import LABELS
from cxrlit.data.split import hash_split
from cxrlit.model.checkpoint import read_checkpoint
from cxrlit.model.densenet import build_network
from cxrlit.training.phase_folder import find_own_best

PHASE_FILES = {
    "best.ckpt", "last.ckpt", "config.yaml", "split.csv", "dropped.csv", "metrics.csv", "curves.png",
    "pos_weight.csv", "phase.json",
}  # fmt: skip


def assert_same_training(first: Path, second: Path) -> None:
    for name in ("metrics.csv", "split.csv", "pos_weight.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    one, two = (read_checkpoint(folder).weights for folder in (first, second))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


# ----------------------------------------------------------------------------- the smoke experiment


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The runs folder of ``experiment=smoke``, by the command in a process of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, str(REPO / "train.py"), "experiment=smoke", "trainer.precision=fp32", "evaluate=true"],
        cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, Outcome(done.returncode, done.stdout, done.stderr)


def test_smoke_trains_a_chain_of_whole_folders(smoke: tuple[Path, Outcome]) -> None:
    folder, outcome = smoke
    assert outcome.err == ""
    assert {path.name for path in folder.iterdir()} == {"runs", "cache"}
    phases = {path.name.partition("-")[0]: path for path in (folder / "runs" / "default").glob("*-*") if path.is_dir()}
    assert set(phases) == {"scratch", "frozen", "finetune"}
    for name, phase in phases.items():
        assert {path.name for path in phase.iterdir()} - {"log", "eval"} == PHASE_FILES
        assert not [path for path in phase.rglob(".*") if path.suffix != ".lock"]  # nothing half-written
        assert not list(phase.glob("resume-*"))
        facts = json.loads((phase / "phase.json").read_text())
        assert (facts["status"], facts["phase"], facts["id"]) == ("done", name, phase.name.partition("-")[2])
        assert facts["best_sha256"] == hash_file(phase / "best.ckpt")
        split = pd.read_csv(phase / "split.csv", dtype=str)
        assert split.columns.tolist() == ["image", "patient", "split"]
        assert set(split["split"]) == {"train", "val", "test"}
        assert split.groupby("patient")["split"].nunique().max() == 1
        assert hash_split(split) == facts["split_hash"]
        assert facts["split_hash"] in outcome.out
        metrics = pd.read_csv(phase / "metrics.csv")
        assert metrics["epoch"].tolist() == [1]
        assert not [column for column in metrics if column.startswith("train_auroc")]
        assert metrics["val_auroc_macro"][0] == facts["best_score"]
        weight = pd.read_csv(phase / "pos_weight.csv")
        assert weight.columns.tolist() == ["label", "positives", "negatives", "weight"]
        assert weight["label"].tolist() == list(LABELS)
        assert weight["weight"].between(0, 10).all()
        assert yaml.safe_load((phase / "config.yaml").read_text())["phases"][name]["img_size"] == 32
        with Image.open(phase / "curves.png") as curves:
            curves.verify()


def test_smoke_run_again_trains_nothing(smoke: tuple[Path, Outcome]) -> None:
    folder, first = smoke
    before = read_times(folder / "runs")
    folders = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    outcome = run_command("train.py", "experiment=smoke", "trainer.precision=fp32", *folders)
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.count("done") == 3
    assert "epoch" not in outcome.out.split("Trained:")[0].replace("1 epoch ", "")
    assert read_times(folder / "runs") == before
    trained = [
        next(line for line in text.splitlines() if line.startswith("Trained:")) for text in (first.out, outcome.out)
    ]
    assert trained[0].partition(" (")[2] == trained[1].partition(" (")[2]


def test_smoke_evaluation_is_what_training_measured(smoke: tuple[Path, Outcome]) -> None:
    folder, _ = smoke
    [phase] = (folder / "runs" / "default").glob("finetune-*/")
    best = json.loads((phase / "phase.json").read_text())["best_epoch"]
    summary = pd.read_csv(phase / "eval" / "eval_summary.csv").set_index("split")
    expected = pd.read_csv(phase / "metrics.csv").set_index("epoch").loc[best]
    assert summary.loc["val", "auroc_macro"] == pytest.approx(expected["val_auroc_macro"], abs=1e-12)
    assert summary.loc["val", "n_labels"] == expected["val_n_labels"]


# ----------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_workers_change_no_bit(lab: Lab, tmp_path: Path, precision: str) -> None:
    arguments = ("phase=scratch", "model.weights=none", f"trainer.precision={precision}")
    first = lab.train_well(*arguments)
    lab.runs = tmp_path / "other"
    second = lab.train_well(*arguments, "trainer.num_workers=2")
    assert first.name == second.name
    assert_same_training(first, second)


@pytest.mark.slow
def test_another_seed_is_another_training_on_the_same_split(lab: Lab, frozen: Path) -> None:
    second = lab.train_well("seed=1")
    assert second.name != frozen.name
    assert (second / "split.csv").read_bytes() == (frozen / "split.csv").read_bytes()
    assert (second / "metrics.csv").read_bytes() != (frozen / "metrics.csv").read_bytes()


def test_what_does_not_change_the_result_reuses_it(lab: Lab, frozen: Path) -> None:
    lab.runs = frozen.parents[1]
    before = read_times(frozen)
    for arguments in (["trainer.num_workers=1"], ["phases.highres.lr=1e-6"]):
        assert lab.train_well(*arguments) == frozen
    assert read_times(frozen) == before


@pytest.mark.slow
def test_a_phase_that_was_cut_off_starts_over(lab: Lab, frozen: Path) -> None:
    folder = lab.runs / "default" / frozen.name
    folder.mkdir(parents=True)
    (folder / "phase.json").write_text(json.dumps({"status": "running"}))
    (folder / "metrics.csv").write_text("half a fi")
    shutil.copy(frozen / "best.ckpt", folder / "best.ckpt")
    (folder / "best-v1.ckpt").write_text("junk")
    outcome = lab.train()
    assert outcome.code == 0
    assert "start over" in outcome.out
    assert_same_training(folder, frozen)
    assert {path.name for path in folder.iterdir()} == PHASE_FILES


def test_a_changed_checkpoint_is_not_reused(lab: Lab, frozen: Path) -> None:
    folder = lab.runs / "default" / frozen.name
    shutil.copytree(frozen, folder)
    content = bytearray((folder / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "best.ckpt").write_bytes(content)
    outcome = lab.train()
    assert outcome.code != 0
    assert outcome.err.startswith("error: ")
    assert "best.ckpt: it is not the file that training wrote" in outcome.err


def test_only_the_head_of_a_frozen_phase_differs_from_where_it_started(frozen: Path, weights: Path) -> None:
    start = build_network(str(weights), "imagenet", len(LABELS), seed=0).state_dict()
    trained = read_checkpoint(frozen).weights
    assert {name for name in start if not torch.equal(start[name], trained[name])} == {"head.weight", "head.bias"}


@pytest.mark.slow
def test_train_auroc_is_in_the_row_of_its_epoch(lab: Lab) -> None:
    outcome = lab.train("metrics.train=true", "max_epochs=2", "lr=1e-2")
    assert outcome.code == 0
    [folder] = lab.runs.glob("*/frozen-*/")
    metrics = pd.read_csv(folder / "metrics.csv")
    columns = [f"train_auroc_{name}" for name in ("macro", *LABELS)]
    assert metrics[columns].notna().all(axis=None)
    assert metrics["train_auroc_macro"].nunique() == 2
    for score in metrics["train_auroc_macro"]:
        assert f"  {score:.4f}" in outcome.out
    assert "train AUROC" in outcome.out


@pytest.mark.slow
def test_a_label_without_a_positive_in_training(tmp_path: Path, cache: Path, weights: Path) -> None:
    tree = write_tree(tmp_path / "nih", never=["Pneumonia"], seed=1)
    lab = Lab(tmp_path, cache, tree, weights)
    outcome = lab.train()
    assert outcome.code == 0
    assert "warning: there is no positive image of Pneumonia: not learned, not scored" in outcome.out
    assert outcome.out.count("warning:") == 1
    [folder] = lab.runs.glob("*/frozen-*/")
    evaluate(folder, folder / "eval")
    metrics = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    assert metrics["val_auroc_Pneumonia"][0] == ""
    assert metrics["val_n_labels"][0] == "7"
    weight = pd.read_csv(folder / "pos_weight.csv").set_index("label")
    assert weight.loc["Pneumonia", ["positives", "weight"]].tolist() == [0, 10]
    aurocs = pd.read_csv(folder / "eval" / "eval_per_label_auroc.csv", dtype=str, keep_default_na=False)
    rows = aurocs[aurocs["label"] == "Pneumonia"]
    assert rows[["auroc", "average_precision"]].to_numpy().tolist() == [["", ""]] * 2
    assert rows["reason"].str.startswith("no positive; no threshold: validation has no positive").all()
    confusion = pd.read_csv(folder / "eval" / "confusion_template.csv", dtype=str, keep_default_na=False)
    row = confusion.set_index("label").loc["Pneumonia"]
    assert set(row.drop("reason")) == {""}
    assert row["reason"] == "no threshold: validation has no positive"
    thresholds = json.loads((folder / "eval" / "thresholds.json").read_text())
    assert thresholds["thresholds"]["Pneumonia"] is None


@pytest.mark.slow
def test_a_label_that_no_training_image_knows(lab: Lab) -> None:
    outcome = lab.train("labels=[Mass,Fracture,Effusion,Lung Opacity]", "max_epochs=2")
    assert outcome.code == 0, outcome.err
    told = outcome.out.index(
        "warning: no training image has a known label for Fracture, Lung Opacity; their outputs stay untrained; "
        "labels=[Mass,Effusion] drops them"
    )
    assert told < outcome.out.index(" px, the head ─")  # where the phase begins
    [folder] = lab.runs.glob("*/frozen-*/")
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["val_n_labels"].tolist() == [2, 2]
    assert metrics[["val_auroc_Fracture", "val_auroc_Lung Opacity"]].isna().all(axis=None)
    assert metrics["val_auroc_macro"].notna().all()
    assert pd.read_csv(folder / "pos_weight.csv").set_index("label").loc["Fracture"].tolist() == [0, 0, 1]
    evaluate(folder, folder / "eval")
    aurocs = pd.read_csv(folder / "eval" / "eval_per_label_auroc.csv", dtype=str, keep_default_na=False)
    rows = aurocs[aurocs["label"] == "Fracture"]
    assert rows["auroc"].tolist() == [""] * 2
    assert rows["reason"].str.startswith("no known target; no threshold: validation has no known target").all()
    point = json.loads((folder / "eval" / "thresholds.json").read_text())
    assert (point["thresholds"]["Fracture"], point["calibration"]["slope"]["Fracture"]) == (None, None)
    for reasons in (point["reasons"], point["calibration"]["reasons"]):
        assert reasons["Fracture"] == "validation has no known target"


def test_labels_that_no_training_image_knows_are_refused_before_images_are_prepared(lab: Lab, tmp_path: Path) -> None:
    outcome = lab.train("labels=[Fracture]", f"cache_dir={tmp_path / 'empty'}")
    assert outcome.code == 2
    assert "no training image has a known label for Fracture: set labels to what these data have" in outcome.err
    assert not list(tmp_path.glob("empty/store"))


# ----------------------------------------------------------------------------- init_from


def test_init_from_a_checkpoint_cuts_the_chain(lab: Lab, frozen: Path) -> None:
    folder = lab.train_well("phase=finetune", f"init_from={frozen}", "n_unfreeze=10")
    assert lab.list_phases() == ["finetune"]
    before, after = read_checkpoint(frozen), read_checkpoint(folder)
    changed = {name for name in before.weights if not torch.equal(before.weights[name], after.weights[name])}
    last = "features.denseblock4.denselayer16"
    assert changed == {"head.weight", "head.bias", f"{last}.conv1.weight", f"{last}.conv2.weight"}
    assert after.metadata.history == [frozen.name]
    patients = before.metadata.trained_patients
    assert after.metadata.trained_patients == patients
    assert all(patient.startswith("nih/") for patient in patients)


@pytest.mark.slow
def test_init_from_goes_by_what_is_in_the_file(lab: Lab, frozen: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "copy.ckpt"
    other.parent.mkdir()
    shutil.copy(frozen / "best.ckpt", other)
    first = lab.train_well("phase=finetune", f"init_from={frozen / 'best.ckpt'}", "n_unfreeze=10")
    before = read_times(first)
    assert lab.train_well("phase=finetune", f"init_from={other}", "n_unfreeze=10") == first
    assert read_times(first) == before


def test_init_from_with_patients_that_would_leak_is_refused(lab: Lab, frozen: Path) -> None:
    arguments = ("phase=finetune", f"init_from={frozen}", "data.split=grouped", "data.split_seed=7")
    outcome = lab.train(*arguments)
    assert outcome.code != 0
    assert re.fullmatch(
        r"error: \d+ patients that the checkpoint was trained on are in the val part of this split "
        r"\((nih/\d+, ){4}nih/\d+( and \d+ more)?\): .*\n",
        outcome.err,
    ) or re.search(r"error: [1-5] patients .* \(nih/\d+", outcome.err)
    assert not lab.runs.exists()


@pytest.mark.slow
def test_the_ancestors_of_init_from_count(lab: Lab, frozen: Path) -> None:
    """Two steps away, the patients of the first training still may not validate."""
    child = lab.train_well("phase=finetune", f"init_from={frozen}", "n_unfreeze=0")
    outcome = lab.train("phase=highres", f"init_from={child}", "data.split_seed=7")
    assert outcome.code != 0
    assert re.match(r"error: \d+ patients that the checkpoint was trained on are in the val part", outcome.err)


def test_init_from_with_another_normalization_is_refused(lab: Lab, frozen: Path) -> None:
    outcome = lab.train("phase=finetune", f"init_from={frozen}", "model.normalize=unit")
    assert outcome.code != 0
    assert outcome.err.startswith("error: model.normalize=unit: ")


def test_init_from_a_phase_that_has_not_ended_is_refused(lab: Lab, frozen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(frozen, tmp_path / "cut off")
    state = folder / "phase.json"
    state.write_text(state.read_text().replace('"done"', '"running"'))
    outcome = lab.train("phase=finetune", f"init_from={folder}")
    assert outcome.code != 0
    assert "its phase is not finished" in outcome.err


@pytest.mark.slow
def test_what_a_finished_phase_came_from_is_not_trained_again(lab: Lab) -> None:
    goal = lab.train_well("model.weights=none", "phase=finetune")
    for folder in [*lab.runs.glob("*/scratch-*"), *lab.runs.glob("*/frozen-*")]:
        shutil.rmtree(folder)
    before = read_times(goal)
    assert lab.train_well("model.weights=none", "phase=finetune") == goal
    assert read_times(goal) == before
    assert lab.list_phases() == ["finetune"]


# ----------------------------------------------------------------------------- several processes


def run_slowly(*arguments: str, cwd: Path) -> Outcome:
    done = subprocess.run(
        [sys.executable, str(REPO / "train.py"), *arguments],
        cwd=cwd, env=plain_environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_a_sweep_trains_what_comes_before_it_once(lab: Lab, tmp_path: Path) -> None:
    settings = [setting for setting in lab.list_settings() if not setting.startswith("phase=")]
    sweep = ["-m", "phase=highres", "n_unfreeze=25,50", "lr=1e-5,5e-6", *lab.list_start()]
    folder = tmp_path / "cwd"
    folder.mkdir()
    outcome = run_slowly(*sweep, *settings, cwd=folder)
    assert outcome.code == 0, outcome.err
    assert lab.list_phases() == ["finetune", "frozen", *["highres"] * 4]
    assert not list(folder.iterdir())
    trained = [read_checkpoint(find_own_best(path)) for path in lab.runs.glob("*/highres-*/")]
    configs = [checkpoint.config.phases["highres"] for checkpoint in trained]
    assert {(config.n_unfreeze, config.lr) for config in configs} == {
        (n_unfreeze, lr) for n_unfreeze in (25, 50) for lr in (1e-5, 5e-6)
    }
    assert len({tuple(checkpoint.metadata.history) for checkpoint in trained}) == 1


@pytest.mark.slow
def test_a_sweep_with_a_bad_point_trains_nothing(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    outcome = run_slowly("-m", *lab.list_settings(), "lr=1e-3,20", *lab.list_start(), cwd=folder)
    assert outcome.code != 0
    assert outcome.err == "error: lr=20: input should be less than or equal to 10\n"
    assert not lab.runs.exists()
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_to_all_processes_saves_and_the_same_command_goes_on(
    lab: Lab, tmp_path: Path, signum: int, code: int
) -> None:
    settings = [*lab.list_settings(), "max_epochs=5", *lab.list_start(), "callbacks.early_stopping=null"]
    settings = [*settings, "trainer.num_workers=2"]
    command = [sys.executable, "-u", str(REPO / "train.py"), *settings]
    with subprocess.Popen(
        command, cwd=tmp_path, env=plain_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert next((line for line in process.stdout if line.startswith("epoch 2/5")), None)
        os.killpg(process.pid, signum)  # as a terminal and a scheduler do
        _, err = process.communicate(timeout=120)
    assert process.returncode == code
    found = re.fullmatch(
        rf"interrupted by {signal.Signals(signum).name}: saved at (epoch \d+, step \d+); the same command goes on\n",
        err,
    )
    assert found, err
    [folder] = lab.runs.glob("*/frozen-*/")
    assert json.loads((folder / "phase.json").read_text())["status"] == "running"
    outcome = lab.train(*settings)
    assert f"resume at {found[1]}" in outcome.out
    assert len(pd.read_csv(folder / "metrics.csv")) == 5
