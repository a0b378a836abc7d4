"""The precision of an evaluation: fp32 unless it is named, and told apart from that of the training."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import QUICK, evaluate, pretend_bf16
from tiny import run_command

from cxrlit.config import EvaluateConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.evaluation.compare.inputs import find_concerns, read_model_predictions
from cxrlit.evaluation.predict import predict_parts
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.macro import per_label
from cxrlit.model.checkpoint import read_checkpoint

SAID = "Validation macro AUROC is"


def read_validation(folder: Path) -> pd.Series:
    return pd.read_csv(folder / "eval_summary.csv").set_index("split").loc["val"]


def read_measured(folder: Path) -> float:
    """The validation macro AUROC of a phase's best epoch."""
    return float(json.loads((folder / "phase.json").read_text())["best_score"])


@pytest.mark.slow
def test_auto_trains_in_bf16_and_the_evaluation_is_in_fp32(frozen_in_bf16: Path, tmp_path: Path) -> None:
    assert json.loads((frozen_in_bf16 / "phase.json").read_text())["precision"] == "bf16"
    outcome = evaluate(frozen_in_bf16, tmp_path / "out", "report=true")
    for path in (frozen_in_bf16 / "eval").glob("*.csv"):  # of trainer.precision=fp32
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path
    row, measured = read_validation(tmp_path / "out"), read_measured(frozen_in_bf16)
    assert row["predicted"] == "one checkpoint on each image in fp32"
    page = " ".join(re.sub(r"<[^>]*>", " ", (tmp_path / "out" / "report.html").read_text()).split())
    for text in (page, " ".join(outcome.out.split())):  # of so few images the number may be the same
        assert (f"{SAID} {row['auroc_macro']:.4f} in fp32; the training" in text) == (row["auroc_macro"] != measured)
    assert "32 px, trained in bf16 " in page
    assert "precision of the predictions fp32 " in page


def test_in_the_precision_of_the_training_it_is_the_number_of_the_epoch(frozen_in_bf16: Path, tmp_path: Path) -> None:
    outcome = evaluate(frozen_in_bf16, tmp_path / "out", "trainer.precision=bf16")
    assert SAID not in outcome.out
    row = read_validation(tmp_path / "out")
    assert row["predicted"] == "one checkpoint on each image in bf16"
    assert row["auroc_macro"] == pytest.approx(read_measured(frozen_in_bf16), abs=1e-12)


@pytest.mark.parametrize("is_supported", [True, False])
def test_auto_goes_by_the_machine(
    frozen: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    """Also into which folder: thresholds of one precision do not take the place of those of the other."""
    pretend_bf16(monkeypatch, is_supported)
    folder = tmp_path / frozen.name
    shutil.copytree(frozen, folder, ignore=shutil.ignore_patterns("eval"))
    auto = ("trainer.precision=auto", "trainer.accelerator=cpu")
    outcome = run_command("evaluate.py", f"ckpt={folder}", f"cache_dir={cache}", *QUICK, *auto)
    assert outcome.code == 0, outcome.err
    made = folder / ("eval-bf16" if is_supported else "eval")
    assert [made] == list(folder.glob("eval*"))
    probs = [(folder / "predictions_test.csv").read_bytes() for folder in (made, frozen / "eval")]
    assert (probs[0] != probs[1]) == is_supported
    ending = " in bf16" if is_supported else ""
    assert set(pd.read_csv(made / "eval_summary.csv")["predicted"]) == {f"one checkpoint on each image{ending}"}


def test_other_data_in_bf16_need_thresholds_of_bf16(frozen: Path, tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / frozen.name
    shutil.copytree(frozen, folder)
    elsewhere = ("data=nih", f"data.root={tree}", f"out={tmp_path / 'out'}")
    outcome = run_command("evaluate.py", f"ckpt={folder}", *elsewhere, "trainer.precision=bf16")
    assert outcome.code != 0
    assert f"{folder / 'eval-bf16'}: " in outcome.err
    assert f"first run python evaluate.py ckpt={folder} trainer.precision=bf16" in outcome.err


def test_thresholds_of_an_older_evaluation_in_bf16_are_refused_on_other_data(
    frozen_in_bf16: Path, tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / frozen_in_bf16.name
    shutil.copytree(frozen_in_bf16, folder)
    summary = folder / "eval" / "eval_summary.csv"
    summary.write_text(summary.read_text().replace(" in fp32", ""))  # as it was written before it named a precision
    outcome = run_command("evaluate.py", f"ckpt={folder}", "data=nih", f"data.root={tree}", f"out={tmp_path / 'out'}")
    assert outcome.code != 0
    assert "its evaluation was made in bf16, and this one is in fp32" in outcome.err
    assert f"python evaluate.py ckpt={folder}" in outcome.err


def test_two_precisions_are_told_apart(frozen: Path, frozen_in_bf16: Path) -> None:
    def ask(baseline: Path, candidate: Path) -> bool:
        concerns = find_concerns(
            read_model_predictions(baseline, "test"), read_model_predictions(candidate, "test"), "test"
        )
        return any("predicted in different ways" in concern for concern in concerns)

    assert ask(frozen_in_bf16 / "eval", frozen_in_bf16 / "eval-bf16")
    assert ask(frozen / "eval", frozen_in_bf16 / "eval-bf16")
    assert not ask(frozen / "eval", frozen_in_bf16 / "eval")


@pytest.mark.slow
def test_of_a_trained_model_bf16_gives_the_auroc_of_fp32(tmp_path: Path) -> None:
    """Learnt logits are far apart, so that rounding exchanges few pairs; those of training images count, too."""
    outcome = run_command(
        "train.py", "phase=scratch", "model.weights=none", "trainer.precision=fp32", "max_epochs=10", "img_size=32",
        "batch_size=16", "augment=none", "callbacks.early_stopping=null", "data.n_patients=100", "data.image_px=64",
        "labels=[Effusion,Infiltration]", "logger=none", "trainer.num_workers=0",
        f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    [folder] = (tmp_path / "runs").glob("*/scratch-*/")
    settings = {"ckpt": str(folder), "cache_dir": str(tmp_path / "cache")}
    config = compose_defaults("evaluate", EvaluateConfig, settings)
    checkpoint = read_checkpoint(folder / "last.ckpt")
    data = load_internal([checkpoint], config)
    probs, areas = [], []
    for precision in ("fp32", "bf16"):
        machine = config.trainer.model_copy(update={"precision": precision})
        tables, _ = predict_parts(
            [checkpoint], data, ("train", "val", "test"), config.model_copy(update={"trainer": machine})
        )
        made, targets = split_arrays(pd.concat(tables.values()))
        probs.append(made)
        areas.append(per_label(auroc, made, targets))
    assert areas[0].min() > 0.7
    assert 0 < np.abs(probs[0] - probs[1]).max() < 0.05
    assert np.abs(areas[0] - areas[1]).max() < 0.002
