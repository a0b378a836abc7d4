"""A bundle is whole, unchanged and what it says, or it is refused by name before anything of it is used."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles import SIZE, draw_network, make_config, make_network, pack_network, seal, write_bundle, write_images
from hostile import Payload
from safetensors.torch import load, save

from cxrlit import Predictor
from cxrlit.core.errors import BundleError, CXRLitError
from cxrlit.core.labels import LABELS
from cxrlit.handoff.bundle import SIZES, SUMS, read_bundle
from cxrlit.handoff.onnx_export import make_graph
from cxrlit.handoff.safetensors_file import pack_weights


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_whole_bundle_is_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read.config.preprocessing.img_size == SIZE
    assert read.point.labels == read.labels
    assert set(read.contents) == set(SIZES)


@pytest.mark.parametrize("name", [*SIZES, SUMS])
def test_a_changed_byte_is_refused(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=name if name != SUMS else "sums|changed"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [*SIZES, SUMS])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: No such file"):
        read_bundle(bundle)


def test_what_a_download_leaves_beside_the_files_does_no_harm(bundle: Path) -> None:
    (bundle / ".gitattributes").write_text("*.onnx filter=lfs\n")
    (bundle / ".cache").mkdir()
    read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.update(format=9), "format 9; this version of cxrlit reads 2 and 3"),
        (lambda config: config.update(format=True), "a bundle of format True"),
        (lambda config: config["preprocessing"].update(version=99), "preprocessing of version 99"),
        (lambda config: config.update(_target_="os.system"), "_target_: Extra inputs"),
        (lambda config: config["data"].update(_target_="os.system"), "data._target_: Extra inputs"),
        (lambda config: config.update(architecture="resnet50"), "architecture"),
        (lambda config: config["preprocessing"].update(img_size=10**9), "img_size"),
        (lambda config: config.update(batch_size=10**9), "batch_size"),
        (lambda config: config["labels"].append("Hernia"), "Hernia has none"),
        (lambda config: config.update(labels=["Mass", "Mass"]), "twice"),
        (lambda config: config.update(labels=["<script>"]), "labels.0: String should match"),
        (lambda config: config["operating_point"]["thresholds"].update(Mass=2.0), "thresholds.Mass"),
        (lambda config: config["operating_point"]["calibration"]["slope"].update(Mass=-1.0), "slope.Mass"),
        (lambda config: config["input_check"].update(histogram=[0.0]), "histogram"),
        (lambda config: config.pop("labels"), "labels: Field required"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path: Path, change: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        read_bundle(write_bundle(tmp_path / "bundle", change=change))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"format": NaN}', b'{"format": "1"}'])
def test_a_config_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        read_bundle(write_bundle(tmp_path / "bundle", config=content))


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_labels_that_do_not_match_the_weights_are_refused(tmp_path: Path, backend: Any) -> None:
    other = make_network(("Mass", "Nodule"))
    for number, files in enumerate(
        [{"weights": pack_weights(other, ("Mass", "Nodule"))}, {"graph": make_graph(other, SIZE)}]
    ):
        if backend == "torch" and "graph" in files:
            continue  # it is not used
        folder = write_bundle(tmp_path / f"bundle{number}", **files)
        with pytest.raises(BundleError, match="labels"):
            Predictor.load(folder, backend)


def test_the_order_of_the_labels_is_that_of_the_weights(tmp_path: Path) -> None:
    content = json.dumps({**make_config(), "labels": LABELS[::-1]}).encode()
    with pytest.raises(BundleError, match="not those of the config, in their order"):
        Predictor.load(write_bundle(tmp_path / "bundle", config=content), "onnx")


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    content = json.dumps(make_config()).replace('"labels":', '"labels": ["Mass"], "labels":').encode()
    with pytest.raises(BundleError, match="the key 'labels' is there twice"):
        read_bundle(write_bundle(tmp_path / "bundle", config=content))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = load(pack_network())
    state["features.conv0.weight"] = state["features.conv0.weight"][:, :1].contiguous()
    with pytest.raises(BundleError, match="not the weights of a network of 8 labels"):
        Predictor.load(write_bundle(tmp_path / "a", weights=save(state)), "torch")
    state = load(pack_network())
    state["features.conv0.weight"][0] = float("nan")
    with pytest.raises(CXRLitError, match="NaN"):
        Predictor.load(write_bundle(tmp_path / "b", weights=save(state)), "torch")


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_pickle_in_the_place_of_the_weights_never_runs(tmp_path: Path, backend: Any) -> None:
    canary = tmp_path / "canary"
    folder = write_bundle(tmp_path / "bundle", weights=pickle.dumps(Payload(canary)))
    with pytest.raises(BundleError, match=r"model\.safetensors: no"):
        Predictor.load(folder, backend)
    assert not canary.exists()


def spoil_graph(change: Callable[[Any], Any]) -> bytes:
    model = onnx.load_model_from_string(draw_network())
    change(model)
    content: bytes = model.SerializeToString()
    return content


def point_outside(model: Any) -> None:
    """A weight that is another file of this machine."""
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")


def hide_weights(model: Any) -> None:
    """The same inside of a node's attribute."""
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL, dims=[1], data_type=1)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))


def rename_operator(model: Any) -> None:
    model.graph.node[5].op_type = "PyOp"


def add_domain(model: Any) -> None:
    model.graph.node[5].domain = "com.evil"


def nest_graph(model: Any) -> None:
    graph = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node[5].attribute.append(onnx.helper.make_attribute("then_branch", graph))


def grow(model: Any) -> None:
    """Four times as much with each node, of operators that a network has too."""
    for number in range(14):
        node = onnx.helper.make_node("Concat", [model.graph.node[-1].output[0]] * 4, [f"x{number}"], axis=0)
        model.graph.node.append(node)


def stretch(model: Any) -> None:
    """The same by a weight."""
    next(weight for weight in model.graph.initializer if weight.name == "mean").dims[:] = [3, 1, 1, 1]


def change_operators(model: Any) -> None:
    """Another version of them."""
    model.opset_import[0].version = 13


def cut_weights(model: Any) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == "conv0.weight")
    weight.raw_data = weight.raw_data[:-1]


def break_weights(model: Any) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == "conv0.weight")
    weight.raw_data = np.full(len(weight.raw_data) // 4, np.nan, np.float32).tobytes()


def add_function(model: Any) -> None:
    model.functions.append(onnx.FunctionProto(name="f", domain="d"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (point_outside, "refused: its weights lie in another file"),
        (hide_weights, "refused: it is not the graph"),
        (rename_operator, "refused: it is not the graph"),
        (add_domain, "refused: it is not the graph"),
        (nest_graph, "refused: it is not the graph"),
        (grow, "refused: it is not the graph"),
        (stretch, "refused: it is not the graph"),
        (change_operators, "refused: it is not the graph"),
        (add_function, "refused: it holds more"),
        (cut_weights, "conv0.weight: "),
        (break_weights, "conv0.weight has values that are not finite numbers"),
    ],
)
def test_a_graph_that_is_more_than_a_network_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    folder = write_bundle(tmp_path / "bundle", graph=spoil_graph(change))
    with pytest.raises(BundleError, match=said):
        Predictor.load(folder, "onnx")


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"\0" * 1000, bytes(range(256)) * 4])
def test_a_graph_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Predictor.load(write_bundle(tmp_path / "bundle", graph=content), "onnx")


def test_a_link_in_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "config.json").rename(tmp_path / "elsewhere.json")
    (bundle / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="a link, and not a file"):
        read_bundle(bundle)


def test_a_file_of_ten_gigabytes_is_refused_unread(bundle: Path) -> None:
    with (bundle / "model.safetensors").open("r+b") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(BundleError, match="larger than 64 MiB"):
        read_bundle(bundle)


def test_a_pipe_in_a_bundle_is_refused_and_not_waited_for(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    with pytest.raises(BundleError, match="not a file"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "line", ["", "x" * 70, f"{'0' * 64}  ../../etc/passwd", f"{'0' * 64}  config.json", f"{'0' * 64}  more.bin"]
)
def test_sums_of_other_files_are_refused(bundle: Path, line: str) -> None:
    (bundle / SUMS).write_text((bundle / SUMS).read_text() + line + "\n")
    with pytest.raises(BundleError, match="these are not the sums"):
        read_bundle(bundle)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match="no bundle: it has no SHA256SUMS"):
        read_bundle(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="not whole"):
        read_bundle(tmp_path)
    (tmp_path / "phase.json").write_text("{}")
    with pytest.raises(BundleError, match=f"a phase folder, not a bundle: cxrlit export {tmp_path} --out DIR makes"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="a file, not a bundle"):
        read_bundle(tmp_path / "phase.json")


def test_a_config_may_be_changed_where_it_says_so(bundle: Path) -> None:
    """Sums that are right again are those of another bundle: its digest differs."""
    before = read_bundle(bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["operating_point"]["thresholds"]["Mass"] = 0.9
    (bundle / "config.json").write_text(json.dumps(config))
    seal(bundle)
    after = read_bundle(bundle)
    assert after.digest != before.digest
    assert after.point.thresholds.values[after.labels.index("Mass")] == 0.9


def test_torch_outside_has_its_own_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    Predictor.load(write_bundle(tmp_path / "bundle"), "torch", n_threads=before + 1).predict(write_images(tmp_path, 1))
    assert torch.get_num_threads() == before
