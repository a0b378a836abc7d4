"""What a network may start from: torchvision's file under its old and new names, and nothing that runs or grows."""

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
from torchvision.models import resnet18

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
