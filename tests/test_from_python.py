"""The example of docs/recipe.md, word for word, and what a notebook does with the classes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from tiny import REPO

from cxrlit import CXRDataModule, CXRModule
from cxrlit.core.errors import ConfigError

SMALL = {"n_patients": 30, "image_px": 64}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a small drawn set."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def datamodule(drawn: Path) -> CXRDataModule:
    return CXRDataModule.from_synthetic(SMALL, img_size=32, batch_size=16, cache_dir=drawn)


def make_trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet, **options)


@pytest.mark.slow
def test_the_example_of_the_docs_runs_as_it_stands(tmp_path: Path) -> None:
    [example] = re.findall(
        r"```python\n(from pytorch_lightning import Trainer\n.*?)```", (REPO / "docs" / "recipe.md").read_text(), re.S
    )
    shown = "print(sorted(trainer.callback_metrics), tuple(module.predictions['test'].probs.shape))\n"
    (tmp_path / "example.py").write_text(example + shown)  # the data are drawn anew: by processes, from a plain script
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "'test/auroc_macro'" in last
    assert "'test/loss'" in last
    assert ", 8)" in last


def test_positives_are_weighed_by_the_datamodule_where_it_is_asked_for(
    datamodule: CXRDataModule, tmp_path: Path
) -> None:
    module = CXRModule(labels=datamodule.labels, pos_weight_cap=3.0)
    make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0, enable_checkpointing=False).fit(
        module, datamodule
    )
    weight = module.loss.pos_weight  # type: ignore[attr-defined]
    assert weight.max() == 3
    assert len(weight) == 8


def test_a_checkpoint_of_a_training_is_a_module(frozen: Path, datamodule: CXRDataModule, tmp_path: Path) -> None:
    module = CXRModule.load_from_checkpoint(frozen / "best.ckpt", lr=3e-4)
    state = torch.load(frozen / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.copy_weights().items())
    assert module.lr == 3e-4
    datamodule.setup("predict")
    batches = make_trainer(tmp_path).predict(module, datamodule)
    assert batches is not None
    logits = torch.cat(batches)  # type: ignore[arg-type]
    assert logits.shape == (len(datamodule.parts["test"]), 8)


def test_labels_in_another_order_and_a_loss_that_is_none_are_a_line(datamodule: CXRDataModule, tmp_path: Path) -> None:
    module = CXRModule(labels=datamodule.labels[::-1])
    with pytest.raises(ConfigError, match=r"are not those of the datamodule, .*: CXRModule\(labels="):
        make_trainer(tmp_path, enable_checkpointing=False).fit(module, datamodule)
    with pytest.raises(ConfigError, match="loss='focal': it is a module"):
        CXRModule(loss="focal")  # type: ignore[arg-type]


def test_a_config_of_data_may_be_a_dict(drawn: Path) -> None:
    made = CXRDataModule.from_config({"source": "synthetic", **SMALL}, img_size=32, cache_dir=drawn)
    assert made.img_size == 32
    with pytest.raises(ConfigError, match="data=None: there is no such choice; it may be chexpert, "):
        CXRDataModule.from_config({}, cache_dir=drawn)


def test_hyperparameters_are_saved_with_lightnings_checkpoints(datamodule: CXRDataModule, tmp_path: Path) -> None:
    module = CXRModule(labels=datamodule.labels, lr=2e-3)
    assert dict(module.hparams)["lr"] == 2e-3


def test_a_setting_that_the_data_do_not_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.n_patient: there is no such key; did you mean data\.n_patients"):
        CXRDataModule.from_synthetic({"n_patient": 3}, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="augment=crp: there is no such choice; it may be crop, "):
        CXRDataModule.from_synthetic(SMALL, augment="crp", cache_dir=tmp_path)


def test_a_table_and_nihs_folder(tmp_path: Path, tree: Path) -> None:
    nih = CXRDataModule.from_nih(tree, img_size=32, cache_dir=tmp_path)
    assert nih.labels[0] == "Atelectasis"
    table = tree / "Data_Entry_2017_v2020.csv"
    settings = {"columns.image": "Image Index", "columns.patient": "Patient ID", "columns.findings": "Finding Labels"}
    own = CXRDataModule.from_table(table, {**settings, "root": str(tree / "images")}, img_size=32, cache_dir=tmp_path)
    assert len(own.data.index) == len(nih.data.index) == 50
