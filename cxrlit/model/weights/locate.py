"""Find the file of weights: a path, or a name of torchvision, torchxrayvision or timm, downloaded on first use."""

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision.models import DenseNet121_Weights

from cxrlit.core.errors import CheckpointError, ConfigError, first_line
from cxrlit.core.extras import import_extra
from cxrlit.core.files import hash_file
from cxrlit.model.weights.sources import BY_NAME, KnownWeights

IMAGENET_URL: str = DenseNet121_Weights.IMAGENET1K_V1.url
IMAGENET_FILE = IMAGENET_URL.rpartition("/")[2]

XRV, TIMM = "xrv:", "timm:"


class Location(NamedTuple):
    """A file of weights.

    Attributes:
        path: The file.
        known: The known weights, if the requested name identifies them.
        is_xrv: Whether its network takes torchxrayvision's pixels, [-1024, 1024].
        labels: Labels of its head, in order, if the package knows them; empty text: an untrained output.
        note: Identifies, on the screen, a file without a published hash.
    """

    path: Path
    known: KnownWeights | None = None
    is_xrv: bool = False
    labels: tuple[str, ...] = ()
    note: str = ""


def locate(weights: str, what: str = "") -> Location:
    """Find the file of ``model.weights``; named weights are downloaded to torch's cache on first use.

    Args:
        weights: ``imagenet``, ``xrv:NAME``, ``xrv:FILE`` (a file in the format of torchxrayvision), ``timm:NAME``, or
            a file.
        what: Key and value, for messages; empty: ``model.weights``.

    Raises:
        CheckpointError: The file is missing or cannot be downloaded; the message says which file to put where.
        ConfigError: The name is unknown, or its package is not installed.
    """
    what = what or f"model.weights={weights}"
    if weights == "imagenet":
        digest = IMAGENET_FILE.removesuffix(".pth").rpartition("-")[2]
        return Location(fetch(what, IMAGENET_URL, IMAGENET_FILE, digest), BY_NAME["imagenet"])
    if weights.startswith(XRV):
        return _locate_xrv(weights, what)
    if weights.startswith(TIMM):
        return _locate_timm(weights, what)
    return Location(_find_file(weights, what))


def fetch(what: str, url: str, file_name: str, digest: str = "") -> Path:
    """Return a file in torch's cache, downloaded on first use.

    Args:
        what: Key and value that ask for it, for messages.
        url: Address to download from.
        file_name: Name in the cache.
        digest: First characters of its SHA-256, if known.

    Raises:
        CheckpointError: It cannot be downloaded, or its SHA-256 differs.
    """
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if path.is_file():
        if not hash_file(path).startswith(digest):
            raise CheckpointError(f"{what}: {path} is not the file of that name: remove it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest or None)
    except (OSError, RuntimeError) as error:  # no network is an OSError, a wrong hash a RuntimeError
        raise CheckpointError(
            f"{what}: {file_name} cannot be downloaded ({first_line(error)}): put the file from {url} "
            f"into {path.parent}{'' if url.endswith(f'/{file_name}') else f' as {file_name}'}"
            + (", or start from model.weights=none" if what.startswith("model.") else "")
        ) from None
    return path


def _locate_xrv(weights: str, what: str) -> Location:
    """Names, addresses and labels are torchxrayvision's; its loader, which runs code from files, is not used."""
    name = weights.removeprefix(XRV)
    if Path(name).expanduser().is_file():
        return Location(Path(name).expanduser(), is_xrv=True)
    xrv = _import("torchxrayvision", what, "xrv")
    short = name.removeprefix("densenet121-res224-")
    entry = xrv.models.model_urls.get(f"densenet121-res224-{short}")
    if entry is None:
        names = [key.removeprefix("densenet121-res224-") for key in xrv.models.model_urls if "densenet121-" in key]
        raise ConfigError(f"{what}: neither a file nor a DenseNet121 of torchxrayvision; it has {', '.join(names)}")
    url = entry["weights_url"]
    file_name = url.rpartition("/")[2]
    own = Path(xrv.utils.get_cache_dir()) / file_name
    path = own if own.is_file() else fetch(what, url, file_name)
    return Location(path, BY_NAME.get(f"{XRV}{short}"), True, tuple(entry["labels"]), _describe_file(path))


def _locate_timm(weights: str, what: str) -> Location:
    """Names and repositories are timm's; the file comes from Hugging Face, or the mirror in HF_ENDPOINT."""
    timm = _import("timm", what, "timm")
    name = weights.removeprefix(TIMM)
    names = timm.list_pretrained("densenet121*")
    if name not in names:
        raise ConfigError(f"{what}: not a DenseNet121 of timm; it has {', '.join(names)}")
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    url = f"{host}/{timm.models.get_pretrained_cfg(name).hf_hub_id}/resolve/main/model.safetensors"
    path = fetch(what, url, f"timm-{name}.safetensors")
    return Location(path, BY_NAME.get(weights), note=_describe_file(path))


def _describe_file(path: Path) -> str:
    return f"; {path.name}, SHA-256 {hash_file(path)[:12]}, not verified: its package publishes no hash"


def _import(package: str, what: str, extra: str) -> Any:
    with warnings.catch_warnings():  # torchxrayvision silences all warnings of the process
        return import_extra(package, extra, what)


def _find_file(name: str, what: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{what}: there is no such file; it may be imagenet, none, xrv:NAME, timm:NAME or a file")
    return path
