"""Weights of other programs: the logits are those of the program that made them, on the same pixels."""

import copy
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchxrayvision as xrv
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import densenet121
from torchvision.models.densenet import DenseNet

from cxrlit.core.errors import CheckpointError, ConfigError
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.sources import NORMALIZE, XRV_SCALE
from cxrlit.model.weights.start import StartingWeights

N_OUTPUTS = 14


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def settle(network: nn.Module, pixels: Tensor) -> None:
    """Statistics that fit the pixels, as after a training."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.7
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        network(pixels)
    network.eval()


@pytest.fixture(scope="module")
def torchvision_net(images: Tensor) -> DenseNet:
    torch.manual_seed(1)
    network = densenet121(weights=None, num_classes=N_OUTPUTS)
    settle(network, normalize(images, "imagenet"))
    return network


@pytest.fixture(scope="module")
def xrv_net(images: Tensor) -> nn.Module:
    torch.manual_seed(2)
    network: nn.Module = xrv.models.DenseNet()
    settle(network, xrv_pixels(images))
    return network


def normalize(images: Tensor, how: Any) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZE[how])
    return (images.float().expand(-1, 3, -1, -1) / 255 - mean) / std


def xrv_pixels(images: Tensor) -> Tensor:
    """(B, 1, S, S) in [-1024, 1024], by torchxrayvision."""
    return torch.from_numpy(xrv.utils.normalize(images.numpy(), 255)).float()


def load(weights: str, n_outputs: int = N_OUTPUTS) -> tuple[CXRNet, StartingWeights]:
    """The network with features and head of a file."""
    start = open_weights(weights)
    network = build_network(weights, "auto", n_outputs, seed=0).eval()
    assert start.head is not None
    network.head.load_state_dict({"weight": start.head.weight, "bias": start.head.bias})
    return network, start


def assert_same_logits(network: nn.Module, images: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        made = network(images)
    assert made.shape == expected.shape
    assert expected.std() > 1e-3  # they tell images and labels apart
    assert (made - expected).abs().max() < 1e-5


def name_as_of_old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r"(layer\d+\.)(norm|conv)([12])\.", r"\1\2.\3.", name): tensor for name, tensor in state.items()}


def name_as_monai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {re.sub(r"(denselayer\d+\.)", r"\1layers.", name): tensor for name, tensor in state.items()}
    return {name.replace("classifier.", "class_layers.out."): tensor for name, tensor in renamed.items()}


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "data parallel": lambda state: with_prefix("module.", state),
    "wrapped": lambda state: {"model": state, "epoch": 3},
    "chexnet": lambda state: {
        "state_dict": with_prefix("module.densenet121.", name_as_of_old(state)),
        "epoch": 5,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    },
    "stanford": lambda state: {"model_state": with_prefix("module.model.", state), "ckpt_info": {"epoch": 1}},
    "encoder": lambda state: {"model": with_prefix("model.encoder.", state)},
    "lightning": lambda state: {
        "state_dict": with_prefix("model.", state),
        "hyper_parameters": {"lr": 1e-3},
        "callbacks": {"ModelCheckpoint": {"dirpath": Path("x")}},
    },
    "backbone": lambda state: with_prefix("backbone.", state),
    "monai": name_as_monai,
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_state_dict_gives_the_logits_of_torchvision(
    torchvision_net: DenseNet, images: Tensor, tmp_path: Path, kind: str
) -> None:
    torch.save(WRAPPED[kind](torchvision_net.state_dict()), tmp_path / "weights.pth")
    network, start = load(str(tmp_path / "weights.pth"))
    assert start.normalize == "imagenet"
    assert_same_logits(network, images, torchvision_net(normalize(images, "imagenet")).detach())


def test_safetensors_as_timm_publishes_them(torchvision_net: DenseNet, images: Tensor, tmp_path: Path) -> None:
    save_file(torchvision_net.state_dict(), tmp_path / "model.safetensors")
    network, _ = load(str(tmp_path / "model.safetensors"))
    assert_same_logits(network, images, torchvision_net(normalize(images, "imagenet")).detach())


def test_radimagenet_has_features_alone(torchvision_net: DenseNet, tmp_path: Path) -> None:
    state = with_prefix("backbone.0.", torchvision_net.features.state_dict())
    torch.save(state, tmp_path / "DenseNet121.pt")
    start = open_weights(str(tmp_path / "DenseNet121.pt"))
    assert (start.normalize, start.head, start.saw) == ("half", None, None)
    assert start.features is not None
    assert torch.equal(start.features["norm5.bias"], torchvision_net.features.norm5.bias)


def save_legacy(value: Any, path: Path) -> None:
    """As torch before 1.6 wrote it: classes with their source, and what a module of then had besides."""
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_module_of_torchxrayvision_gives_its_logits(
    xrv_net: nn.Module, images: Tensor, tmp_path: Path, save: Callable[[Any, Path], None]
) -> None:
    path = tmp_path / "chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    save(xrv_net, path)
    network, start = load(str(path), n_outputs=18)
    assert (start.normalize, start.saw) == ("half", ("chexpert",))
    assert_same_logits(network, images, xrv_net(xrv_pixels(images)).detach())
    assert start.features is not None
    folded, stem = start.features["conv0.weight"].double(), xrv_net.get_parameter("features.conv0.weight").double()
    assert ((folded.sum(1, keepdim=True) / XRV_SCALE - stem).abs() / stem.abs()).max() < 1e-6
    with pytest.raises(ConfigError, match=r"^model\.normalize=imagenet: .* was trained with half"):
        open_weights(str(path), "imagenet")


def test_a_one_channel_file_needs_a_word_on_its_pixels(xrv_net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    torch.save(xrv_net.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match=r"a stem of one channel, whose pixels are not known: model\.weights=xrv"):
        open_weights(str(tmp_path / "mine.pth"))
    with pytest.raises(ConfigError, match="these three differ: say half or unit"):
        open_weights(str(tmp_path / "mine.pth"), "imagenet")
    network, _ = load(f"xrv:{tmp_path / 'mine.pth'}", n_outputs=18)
    assert_same_logits(network, images, xrv_net(xrv_pixels(images)).detach())
    scaled = build_network(str(tmp_path / "mine.pth"), "unit", 18, seed=0)
    stem = xrv_net.get_parameter("features.conv0.weight")
    torch.testing.assert_close(scaled.features.conv0.weight.sum(1, keepdim=True), stem)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_pickled_torchvision_module_in_a_dict(
    torchvision_net: DenseNet, images: Tensor, tmp_path: Path, save: Callable[[Any, Path], None]
) -> None:
    network = copy.deepcopy(torchvision_net)
    network.classifier = nn.Sequential(network.classifier, nn.Sigmoid())  # type: ignore[assignment]
    save({"model": network, "best_loss": 0.1, "epoch": 3, "rng_state": torch.get_rng_state()}, tmp_path / "checkpoint")
    loaded, start = load(str(tmp_path / "checkpoint"))
    assert start.saw is None  # the class is torchvision's: anyone may have trained it on anything
    assert start.head is not None
    assert start.head.labels == ()
    assert_same_logits(loaded, images, torchvision_net(normalize(images, "imagenet")).detach())


@pytest.fixture
def jfhealthcare() -> Any:
    """Its classifier, without its weights; the import adds its folder to the path, and a module of the name model."""
    before, modules = list(sys.path), set(sys.modules)
    from torchxrayvision.baseline_models.jfhealthcare.model import classifier

    yield classifier
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "model":
            del sys.modules[name]


def test_features_of_jfhealthcare(images: Tensor, tmp_path: Path, jfhealthcare: Any) -> None:
    config = SimpleNamespace(
        backbone="densenet121", num_classes=[1] * 5, norm_type="BatchNorm", global_pool="AVG_MAX", fc_bn=True,
        attention_map="FPA", fc_drop=0, pretrained=False, lse_gamma=0.5,
    )  # fmt: skip
    torch.manual_seed(4)
    original = jfhealthcare.Classifier(config)
    pixels = (images.float().expand(-1, 3, -1, -1) - 128) / 64
    settle(original.backbone, pixels)
    torch.save(original.state_dict(), tmp_path / "pre_train.pth")
    start = open_weights(str(tmp_path / "pre_train.pth"))
    assert (start.normalize, start.saw, start.head) == ("jfhealthcare", None, None)
    network = build_network(str(tmp_path / "pre_train.pth"), "auto", 1, seed=0).eval()
    with torch.no_grad():
        assert (network.forward_features(images) - original.backbone(pixels)).abs().max() < 1e-4


OWN_NET = """
from torch import nn

class OwnNet(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.densenet = network
"""


@pytest.mark.slow
def test_a_pickled_module_of_others_is_refused_with_the_command_that_converts_it(
    torchvision_net: DenseNet, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_net.py").write_text(OWN_NET)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "it's mine.pth"
    torch.save({"model": importlib.import_module("own_net").OwnNet(torchvision_net), "epoch": 3}, path)
    with pytest.raises(CheckpointError) as fault:
        open_weights(str(path))
    message = str(fault.value)
    assert "\n" not in message
    assert "own_net.OwnNet, which would have to be imported" in message
    command = message[message.index("python -c ") :].replace("python -c ", f"{sys.executable} -c ", 1)
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path)
    network, _ = load(str(tmp_path / "it's mine-weights.pth"))
    assert_same_logits(network, images, torchvision_net(normalize(images, "imagenet")).detach())


class Caller:
    """Pickled, it calls a class with arguments of the file's choice."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_class_that_may_stand_in_a_module_is_not_called(
    xrv_net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Any, Path], None]
) -> None:
    """An allow-list of torchxrayvision's classes would unpickle the file that this names, and run it."""
    canary = tmp_path / "canary"
    name = "densenet121-res224-nih"
    evil = tmp_path / xrv.models.model_urls[name]["weights_url"].rpartition("/")[2]
    save_legacy(Caller(Path.touch, canary), evil)
    reader = Caller(xrv.models.DenseNet, 32, (6, 12, 24, 16), 64, 4, 0, 18, 1, name, str(tmp_path))
    module = copy.deepcopy(xrv_net)
    module.__dict__["reader"] = reader
    save(nn.DataParallel(module), tmp_path / "module.pt")
    with pytest.raises(Exception, match=r"."):
        torch.load(tmp_path / "module.pt", weights_only=False)
    assert canary.exists()  # it would run
    canary.unlink()
    start = open_weights(str(tmp_path / "module.pt"))
    assert start.features is not None
    assert not canary.exists()


def test_modules_in_each_other_without_end_are_refused(xrv_net: nn.Module, tmp_path: Path) -> None:
    inner: nn.Module = nn.Sequential(nn.Linear(1, 1))
    for _ in range(40):  # 2 ** 40 of them
        inner = nn.Sequential(inner, inner)
    torch.save(nn.ModuleDict({"features": inner}), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="too many modules in each other"):
        open_weights(str(tmp_path / "module.pt"))
