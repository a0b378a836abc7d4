"""What several test modules share: small data sets in NIH's layout, and the real one where a folder is named."""

import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from lab import Lab, evaluate, pretend_bf16
from omegaconf import OmegaConf
from tiny import write_tree
from torchvision.models import densenet121
from trees import write_nih_tree

from cxrlit.config import NIHData
from cxrlit.core.files import open_regular
from cxrlit.core.labels import LABELS
from cxrlit.data.sources.nih import read_labels
from cxrlit.data.tables import csv_rows, open_table

TreeWriter = Callable[..., Path]
ConfigMaker = Callable[..., NIHData]


@pytest.fixture
def make_nih_tree(tmp_path: Path) -> TreeWriter:
    """Writes a tree of its own for each call, into ``nih/`` or the folder that ``name`` says."""

    def make(name: str = "nih", **options: Any) -> Path:
        return write_nih_tree(tmp_path / name, **options)

    return make


@pytest.fixture
def nih_tree(make_nih_tree: TreeWriter) -> Path:
    """40 patients in two folders with the v2020 table and the official lists; the test may change it."""
    return make_nih_tree()


@pytest.fixture
def make_nih_config() -> ConfigMaker:
    """The defaults of ``data=nih`` with a root and with changes."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        values = OmegaConf.to_container(compose("prepare", overrides=["data=nih"]).data)

    def make(root: Path, **changes: Any) -> NIHData:
        return NIHData.model_validate({**values, "root": str(root), **changes})

    return make


def find_folder(variable: str, needed: str) -> Path:
    """The folder that an environment variable names; skips the test where it names none."""
    if variable not in os.environ:
        pytest.skip(f"{variable} names no folder with {needed}")
    folder = Path(os.environ[variable])
    assert (folder / needed).is_file(), f"{variable}={folder}: there is no {needed} in it"
    return folder


@pytest.fixture(scope="session")
def nih_sample() -> Path:
    """Folder of 1,000 real radiographs with NIH's label table and the whole official lists."""
    return find_folder("CXRLIT_NIH_SAMPLE", "Data_Entry_2017_v2020.csv")


@pytest.fixture(scope="session")
def nih_table() -> pd.DataFrame:
    """The whole real label table, read: 112,120 rows of 30,805 patients."""
    return read_labels(
        find_folder("CXRLIT_NIH_TABLES", "Data_Entry_2017_v2020.csv.gz") / "Data_Entry_2017_v2020.csv.gz", LABELS
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights to start from, in place of ImageNet's: the chain starts at frozen."""
    path = tmp_path_factory.mktemp("weights") / "densenet.pth"
    torch.manual_seed(0)
    torch.save(densenet121(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "nih")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def lab(tmp_path: Path, cache: Path, tree: Path, weights: Path) -> Lab:
    return Lab(tmp_path, cache, tree, weights)


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """A frozen phase that is not to be changed, with its evaluation."""
    folder = Lab(tmp_path_factory.mktemp("frozen"), cache, tree, weights).train_well()
    evaluate(folder, folder / "eval")
    return folder


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """Another frozen phase on the split of ``frozen``, not to be changed, with its evaluation."""
    folder = Lab(tmp_path_factory.mktemp("second"), cache, tree, weights).train_well("seed=1", "lr=1e-2")
    evaluate(folder, folder / "eval")
    return folder


@pytest.fixture(scope="session")
def frozen_in_bf16(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """A frozen phase of ``auto`` on a CPU with bf16, not to be changed, with an evaluation in each precision."""
    lab = Lab(tmp_path_factory.mktemp("bf16"), cache, tree, weights)
    with pytest.MonkeyPatch.context() as patch:
        pretend_bf16(patch, True)
        folder = lab.train_well("trainer.precision=auto", "trainer.accelerator=cpu")
    for precision, name in (("fp32", "eval"), ("bf16", "eval-bf16")):
        evaluate(folder, folder / name, f"trainer.precision={precision}")
    return folder


@pytest.fixture
def table_opens(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The tables that are opened, in order; each is removed at once, so that nothing else can read it."""
    opened = []

    def open_and_remove(path: Path) -> BufferedReader:
        opened.append(path)
        file = open_regular(path)
        path.unlink()
        return file

    for module in (csv_rows, open_table):
        monkeypatch.setattr(module, "open_regular", open_and_remove)
    return opened
