"""Weights that fit nothing, and files that would grow: what is said, and that nothing large is made."""

import gzip
import zipfile
from pathlib import Path

import pytest
import torch
from bombs import BOMBS, write_bomb
from torch import Tensor
from torchvision.models import densenet169, resnet18

from cxrlit.core.errors import CheckpointError
from cxrlit.core.labels import LABELS
from cxrlit.model.densenet import build_network
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.read_file import read_file


def refuse(path: Path) -> str:
    with pytest.raises(CheckpointError) as fault:
        build_network(str(path), "imagenet", len(LABELS), seed=0)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_what_was_found_and_what_it_is_nearest_to_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**state, "features.extra": torch.zeros(1)}, path)
    assert "tensors below 'features.', nearest to DenseNet121: it has besides extra" in refuse(path)
    torch.save(densenet169(weights=None).state_dict(), path)
    assert "nearest to DenseNet169" in refuse(path)
    torch.save(resnet18(weights=None).state_dict(), path)
    assert "found 122 tensors" in refuse(path)
    assert "nearest to a ResNet; looked for conv0.weight (64, 3 or 1, 7, 7)" in refuse(path)
    torch.save({"optimizer": {}, "epoch": 3}, path)
    assert "found a dict of 'epoch', 'optimizer'; looked for names and tensors" in refuse(path)
    torch.save({**state, "features.\n\x1b[2J": torch.zeros(1)}, path)
    assert r"has besides '\n\x1b[2J'" in refuse(path)
    both = {f"{half}.{key}": tensor for half in ("teacher", "student") for key, tensor in state.items()}
    torch.save(both, path)
    assert "not one network but several: teacher.features.conv0.weight, student.features.conv0.weight" in refuse(path)


def rewrite(source: Path, target: Path, compression: int, **changes: bytes) -> None:
    """The same archive with other members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, changes.get(member.rpartition("/")[2].replace(".", "_"), old.read(member)))


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    torch.save({"features.conv0.weight": torch.zeros(20_000_000)}, tmp_path / "plain.pth")
    rewrite(tmp_path / "plain.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 1_000_000
    assert "would become larger than they lie there" in refuse(tmp_path / "bomb.pth")


def test_a_tensor_that_is_larger_than_its_numbers_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    """A stride of 0 makes 8 TB of four bytes."""
    path = tmp_path / "weights.pth"
    torch.save({**state, "features.norm5.weight": torch.zeros(1).expand(1024, 2**31)}, path)
    assert "it has of other shapes norm5.weight (1024, 2147483648), not (1024,)" in refuse(path)


@pytest.mark.parametrize("kind", ["int64", "complex", "meta", "sparse"])
def test_weights_that_are_no_dense_floats_are_refused(state: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    weight = state["features.norm5.weight"]
    odd = {
        "int64": lambda: weight.long(),
        "complex": lambda: weight.to(torch.complex64),
        "sparse": lambda: weight.to_sparse(),
        "meta": lambda: weight.to("meta"),
    }[kind]()
    torch.save({**state, "features.norm5.weight": odd}, tmp_path / "weights.pth")
    said = "it lacks norm5.weight" if kind == "sparse" else "norm5.weight is "
    assert said in refuse(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("norm0.weight", torch.ones(1).expand(64), "features.norm0.weight repeats the same numbers"),
        ("norm0.running_var", torch.full((64,), -1.0), "features.norm0.running_var is below 0"),
        (
            "denseblock1.denselayer1.norm.1.weight",
            torch.ones(64),
            "features.denseblock1.denselayer1.norm1.weight twice",
        ),
    ],
)
def test_weights_that_no_training_leaves_are_refused(
    state: dict[str, Tensor], tmp_path: Path, name: str, tensor: Tensor, said: str
) -> None:
    torch.save({**state, f"features.{name}": tensor}, tmp_path / "weights.pth")
    assert said in refuse(tmp_path / "weights.pth")


def test_half_precision_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    torch.save(halves, tmp_path / "weights.pth")
    network = build_network(str(tmp_path / "weights.pth"), "auto", len(LABELS), seed=0)
    assert torch.equal(network.features.conv0.weight, halves["features.conv0.weight"].float())


@pytest.mark.slow
def test_a_pickle_of_millions_of_opcodes_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    many = b"\x80\x02" + b"]" * 4_500_000 + b"."
    rewrite(tmp_path / "plain.pth", tmp_path / "many.pth", zipfile.ZIP_STORED, data_pkl=many)
    assert "its pickle is larger than that of any file of weights" in refuse(tmp_path / "many.pth")


def test_a_far_memo_is_refused(tmp_path: Path) -> None:
    """C's unpickler would make room for 2**31 objects."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    far = b"\x80\x02}r\xff\xff\xff\x7f."
    rewrite(tmp_path / "plain.pth", tmp_path / "far.pth", zipfile.ZIP_STORED, data_pkl=far)
    assert "its pickle is larger than that of any file of weights" in refuse(tmp_path / "far.pth")


@pytest.mark.parametrize(
    "call", [b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", b"ctorch\nTensor\nM\xff\xffM\xff\xff\x86R."]
)
def test_what_is_as_large_as_a_number_says_is_not_made(tmp_path: Path, call: bytes) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    rewrite(tmp_path / "plain.pth", tmp_path / "large.pth", zipfile.ZIP_STORED, data_pkl=b"\x80\x02" + call)
    assert read_file(tmp_path / "large.pth", "this file") is None
    assert "not a state dict: found something else" in refuse(tmp_path / "large.pth")


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_the_memory_is_not_built(tmp_path: Path, name: str) -> None:
    write_bomb(tmp_path / "weights.pth", name)
    content = read_file(tmp_path / "weights.pth", "this file")
    assert content["a"] in (None, {})


def test_lists_in_each_other_are_not_shown(tmp_path: Path) -> None:
    """Sixty of them, each twice in the next, would be 2 ** 60 in words."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    nested = b"".join(b"](h%ch%ceq%c" % (place, place, place + 1) for place in range(60))
    pickled = b"\x80\x02]q\x00" + nested + b"."
    rewrite(tmp_path / "plain.pth", tmp_path / "laughs.pth", zipfile.ZIP_STORED, data_pkl=pickled)
    assert "not a state dict: found something else" in refuse(tmp_path / "laughs.pth")


def test_archives_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    (tmp_path / "weights.pth.gz").write_bytes(gzip.compress(b"weights"))
    assert "packed with gzip: unpack it" in refuse(tmp_path / "weights.pth.gz")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for member in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"script/{member}", "")
    assert "a TorchScript program" in refuse(tmp_path / "script.pt")


def test_a_stem_that_is_too_large_once_it_is_folded_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**state, "features.conv0.weight": torch.full((64, 1, 7, 7), 1e37)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"conv0.weight holds NaN or infinity"):
        open_weights(f"xrv:{tmp_path / 'weights.pth'}")
