"""int8: how a network is quantised, the gate that it must pass, and what runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from bundles import (
    INT8_GRAPH,
    SIZE,
    draw_network,
    fail_to_export,
    make_config,
    make_images,
    quantise_network,
    write_bundle,
    write_images,
    write_int8_bundle,
)
from lab import Lab, evaluate, pretend_bf16
from tiny import write_tree

from cxrlit import Predictor
from cxrlit.commands.cli import main
from cxrlit.core.errors import BundleError, ConfigError
from cxrlit.core.labels import LABELS
from cxrlit.handoff.backends import choose_backend
from cxrlit.handoff.bundle import CONFIG, GRAPH, format_sums, list_sizes, read_bundle
from cxrlit.handoff.bundle_config import parse_config
from cxrlit.handoff.check_graph import check_graph
from cxrlit.handoff.int8 import gate
from cxrlit.handoff.int8.gate import average_agreement, compare_labels, describe_int8, find_failure
from cxrlit.handoff.int8.quantise import quantise_graph
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.read_operating_point import parse_operating_point


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that has int8, not to be changed."""
    return write_int8_bundle(tmp_path_factory.mktemp("int8") / "bundle")


@pytest.mark.slow
def test_the_same_images_give_the_same_bytes() -> None:
    assert quantise_graph(draw_network(), make_images(16)) == quantise_network()
    assert len(quantise_network()) < 0.4 * len(draw_network())


def spoil(change: Callable[[Any], Any]) -> bytes:
    model = onnx.load_model_from_string(quantise_network())
    change(model)
    content: bytes = model.SerializeToString()
    return content


def find(model: Any, operator: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == operator)


def find_scale(model: Any) -> Any:
    """The scale of the first activation."""
    name = find(model, "QuantizeLinear").input[1]
    return next(weight for weight in model.graph.initializer if weight.name == name)


def negate_scale(model: Any) -> None:
    find_scale(model).CopyFrom(onnx.numpy_helper.from_array(np.array(-1, np.float32), find_scale(model).name))


def lose_a_scale(model: Any) -> None:
    find_scale(model).CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), find_scale(model).name))


def widen_scale(model: Any) -> None:
    find_scale(model).CopyFrom(onnx.numpy_helper.from_array(np.ones(2, np.float32), find_scale(model).name))


def use_other_operator(model: Any) -> None:
    find(model, "QuantizeLinear").domain = "com.evil"


def read_otherwise(model: Any) -> None:
    """Dequantise by another scale than the one that quantised."""
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    pair = next(node for node in model.graph.node if node.input[0] == activations[0].output[0])
    pair.input[1] = activations[1].input[1]


def skip_a_convolution(model: Any) -> None:
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolutions[5].input[0] = convolutions[4].input[0]


def add_node(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Relu", ["logits"], ["more"], name="more"))


def point_outside(model: Any) -> None:
    find_scale(model).external_data.add(key="location", value="../../secret")


@pytest.mark.parametrize(
    "change",
    [negate_scale, lose_a_scale, widen_scale, use_other_operator, read_otherwise, skip_a_convolution, add_node,
     point_outside],
)  # fmt: skip
def test_a_graph_that_was_changed_is_refused(change: Callable[[Any], Any]) -> None:
    check_graph(quantise_network(), len(LABELS), SIZE, "int8", is_int8=True)
    with pytest.raises(BundleError, match=r"^int8: "):
        check_graph(spoil(change), len(LABELS), SIZE, "int8", is_int8=True)


def test_neither_graph_stands_in_for_the_other() -> None:
    for content, is_int8 in ((draw_network(), True), (quantise_network(), False)):
        with pytest.raises(BundleError, match="refused"):
            check_graph(content, len(LABELS), SIZE, "graph", is_int8=is_int8)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_graph_of_other_hands_is_refused(tmp_path: Path, backend: Any) -> None:
    folder = write_int8_bundle(tmp_path / "bundle", spoil(add_node))
    with pytest.raises(BundleError, match="not the graph"):
        Predictor.load(folder, backend, precision="int8")


def test_config_and_files_agree(tmp_path: Path) -> None:
    whole = write_int8_bundle(tmp_path / "whole")
    silent = write_int8_bundle(tmp_path / "silent")
    (silent / CONFIG).write_text(json.dumps(make_config()))
    lacking = write_bundle(tmp_path / "lacking")
    (lacking / CONFIG).write_bytes((whole / CONFIG).read_bytes())
    for folder, has_int8, said in ((silent, True, "says nothing of the int8"), (lacking, False, "names an int8")):
        files = {name: (folder / name).read_bytes() for name in list_sizes(1, has_int8)}
        (folder / "SHA256SUMS").write_text(format_sums(files))
        with pytest.raises(BundleError, match=said):
            read_bundle(folder)


def test_both_backends_run_it_and_say_so(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, probs = write_images(tmp_path / "in", 12), {}
    for backend, precision in (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "int8")):
        out = tmp_path / f"{backend}-{precision}.csv"
        main(["predict", str(bundle), *map(str, paths), "--out", str(out), "--backend", backend,
              "--precision", precision, "--threads", "1"])  # fmt: skip
        assert f"{precision}, 1 thread" in capsys.readouterr().out
        table = pd.read_csv(out)
        assert set(table["precision"]) == {precision}
        probs[backend, precision] = table[[f"prob_{label}" for label in LABELS]].to_numpy()
    exact = probs["onnx", "fp32"]
    assert 0 < np.abs(exact - probs["onnx", "int8"]).max() < 0.1
    assert np.abs(probs["onnx", "int8"] - probs["openvino", "int8"]).max() < 0.02


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_nothing_depends_on_the_batch_or_the_threads(bundle: Path, backend: Any) -> None:
    images = make_images(5)
    whole = Predictor.load(bundle, backend, precision="int8", n_threads=1).backend.run(images, False).logits
    shared = Predictor.load(bundle, backend, precision="int8", n_threads=3).backend
    parts = [shared.run(images[:2], False).logits, shared.run(images[2:], False).logits]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def make_point(labels: tuple[str, ...]) -> OperatingPoint:
    """Thresholds of 0.5, no calibration."""
    plain = make_config(labels)["operating_point"]
    halves = dict.fromkeys(labels, 0.5)
    plain |= {"calibration": None, "thresholds": halves, "f1_of_validation": halves, "reasons": {}}
    return parse_operating_point(plain, Path("config.json"))


def judge(n_images: int = 200, forced: bool = False, limit: float = 0.002, **changes: Any) -> Int8Record:
    """Two labels whose probs are in order, with changes to the probs in int8 of the first."""
    point = make_point(("Mass", "Nodule"))
    targets = np.tile(np.arange(n_images) % 2, (2, 1)).T.astype(np.float32)
    exact = (
        np.where(targets == 1, 0.8, 0.2).astype(np.float32) + np.linspace(0, 0.1, n_images, dtype=np.float32)[:, None]
    )
    quantised = exact.copy()
    quantised[:, 0] += changes.get("shift", 0)
    n_swapped = changes.get("swapped", 0)
    quantised[:n_swapped, 0] = 1 - quantised[:n_swapped, 0]
    labels = compare_labels(exact, quantised, targets, point)
    return Int8Record(
        onnxruntime="1", n_calibration=100, n_val=n_images, max_auroc_loss=limit, is_forced=forced,
        agreement=average_agreement(labels), labels=labels,
    )  # fmt: skip


def test_the_gate_judges_each_figure() -> None:
    assert find_failure(judge()) == ""
    assert "the largest loss of AUROC is 0.0000 over 2 labels (limit 0.002)" in describe_int8(judge())
    assert find_failure(judge(swapped=2)).startswith("Mass loses 0.0")
    assert find_failure(judge(swapped=2, limit=0.05)) == ""
    assert find_failure(judge(shift=0.4, limit=1)).startswith("75.0% of the decisions agree (limit 99%), fewest those")


def test_what_cannot_be_judged_takes_force() -> None:
    assert "--force takes it all the same" in find_failure(judge(98))
    assert find_failure(judge(98, forced=True)) == ""
    assert "was not judged (--force)" in describe_int8(judge(98, forced=True))
    said = find_failure(judge(98, forced=True, shift=0.006))
    assert said == (
        "Mass has too few cases to judge its AUROC, and its probability changes by 0.0060 on average (limit 0.005)"
    )


def test_auto_is_a_rule(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, int8 = make_config(), json.loads((bundle / CONFIG).read_text())
    in_bf16, forced = {**plain, "precision": "bf16"}, {**int8, "int8": {**int8["int8"], "is_forced": True}}
    for config, asked, installed, has_bf16, wanted in (
        (plain, None, "onnx openvino", False, ("onnx", "fp32", "auto: evaluated in fp32")),
        (plain, None, "openvino", False, ("openvino", "fp32", "auto: evaluated in fp32, onnx not installed")),
        (plain, None, "", True, ("torch", "fp32", "auto: evaluated in fp32, onnx and openvino not installed")),
        (in_bf16, None, "onnx", False, ("onnx", "fp32", "auto: evaluated in bf16, which this CPU would emulate")),
        (in_bf16, None, "onnx openvino", True, ("openvino", "bf16", "auto: evaluated in bf16")),
        (in_bf16, None, "onnx", True, ("torch", "bf16", "auto: evaluated in bf16, openvino not installed")),
        (int8, None, "onnx openvino", True, ("openvino", "int8", "auto: the bundle has int8 that passed its gate")),
        (int8, None, "", False, ("torch", "fp32", "auto: evaluated in fp32, onnx and openvino not installed")),
        (int8, "fp32", "onnx openvino", False, ("onnx", "fp32", "auto: the best backend in fp32")),
        (forced, None, "onnx openvino", False, ("onnx", "fp32", "auto: evaluated in fp32")),
        (plain, "int8", "", False, ("onnx", "int8", "auto: openvino not installed")),
    ):  # fmt: skip
        monkeypatch.setattr(
            choose_backend, "is_installed", lambda name, installed=installed: name in ("torch", *installed.split())
        )
        pretend_bf16(monkeypatch, has_bf16)
        parsed = parse_config(json.dumps(config).encode(), tmp_path)
        assert choose_backend.choose_backend(parsed, asked, "cpu") == wanted


def test_emulated_bf16_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_bf16(monkeypatch, False)
    with pytest.raises(ConfigError, match="this CPU would emulate it, more slowly than fp32"):
        Predictor.load(bundle, "torch", precision="bf16")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """A frozen phase with more than 100 training images, evaluated, and its cache."""
    folder = tmp_path_factory.mktemp("larger")
    lab = Lab(folder, folder / "cache", write_tree(folder / "tree", n_patients=250), weights)
    trained = lab.train_well()
    evaluate(trained, trained / "eval")
    return trained, folder / "cache"


@pytest.mark.slow
def test_it_is_in_the_bundle_by_force_where_no_label_can_be_judged(
    larger: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, cache = larger
    monkeypatch.setattr(gate, "MIN_AGREEMENT", 0.5)  # what was trained on noise has all its probs at the thresholds
    for options, name in (([], "without"), (["--force"], "forced"), (["--force"], "again")):
        main(["export", str(trained), "--out", str(tmp_path / name), f"cache_dir={cache}", "--int8", *options])
        said = capsys.readouterr().out
        assert "too few to judge" in said
        assert ("int8 is not in the bundle: no label has 50 positives and 50 negatives" in said) == (not options)
    assert read_bundle(tmp_path / "without").config.int8 is None
    assert not (tmp_path / "without" / INT8_GRAPH).exists()
    bundle = read_bundle(tmp_path / "forced")
    assert bundle.config.int8 is not None
    assert bundle.config.int8.is_forced
    assert bundle.config.int8.n_calibration >= 100
    card = (tmp_path / "forced" / "README.md").read_text()
    assert "int8 is in this bundle because its exporter forced it." in card
    for label in bundle.config.int8.labels:
        assert f"| {label.label} | {label.positives} | " in card
    for name in (INT8_GRAPH, CONFIG, GRAPH):
        assert (tmp_path / "forced" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_too_few_training_images_are_refused(
    frozen: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fail_to_export(capsys, frozen, "--out", tmp_path / "out", "--int8", f"cache_dir={cache}")
    assert "and 100 are needed to calibrate: export without --int8" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--force"], "--force goes with --int8"),
        (["--max-auroc-loss", "0.01"], "--max-auroc-loss goes with --int8"),
        (["--int8", "--max-auroc-loss", "2"], "max_auroc_loss"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in fail_to_export(capsys, tmp_path, "--out", tmp_path / "out", *options)
