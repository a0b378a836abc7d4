"""Bundles of random networks, made in a second, and files to predict."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cxrlit.commands.cli import main
from cxrlit.core.labels import LABELS
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION
from cxrlit.handoff.bundle import (
    CARD,
    CONFIG,
    GRAPH,
    SUMS,
    TABLES,
    WEIGHTS,
    format_sums,
    list_sizes,
    name_int8_files,
    name_member_files,
)
from cxrlit.handoff.bundle_config import FORMAT, MEAN_FORMAT
from cxrlit.handoff.int8.quantise import quantise_graph
from cxrlit.handoff.onnx_export import make_graph
from cxrlit.handoff.ood_check import make_reference
from cxrlit.handoff.safetensors_file import pack_weights
from cxrlit.model.densenet import CXRNet, build_network

SIZE = 32
[INT8_GRAPH] = name_int8_files(1)


def make_network(labels: tuple[str, ...] = LABELS, seed: int = 0) -> CXRNet:
    """Random, with BatchNorms that have seen something: a fold that were wrong would show."""
    network = build_network("none", "imagenet", len(labels), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return network.eval()


@cache
def pack_network(seed: int = 0) -> bytes:
    return pack_weights(make_network(seed=seed), LABELS)


@cache
def draw_network(seed: int = 0) -> bytes:
    return make_graph(make_network(seed=seed), SIZE)


@cache
def quantise_network() -> bytes:
    return quantise_graph(draw_network(), make_images(16))


def make_images(n_images: int, size: int = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    """(N, S, S): a bright middle between two dark fields, and noise."""
    rng = np.random.default_rng(seed)
    x = np.abs(np.linspace(-1, 1, size))
    chest = 60 + 140 * (np.abs(x - 0.5) > 0.3)
    noise = rng.normal(0, 12, (n_images, size, size))
    return np.clip(chest[None, None] + noise + rng.normal(0, 6, (n_images, 1, 1)), 0, 255).astype(np.uint8)


def make_config(labels: tuple[str, ...] = LABELS) -> dict[str, Any]:
    """The last label has no threshold, the first no calibration."""
    thresholds: dict[str, float | None] = dict.fromkeys(labels, 0.4)
    thresholds[labels[-1]] = None
    slope: dict[str, float | None] = dict.fromkeys(labels, 0.8)
    slope[labels[0]] = None
    intercept = {label: None if slope[label] is None else -0.3 for label in labels}
    reference = make_reference(make_images(40), make_images(40, seed=1))
    settings = {
        "img_size": SIZE,
        "batch_size": 4,
        "lr": 0.001,
        "n_unfreeze": 0,
        "batch_norm": "frozen",
        "max_epochs": 1,
    }
    return {
        "format": FORMAT,
        "name": "frozen-1a2b3c4d/best.ckpt",
        "architecture": "densenet121",
        "labels": list(labels),
        "preprocessing": {
            "version": PREPROCESSING_VERSION, "img_size": SIZE, "resize": "pad", "normalize": "imagenet"
        },
        "precision": "fp32",
        "batch_size": 4,
        "operating_point": {
            "rule": "f1_quantiles", "wanted": None, "tuned_on": "val", "split_name": "official",
            "split_hash": "4f1c2d9a8b7e", "checkpoint": "frozen-1a2b3c4d/best.ckpt",
            "calibration": {
                "method": "platt", "slope": slope, "intercept": intercept, "reasons": {labels[0]: "no positive"}
            },
            "thresholds": thresholds, "f1_of_validation": thresholds, "reasons": {labels[-1]: "no positive"},
        },
        "input_check": reference.model_dump(),
        "phases": [{"phase": "frozen", "id": "1a2b3c4d", "settings": settings}],
        "epoch": 1,
        "monitor": "val/auroc_macro",
        "score": 0.7,
        "data": {
            "name": "nih", "fingerprint": "0" * 64, "split_name": "official", "split_hash": "4f1c2d9a8b7e",
            "parts": {"train": {"images": 40, "patients": 20}},
        },
        "versions": {"cxrlit": "0.1.0"},
    }  # fmt: skip


def make_mean_config(n_members: int, tta: str = "none", average: str = "probs") -> dict[str, Any]:
    """Of several networks or views."""
    config = make_config()
    own = {key: config.pop(key) for key in ("phases", "epoch", "monitor", "score")}
    members = [{"name": f"frozen-0000000{number}/best.ckpt", **own} for number in range(n_members)]
    return {**config, "format": MEAN_FORMAT, "name": "ensemble-1a2b3c4d", "members": members, "tta": tta,
            "average": average}  # fmt: skip


def write_mean_bundle(folder: Path, n_members: int, tta: str = "none", average: str = "probs") -> Path:
    """A bundle of the networks of ``make_network(seed=0)``, ``make_network(seed=1)``, ..."""
    config = make_mean_config(n_members, tta, average)
    members = {}
    for seed, (weights, graph) in enumerate(name_member_files(n_members)):
        members |= {weights: pack_network(seed), graph: draw_network(seed)}
    write_bundle(folder, config=json.dumps(config).encode())
    for name, content in members.items():
        (folder / name).write_bytes(content)
    seal(folder, n_members)
    return folder


def seal(folder: Path, n_members: int = 1) -> None:
    """Make the sums right again: whoever changes a bundle can compute them."""
    files = {name: (folder / name).read_bytes() for name in list_sizes(n_members)}
    (folder / SUMS).write_text(format_sums(files))


def write_int8_bundle(folder: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """A bundle that has int8.

    Args:
        folder: Where.
        graph: Other bytes than those of ``quantise_network``.
        **changes: Of what the config says of it.
    """
    labels = [
        {"label": label, "positives": 60, "negatives": 60, "auroc_fp32": 0.8, "auroc_int8": 0.799, "mean_change": 0.001,
         "agreement": 0.995}
        for label in LABELS
    ]  # fmt: skip
    record = {"onnxruntime": "1.32.0", "n_calibration": 256, "n_val": 120, "max_auroc_loss": 0.002, "is_forced": False,
              "agreement": 0.995, "labels": labels}  # fmt: skip
    write_bundle(folder, change=lambda config: config.update(int8={**record, **changes}))
    (folder / INT8_GRAPH).write_bytes(graph or quantise_network())
    files = {name: (folder / name).read_bytes() for name in list_sizes(1, has_int8=True)}
    (folder / SUMS).write_text(format_sums(files))
    return folder


def write_bundle(
    folder: Path,
    *,
    change: Callable[[dict[str, Any]], Any] | None = None,
    **contents: bytes,
) -> Path:
    """A bundle whose sums are right, whatever it holds.

    Args:
        folder: Where.
        change: Changes the config.
        **contents: Other bytes: ``graph``, ``weights``, ``config``, ``card``.
    """
    config = make_config()
    if change is not None:
        change(config)
    files = {
        CONFIG: contents.get("config", json.dumps(config).encode()),
        WEIGHTS: contents.get("weights") or pack_network(),
        GRAPH: contents.get("graph") or draw_network(),
        CARD: contents.get("card", b"# A model\n"),
        **dict.fromkeys(TABLES, b"split\ntest\n"),
    }
    folder.mkdir(parents=True)
    for name, content in {**files, SUMS: format_sums(files).encode()}.items():
        (folder / name).write_bytes(content)
    return folder


def write_images(folder: Path, n_images: int, size: int = 48) -> list[Path]:
    """Radiographs of a kind, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(n_images)]
    for path, pixels in zip(paths, make_images(n_images, size, seed=7), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def fail_to_export(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line that ``cxrlit export`` ends in."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line
