"""``cxrlit export``: a trained and evaluated phase becomes a bundle that predicts what the evaluation did."""

import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from bundles import fail_to_export
from hostile import Payload, write_member, write_pickle, write_whole
from lab import pretend_bf16

from cxrlit import Predictor
from cxrlit.commands.cli import main
from cxrlit.core.labels import LABELS
from cxrlit.handoff.bundle import SIZES, TABLES, read_bundle


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, frozen: Path, cache: Path) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    export(frozen, out, cache)
    yield out
    shutil.rmtree(out)


def export(ckpt: Path, out: Path, cache: Path, *settings: str) -> None:
    main(["export", str(ckpt), "--out", str(out), f"cache_dir={cache}", *settings])


def test_the_bundle_is_whole(exported: Path, frozen: Path) -> None:
    bundle = read_bundle(exported)
    record = json.loads((frozen / "phase.json").read_text())
    assert bundle.config.name == f"{frozen.name}/best.ckpt"
    assert bundle.config.format == 2  # which older versions read
    assert bundle.config.data.split_hash == record["split_hash"]
    assert [f"{phase.phase}-{phase.id}" for phase in bundle.config.members[0].phases] == [frozen.name]
    assert sum(part.images for part in bundle.config.data.parts.values()) == len(pd.read_csv(frozen / "split.csv"))
    for table in TABLES:
        assert bundle.contents[table] == (frozen / "eval" / table).read_bytes()
    point = json.loads((frozen / "eval" / "thresholds.json").read_text())
    assert bundle.config.operating_point == point
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=exported, check=True, capture_output=True)


def test_the_same_input_gives_the_same_bytes(exported: Path, tmp_path: Path, frozen: Path, cache: Path) -> None:
    export(frozen, tmp_path / "again", cache)
    for name in SIZES:
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name
    shutil.rmtree(tmp_path / "again")


def test_nothing_of_the_machine_is_in_it(exported: Path, tree: Path) -> None:
    for name in SIZES:
        content = (exported / name).read_bytes()
        assert str(tree).encode() not in content
        assert str(Path.home()).encode() + b"/" not in content


def measure_differences(bundle: Path, phase: Path, evaluation: str, tree: Path, backend: str, out: Path) -> float:
    """The largest difference of a prob, at the same batches and threads, between a bundle and an evaluation."""
    evaluated = pd.read_csv(phase / evaluation / "predictions_test.csv")
    files = {path.name: path for path in tree.rglob("*.png")}
    paths = [str(files[name]) for name in evaluated["image"]]
    threads = str(json.loads((phase / "phase.json").read_text())["threads"])
    main(["predict", str(bundle), *paths, "--out", str(out), "--backend", backend, "--threads", threads])
    columns = [f"prob_{label}" for label in LABELS]
    predicted = pd.read_csv(out)[columns].to_numpy(np.float32)
    return float(np.abs(predicted - evaluated[columns].to_numpy(np.float32)).max())


def test_it_predicts_what_the_evaluation_did(exported: Path, tmp_path: Path, frozen: Path, tree: Path) -> None:
    for backend, tolerance in (("torch", 0.0), ("onnx", 1e-5), ("openvino", 1e-5)):
        out = tmp_path / f"{backend}.csv"
        assert measure_differences(exported, frozen, "eval", tree, backend, out) <= tolerance


@pytest.mark.slow
def test_it_predicts_in_the_precision_of_its_evaluation(
    frozen_in_bf16: Path, cache: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which need not be that of the training; a CPU without bf16 takes fp32."""
    pretend_bf16(monkeypatch, True)
    for evaluation, precision in (("eval", "fp32"), ("eval-bf16", "bf16")):
        bundle, out = tmp_path / evaluation, tmp_path / f"{evaluation}.csv"
        export(frozen_in_bf16, bundle, cache, f"evaluation={frozen_in_bf16 / evaluation}")
        assert read_bundle(bundle).config.precision == precision
        trained = "Trained in bf16." if precision == "bf16" else "Trained in bf16, evaluated in fp32."
        assert trained in (bundle / "README.md").read_text()
        assert measure_differences(bundle, frozen_in_bf16, evaluation, tree, "torch", out) == 0
    pretend_bf16(monkeypatch, False)
    assert Predictor.load(bundle, "torch", n_threads=1).backend.precision == "fp32"


def test_an_evaluation_that_names_no_precision_had_that_of_the_training(
    frozen_in_bf16: Path, cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "eval"
    shutil.copytree(frozen_in_bf16 / "eval-bf16", other)
    summary = other / "eval_summary.csv"
    summary.write_text(summary.read_text().replace(" in bf16", ""))
    export(frozen_in_bf16, tmp_path / "bundle", cache, f"evaluation={other}")
    assert read_bundle(tmp_path / "bundle").config.precision == "bf16"


def test_the_card_says_what_the_tables_say(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    with (exported / "eval_summary.csv").open(newline="") as file:
        [test] = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert front["library_name"] == "cxrlit"
    [result] = front["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "roc_auc": float(test["auroc_macro"]), "f1": float(test["f1_macro"])
    }  # fmt: skip
    assert f"| AUROC, macro | {float(test['auroc_macro']):.3f} |" in card
    for heading in ("What it is for", "What it must not be used for", "Limits", "Data and split", "Performance"):
        assert f"## {heading}\n" in card
    assert test["split_hash"] in card


def test_what_was_not_evaluated_is_refused(
    tmp_path: Path, frozen: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "frozen-0"
    shutil.copytree(frozen, bare, ignore=shutil.ignore_patterns("eval"))
    said = fail_to_export(capsys, bare, "--out", tmp_path / "out", f"cache_dir={cache}")
    assert f"evaluate first: cxrlit evaluate ckpt={bare}" in said
    assert not (tmp_path / "out").exists()


def test_the_evaluation_of_another_checkpoint_is_refused(
    tmp_path: Path, frozen: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "eval"
    shutil.copytree(frozen / "eval", other)
    summary = other / "eval_summary.csv"
    summary.write_text(summary.read_text().replace(frozen.name, "frozen-00000000"))
    said = fail_to_export(capsys, frozen, "--out", tmp_path / "out", f"cache_dir={cache}", f"evaluation={other}")
    assert "the evaluation of another checkpoint" in said


def test_a_folder_that_is_there_stays(exported: Path, frozen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashlib.sha256((exported / "SHA256SUMS").read_bytes()).digest()
    assert "it exists" in fail_to_export(capsys, frozen, "--out", exported)
    assert hashlib.sha256((exported / "SHA256SUMS").read_bytes()).digest() == before


@pytest.mark.parametrize("kind", ["pickle", "sealed", "instantiator", "class path", "zip slip"])
def test_a_hostile_checkpoint_never_runs(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.ckpt"
    if kind == "pickle":
        write_pickle(path, Payload(canary))
    elif kind == "sealed":
        write_whole(path, {"cxrlit": {"format": 4}, "state_dict": Payload(canary)})
    elif kind == "zip slip":
        write_member(path, {"cxrlit": {"format": 4}}, "../../canary")
    else:
        key = "_instantiator" if kind == "instantiator" else "_class_path"
        write_whole(path, {"cxrlit": {"format": 4}, "state_dict": {}, key: "os.system"})
    assert str(path) in fail_to_export(capsys, path, "--out", tmp_path / "out")
    assert not canary.exists()
    assert not (tmp_path.parent / "canary").exists()
    assert not (tmp_path / "out").exists()
