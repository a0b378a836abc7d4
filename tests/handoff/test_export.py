"""``cxrlit export``: a trained and evaluated phase becomes a bundle that predicts what the evaluation did."""

import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hostile import Payload, write_member, write_pickle, write_sealed

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
    assert bundle.config.data.split_hash == record["split_hash"]
    assert [f"{phase.phase}-{phase.id}" for phase in bundle.config.phases] == [frozen.name]
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


def test_it_predicts_what_the_evaluation_did(exported: Path, tmp_path: Path, frozen: Path, tree: Path) -> None:
    """To the bit, at the same batches, threads and precision."""
    evaluated = pd.read_csv(frozen / "eval" / "predictions_test.csv")
    files = {path.name: path for path in tree.rglob("*.png")}
    paths = [str(files[name]) for name in evaluated["image"]]
    threads = str(json.loads((frozen / "phase.json").read_text())["threads"])
    for backend, tolerance in (("torch", 0.0), ("onnx", 1e-5)):
        out = tmp_path / f"{backend}.csv"
        main(["predict", str(exported), *paths, "--out", str(out), "--backend", backend, "--threads", threads])
        predicted = pd.read_csv(out)
        for label in LABELS:
            mine = predicted[f"prob_{label}"].to_numpy(np.float32)
            assert np.abs(mine - evaluated[f"prob_{label}"].to_numpy(np.float32)).max() <= tolerance


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


def fail(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_what_was_not_evaluated_is_refused(
    tmp_path: Path, frozen: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "frozen-0"
    shutil.copytree(frozen, bare, ignore=shutil.ignore_patterns("eval"))
    said = fail(capsys, bare, "--out", tmp_path / "out", f"cache_dir={cache}")
    assert f"evaluate first: python evaluate.py ckpt={bare}" in said
    assert not (tmp_path / "out").exists()


def test_the_evaluation_of_another_checkpoint_is_refused(
    tmp_path: Path, frozen: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "eval"
    shutil.copytree(frozen / "eval", other)
    summary = other / "eval_summary.csv"
    summary.write_text(summary.read_text().replace(frozen.name, "frozen-00000000"))
    said = fail(capsys, frozen, "--out", tmp_path / "out", f"cache_dir={cache}", f"evaluation={other}")
    assert "the evaluation of another checkpoint" in said


def test_a_folder_that_is_there_stays(exported: Path, frozen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashlib.sha256((exported / "SHA256SUMS").read_bytes()).digest()
    assert "it exists" in fail(capsys, frozen, "--out", exported)
    assert hashlib.sha256((exported / "SHA256SUMS").read_bytes()).digest() == before


@pytest.mark.parametrize("kind", ["pickle", "sealed", "instantiator", "class path", "zip slip"])
def test_a_hostile_checkpoint_never_runs(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.ckpt"
    if kind == "pickle":
        write_pickle(path, Payload(canary))
    elif kind == "sealed":
        write_sealed(path, {"cxrlit": {"format": 4}, "state_dict": Payload(canary)})
    elif kind == "zip slip":
        write_member(path, {"cxrlit": {"format": 4}}, "../../canary")
    else:
        key = "_instantiator" if kind == "instantiator" else "_class_path"
        write_sealed(path, {"cxrlit": {"format": 4}, "state_dict": {}, key: "os.system"})
    assert str(path) in fail(capsys, path, "--out", tmp_path / "out")
    assert not canary.exists()
    assert not (tmp_path.parent / "canary").exists()
    assert not (tmp_path / "out").exists()
