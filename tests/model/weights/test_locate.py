"""Weights by name: the address is the package's, the file goes into torch's cache, and nothing is asked twice."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torchxrayvision as xrv
from safetensors.torch import save_file
from torchvision.models import densenet121

from cxrlit.core.errors import CheckpointError, ConfigError
from cxrlit.core.files import hash_file
from cxrlit.model.weights.locate import locate
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.sources import KNOWN, tabulate_known

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch and torchxrayvision, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


def test_a_name_of_torchxrayvision_is_downloaded_once(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = caches / "served" / "chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    served.parent.mkdir()
    torch.manual_seed(0)
    torch.save(xrv.models.DenseNet(), served)
    entry = xrv.models.model_urls["densenet121-res224-chex"]
    monkeypatch.setitem(entry, "weights_url", served.as_uri())
    start = open_weights("xrv:chex")
    assert (start.normalize, start.saw) == ("half", ("chexpert",))
    assert f"; {served.name}, SHA-256 {hash_file(served)[:12]}, not verified: " in start.note
    assert start.head is not None
    assert start.head.labels == tuple(entry["labels"])
    shutil.rmtree(served.parent)
    assert open_weights("xrv:densenet121-res224-chex").saw == ("chexpert",)
    assert locate("xrv:chex").path == caches / "torch" / "hub" / "checkpoints" / served.name


def test_what_torchxrayvision_has_downloaded_is_taken(caches: Path) -> None:
    entry = xrv.models.model_urls["densenet121-res224-pc"]
    there = caches / "home" / ".torchxrayvision" / "models_data" / entry["weights_url"].rpartition("/")[2]
    there.parent.mkdir(parents=True)
    there.write_bytes(b"1")
    assert locate("xrv:pc").path == there


@pytest.mark.usefixtures("caches")
def test_without_network_the_address_and_the_place_are_said() -> None:
    with pytest.raises(CheckpointError) as fault:
        locate("xrv:mimic_ch")
    address = xrv.models.model_urls["densenet121-res224-mimic_ch"]["weights_url"]
    assert f"put the file from {address} into {os.environ['TORCH_HOME']}/hub/checkpoints" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.usefixtures("caches")
def test_a_name_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"it has all, nih, pc, chex, rsna, mimic_nb, mimic_ch$"):
        locate("xrv:resnet50-res512-all")


@pytest.mark.parametrize(("package", "extra"), [("torchxrayvision", "xrv"), ("timm", "timm")])
@pytest.mark.usefixtures("caches")
def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}: pip install 'cxrlit\[{extra}\]'"):
        locate(f"{extra}:all")


def test_a_name_of_timm_comes_from_the_mirror(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    served = caches / "hub" / "timm" / "densenet121.ra_in1k" / "resolve" / "main" / "model.safetensors"
    served.parent.mkdir(parents=True)
    save_file(densenet121(weights=None).state_dict(), served)
    monkeypatch.setenv("HF_ENDPOINT", (caches / "hub").as_uri())
    start = open_weights("timm:densenet121.ra_in1k")
    assert (start.normalize, start.saw) == ("imagenet", ())
    assert "timm-densenet121.ra_in1k.safetensors, SHA-256 " in start.note
    assert locate("timm:densenet121.ra_in1k").path.name == "timm-densenet121.ra_in1k.safetensors"
    with pytest.raises(ConfigError, match=r"it has densenet121\.ra_in1k, densenet121\.tv_in1k"):
        locate("timm:resnet50")


def test_the_names_of_torchxrayvision_are_in_the_table() -> None:
    """Which data sets each one saw is stated here, and its files are known by their names."""
    known = {one.name: one for one in KNOWN if one.name.startswith("xrv:")}
    names = {name for name in xrv.models.model_urls if name.startswith("densenet121-res224-")}
    assert {f"xrv:{name.removeprefix('densenet121-res224-')}" for name in names} == set(known)
    for name in names:
        one = known[f"xrv:{name.removeprefix('densenet121-res224-')}"]
        url = xrv.models.model_urls[name]["weights_url"]
        assert url.rpartition("/")[2] == one.files.replace("\\", "")
        assert ("nih" in one.saw) == (one.name in ("xrv:all", "xrv:nih", "xrv:rsna"))


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    assert tabulate_known() in (REPO / "docs" / "weights.md").read_text()
