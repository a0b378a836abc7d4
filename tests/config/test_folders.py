"""Where configs and a user's own classes are looked for."""

import importlib
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny import REPO

from cxrlit.config import folders
from cxrlit.config.compose import compose_config
from cxrlit.config.folders import find_conf, find_own_modules, initialize_conf, list_own_options, own_configs
from cxrlit.core.errors import ConfigError


def test_the_conf_of_a_clone_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_conf() == REPO / "conf"
    package = tmp_path / "cxrlit"
    monkeypatch.setattr(folders, "PACKAGE", package)
    for folder in (package / "conf", tmp_path / "conf"):
        folder.mkdir(parents=True)
    assert find_conf() == package / "conf"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert find_conf() == package / "conf"
    (tmp_path / "pyproject.toml").write_bytes((REPO / "pyproject.toml").read_bytes())
    assert find_conf() == tmp_path / "conf"


def test_own_configs_come_before_ours_and_only_inside_the_block(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adamw.yaml").write_text("_target_: mine.AdamW")
    (tmp_path / "optimizer" / "mine.yaml").write_text("_target_: mine.Optimizer")

    def read_target(*overrides: str) -> str:
        with initialize_conf():
            return compose_config("train", overrides).optimizer._target_

    with own_configs(str(tmp_path)):
        assert list_own_options() == ["--config-dir", str(tmp_path)]
        assert read_target() == "mine.AdamW"
        assert read_target("optimizer=mine") == "mine.Optimizer"
        with own_configs(None):
            assert list_own_options() == []
            assert read_target() == "torch.optim.AdamW"
    assert read_target() == "torch.optim.AdamW"
    with pytest.raises(ConfigError, match=r"optimizer=mine: there is no such choice; it may be adamw"):
        read_target("optimizer=mine")


@pytest.mark.parametrize("name", ["nope", "", "a.yaml"])
def test_a_config_dir_is_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=f"^--config-dir {name}: there is no such folder$"), own_configs(name):
        pass


@pytest.mark.parametrize(
    ("target", "is_found"),
    [
        ("cxrlit_own_module.Loss", True),
        ("cxrlit_own_package.losses.Loss", True),
        ("torch.nn.Identity", False),  # an installed one of that name
        ("cxrlit_elsewhere.Loss", False),
        ("no name.Loss", False),
        ("../cxrlit_own_module", False),
    ],
)
def test_the_current_folder_is_imported_from_where_a_target_is_there(
    target: str, is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    for name in ("cxrlit_own_module.py", "cxrlit_own_package/losses.py", "torch.py", "no name.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("class Loss: ...")
    for _ in range(2):
        find_own_modules(OmegaConf.create({"seed": 0, "loss": [{"_target_": target}, {"_target_": None}]}), tmp_path)
    assert sys.path == [*before, str(tmp_path)] if is_found else sys.path == before
    if is_found:
        module, _, name = target.rpartition(".")
        assert getattr(importlib.import_module(module), name).__name__ == "Loss"
