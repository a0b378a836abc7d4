"""A package of an extra that is not there is one line, which names the extra: of every extra, in processes of their own
that cannot import it.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import write_bundle
from dicoms import make_dicom
from pydicom.uid import JPEG2000Lossless
from tiny import REPO, plain_environment

SITE = '''
import os, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    """Finds modules as Python does, but for some packages, as where they are not installed."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        is_missing = name.partition(".")[0] in os.environ["WITHOUT"].split(",")
        return None if is_missing else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
'''

RUN_ALL = """
import contextlib, io, json, sys
from cxrlit.commands.cli import main

said = []
for arguments in json.loads(sys.argv[1]):
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["cxrlit", *arguments]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            main(arguments)
            code = 0
        except SystemExit as stop:
            code = stop.code
    said.append([code, err.getvalue(), out.getvalue()])
print(json.dumps(said))
"""

SMOKE = ["experiment=smoke", "data.n_patients=24", "data.seed=7"]
LAUNCH = ["train", "-m", *SMOKE, "lr=1e-3,1e-4"]
PARQUET = ["train", "data=table", "data.table=labels.parquet", "data.patient=image"]

PREDICT = ["predict", "bundle", "a.dcm", "--out", "a.csv"]
DEMO = ["demo", "bundle", "--port", "0"]

COMMANDS: dict[str, tuple[list[str], str, str]] = {
    "tensorboard": (["train", *SMOKE, "logger=tensorboard"], "logger.tensorboard", "tensorboard"),
    "wandb": (["train", *SMOKE, "logger=wandb"], "logger.wandb", "wandb"),
    "mlflow": (["train", *SMOKE, "logger=mlflow"], "logger.mlflow", "mlflow"),
    "sqlalchemy": (["train", *SMOKE, "logger=mlflow"], "logger.mlflow", "mlflow"),
    "alembic": (["train", *SMOKE, "logger=mlflow"], "logger.mlflow", "mlflow"),
    "pyarrow": (PARQUET, "labels.parquet: Parquet", "parquet"),
    "onnxruntime": ([*PREDICT, "--backend", "onnx"], "backend=onnx", "onnx"),
    "onnx": ([*PREDICT, "--backend", "onnx"], "model.onnx", "onnx"),
    "openvino": ([*PREDICT, "--backend", "openvino"], "backend=openvino", "openvino"),
    "optuna": (["train", "-m", *SMOKE, "hydra/sweeper=optuna"], "hydra/sweeper=optuna", "sweeps"),
    "submitit": ([*LAUNCH, "hydra/launcher=submitit_local"], "hydra/launcher=submitit_local", "slurm"),
    "ray": ([*LAUNCH, "hydra/launcher=ray"], "hydra/launcher=ray", "ray"),
    "torchxrayvision": (["train", *SMOKE, "model.weights=xrv:chex"], "model.weights=xrv:chex", "xrv"),
    "timm": (
        ["train", *SMOKE, "model.weights=timm:densenet121.ra_in1k"],
        "model.weights=timm:densenet121.ra_in1k",
        "timm",
    ),
    "starlette": (DEMO, "cxrlit demo", "demo"),
    "uvicorn": (DEMO, "cxrlit demo", "demo"),
    "h11": (DEMO, "cxrlit demo", "demo"),
}
"""By the module that is missing: a command, what the line says needs it, and its extra."""

SECOND = ("sqlalchemy", "alembic", "onnx", "uvicorn", "h11")
"""Modules that are asked for after another one of their extra."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what the commands name; nothing else comes to be in it."""
    folder = tmp_path_factory.mktemp("extras")
    write_bundle(folder / "bundle")
    (folder / "labels.parquet").write_bytes(b"PAR1")
    (folder / "a.dcm").write_bytes(make_dicom(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), JPEG2000Lossless))
    return folder


def run_without(
    packages: list[str], program: list[str], folder: Path, site: Path
) -> "subprocess.CompletedProcess[str]":
    (site / "sitecustomize.py").write_text(SITE)
    environment = plain_environment(WITHOUT=",".join(packages), PYTHONPATH=f"{site}:{REPO}", OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, *program], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def describe(name: str) -> str:
    _, needed_by, extra = COMMANDS[name]
    return f"error: {needed_by} needs {name}: pip install 'cxrlit[{extra}]'"


@pytest.mark.slow
def test_without_any_extra_each_command_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    chosen = {name: COMMANDS[name] for name in COMMANDS if name not in SECOND}
    arguments = json.dumps([*(arguments for arguments, _, _ in chosen.values()), PREDICT])
    done = run_without([*COMMANDS, "imagecodecs"], ["-c", RUN_ALL, arguments], folder, tmp_path)
    assert done.returncode == 0, done.stderr
    *said, predicted = json.loads(done.stdout.splitlines()[-1])
    for name, (code, err, _) in zip(chosen, said, strict=True):
        assert err.replace(f"{folder}/", "").splitlines() == [describe(name)]
        assert code == 2
    # A file of many that cannot be read has a reason.
    assert "a.dcm: a compressed DICOM image needs imagecodecs: pip install 'cxrlit[dicom]'" in predicted[2]
    (folder / "a.csv").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_one_package_that_is_missing_is_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    arguments, _, _ = COMMANDS[name]
    done = run_without([name], ["-m", "cxrlit", *arguments], folder, tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.replace(f"{folder}/", "") == f"{describe(name)}\n"
    assert not (folder / "a.csv").exists()
