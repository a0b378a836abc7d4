"""What the tests of training share: a few random images, a Trainer that says nothing, the commands in this process."""

import io
import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig, TrainConfig
from cxrlit.core.labels import LABELS, NO_FINDING
from cxrlit.data.torch_datasets import Batch
from cxrlit.model.densenet import CXRNet
from cxrlit.model.module import CXRModule
from cxrlit.training.trainer import quiet_lightning

REPO = Path(__file__).resolve().parents[1]


class RandomImages(Dataset[Batch]):
    """Noise of 32 x 32 pixels; every label is present in every second image or so, the first two images differ."""

    def __init__(self, n_images: int = 16, seed: int = 0, constant: bool = False) -> None:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (n_images, 1, 32, 32), dtype=np.uint8)
        self.images = torch.from_numpy(np.full_like(images, 128) if constant else images)
        targets = rng.integers(0, 2, (n_images, len(LABELS))).astype(np.float32)
        targets[0], targets[1] = 0, 1
        self.targets = torch.from_numpy(targets)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Batch:
        return {"image": self.images[row], "target": self.targets[row], "row": torch.tensor(row)}


def make_loader(batch_size: int = 4, **options: Any) -> DataLoader[Batch]:
    return DataLoader(RandomImages(**options), batch_size=batch_size)


def make_module(**options: Any) -> CXRModule:
    return CXRModule(weights="none", **options)


def fit(module: CXRModule, callbacks: Iterable[Callback], max_epochs: int = 1, **options: Any) -> Trainer:
    """Train on random images, validate on others; nothing is written."""
    quiet_lightning()
    train, val = options.pop("train", None), options.pop("val", None)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, train or make_loader(), val or make_loader(seed=1))
    return trainer


def snapshot(network: CXRNet) -> dict[str, Tensor]:
    """Copies of every weight and buffer."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def list_changes(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors of which any bit changed."""
    return {name for name, tensor in after.items() if tensor.numpy().tobytes() != before[name].numpy().tobytes()}


def same_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Two state dicts have the same names and bits."""
    return one.keys() == two.keys() and not list_changes(one, two)


def write_tree(
    root: Path, *, n_patients: int = 50, never: Sequence[str] = (), seed: int = 0, table: bool = True
) -> Path:
    """Noise in NIH's layout, an image a patient, without official lists; each label in every third image or so."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for patient in range(n_patients):
        present = [label for label in LABELS if rng.random() < 1 / 3 and label not in never]
        rows.append((f"{patient:04d}.png", "|".join(present) or NO_FINDING, patient))
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / rows[-1][0])
    if table:
        columns = ["Image Index", "Finding Labels", "Patient ID"]
        pd.DataFrame(rows, columns=columns).to_csv(root / "Data_Entry_2017_v2020.csv", index=False)
    return root


@dataclass(frozen=True)
class Outcome:
    """What a command left behind on the screen."""

    code: int
    out: str
    err: str


def run_command(script: str, *arguments: str) -> Outcome:
    """Run ``train.py`` or ``evaluate.py`` as its user would, but in this process: a start takes seconds."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    threads = torch.get_num_threads()
    with patch.object(sys, "argv", [str(REPO / script), *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(REPO / script), run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    return Outcome(code, out.getvalue(), err.getvalue())


def launch_line(arguments: Sequence[str], name: str = "train") -> tuple[list[Any], Outcome]:
    """The checked config that a command line comes to, the plan where it is a sweep; nothing trains."""
    checked: list[Any] = []
    schema = {"train": TrainConfig, "evaluate": EvaluateConfig}[name]

    def run(composed: DictConfig) -> None:
        run_task(checked.append, composed, schema)

    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", [f"{name}.py", *arguments]),
        patch("cxrlit.sweeps.sweep.run_points", lambda multirun, plan: checked.append(plan)),
        patch("cxrlit.sweeps.ablation.run_points", lambda multirun, plan: checked.append(plan)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            launch(run, name, schema, print)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return checked, Outcome(code, out.getvalue(), err.getvalue())


def plain_environment(**changes: str) -> dict[str, str]:
    """The environment of a subprocess that a user starts."""
    return {**{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}, **changes}
