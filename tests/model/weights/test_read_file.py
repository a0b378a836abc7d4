"""What a network may start from: torchvision's file under its old and new names, and nothing that runs or grows."""

import gzip
import pickle
import re
import shutil
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import densenet121, densenet169, resnet18

from cxrlit.core.errors import CheckpointError
from cxrlit.core.files import hash_file
from cxrlit.core.labels import LABELS
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.weights import locate
from cxrlit.model.weights.locate import IMAGENET_FILE
from cxrlit.model.weights.read_file import read_file


class Payload:
    """Pickled, it makes a file when it is loaded by what runs pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(densenet121(weights=None).state_dict())


def name_as_of_old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in torchvision's ImageNet file: ``denselayer1.norm.1.weight``, and no counts of batches."""
    return {
        re.sub(r"(denselayer\d+\.)(norm|conv)([12])\.", r"\1\2.\3.", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def assert_loaded(network: CXRNet, state: dict[str, Tensor]) -> None:
    for name, tensor in network.features.state_dict().items():
        assert torch.equal(tensor, state[f"features.{name}"]), name


@pytest.mark.parametrize("names", ["new", "old"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_features_of_torchvision_are_loaded(state: dict[str, Tensor], tmp_path: Path, names: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    saved = name_as_of_old(state) if names == "old" else state
    assert ("features.denseblock1.denselayer1.norm.1.weight" in saved) == (names == "old")
    if suffix == ".pth":
        torch.save(saved, path)
    else:
        save_file(saved, path)
    network = build_network(str(path), "imagenet", len(LABELS), seed=0)
    assert_loaded(network, state)
    assert torch.equal(
        network.head.weight, build_network("none", "imagenet", len(LABELS), seed=0).head.weight
    )  # the head is new


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.weights=.*nope\.pth: there is no such file"):
        build_network(str(tmp_path / "nope.pth"), "imagenet", len(LABELS), seed=0)


@pytest.mark.parametrize("damage", ["other network", "a tensor less", "other shape", "no features", "a list", "ours"])
def test_weights_that_do_not_fit_are_refused_in_one_line(state: dict[str, Tensor], tmp_path: Path, damage: str) -> None:
    content: Any = dict(state)
    if damage == "other network":
        content = resnet18(weights=None).state_dict()
    elif damage == "a tensor less":
        del content["features.norm5.weight"]
    elif damage == "other shape":
        content["features.norm5.weight"] = torch.zeros(3)
    elif damage == "no features":
        content = {}
    elif damage == "a list":
        content = [torch.zeros(3)]
    else:
        content = {"state_dict": content, "cxrlit": {"format": 1}}
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth: (not |a checkpoint of cxrlit, but its )") as fault:
        build_network(str(tmp_path / "weights.pth"), "imagenet", len(LABELS), seed=0)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 500


BROKEN = {
    "empty": b"",
    "text": b"hello, this is a text\n",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "zip magic": b"PK\x03\x04" + bytes(100),
    "pickle magic": b"\x80\x02",
    "torch magic": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "opcodes": b"\x80\x04}q\x00(X",
    "stack": b"0000.",
    "global": b"cos\nsystem\n(S'true'\ntR.",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_no_file_of_weights_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^this file: ") as fault:
        read_file(path, "this file")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused(tmp_path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = bytes(torch.randint(0, 256, (300,), generator=generator, dtype=torch.uint8).tolist())
    path = tmp_path / "weights.pth"
    path.write_bytes((b"", b"\x80\x02")[seed % 2] + noise)
    with pytest.raises(CheckpointError):
        read_file(path, "this file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_half_a_file_is_refused(state: dict[str, Tensor], tmp_path: Path, share: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save(dict(list(state.items())[:20]), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError):
        read_file(path, "this file")


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError):
        read_file(tmp_path / "weights.pth", "this file")


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_payload_does_not_run(tmp_path: Path, writer: str) -> None:
    path, canary, other = tmp_path / "weights.pth", tmp_path / "canary", tmp_path / "other"
    pickle.loads(pickle.dumps(Payload(other)))
    assert other.exists()  # it would run
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Payload(canary)))
    else:
        torch.save({"features.conv0.weight": Payload(canary)}, path)
    with pytest.raises(CheckpointError, match="refused"):
        build_network(str(path), "imagenet", len(LABELS), seed=0)
    assert not canary.exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not answer."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would remember the proxies of before


@pytest.mark.usefixtures("no_network")
def test_imagenet_without_network_says_which_file_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as fault:
        build_network("imagenet", "imagenet", len(LABELS), seed=0)
    assert IMAGENET_FILE in str(fault.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch keeps what it downloaded."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return folder


@pytest.mark.usefixtures("no_network")
def test_imagenet_is_taken_from_the_folder(
    state: dict[str, Tensor], tmp_path: Path, torch_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(name_as_of_old(state), tmp_path / "by hand.pth")
    digest = hash_file(tmp_path / "by hand.pth")[:8]  # as torchvision puts it into its file names
    monkeypatch.setattr(locate, "IMAGENET_FILE", f"densenet121-{digest}.pth")
    shutil.copy(tmp_path / "by hand.pth", torch_cache / locate.IMAGENET_FILE)
    assert_loaded(build_network("imagenet", "imagenet", len(LABELS), seed=0), state)


@pytest.mark.usefixtures("no_network")
def test_another_file_under_the_name_of_imagenet_is_refused(state: dict[str, Tensor], torch_cache: Path) -> None:
    torch.save(state, torch_cache / IMAGENET_FILE)
    with pytest.raises(CheckpointError, match="not the file of that name"):
        build_network("imagenet", "imagenet", len(LABELS), seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverged_are_refused(state: dict[str, Tensor], tmp_path: Path, value: float) -> None:
    name = "features.conv0.weight"
    torch.save({**state, name: torch.full_like(state[name], value)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        build_network(str(tmp_path / "weights.pth"), "imagenet", len(LABELS), seed=0)


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


@pytest.mark.parametrize("kind", ["int64", "complex", "sparse", "meta"])
def test_weights_that_are_no_dense_floats_are_refused(state: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    weight = state["features.norm5.weight"]
    odd = {
        "int64": lambda: weight.long(),
        "complex": lambda: weight.to(torch.complex64),
        "sparse": lambda: weight.to_sparse(),
        "meta": lambda: weight.to("meta"),
    }[kind]()
    torch.save({**state, "features.norm5.weight": odd}, tmp_path / "weights.pth")
    assert "norm5.weight is " in refuse(tmp_path / "weights.pth")


def test_half_precision_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    torch.save(halves, tmp_path / "weights.pth")
    network = build_network(str(tmp_path / "weights.pth"), "auto", len(LABELS), seed=0)
    assert torch.equal(network.features.conv0.weight, halves["features.conv0.weight"].float())


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
