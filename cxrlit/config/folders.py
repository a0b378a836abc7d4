"""Where configs and a user's own classes are looked for."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from cxrlit.core.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]


def find_conf() -> Path:
    """The folder ``conf/``: that of the repository in a clone or an editable install, else the copy in the package."""
    project = PACKAGE.parent / "pyproject.toml"
    is_clone = project.is_file() and 'name = "cxrlit"' in project.read_text(encoding="utf-8")
    return PACKAGE.parent / "conf" if is_clone else PACKAGE / "conf"


def initialize_conf(job_name: str = "app") -> initialize_config_dir:
    """Let Hydra compose from ``conf/`` inside a ``with`` block."""
    return initialize_config_dir(str(find_conf()), version_base="1.3", job_name=job_name)


class OwnConfigs(SearchPathPlugin):
    """Puts a folder of the user's own before ``conf/`` wherever Hydra is initialized.

    Hydra's own ``--config-dir`` puts it after ``conf/``, where a file cannot replace one of the same name.

    Attributes:
        folder: Absolute path of the folder; None: there is none.
    """

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("own", f"file://{self.folder}", anchor="main")


@contextmanager
def own_configs(folder: str | None) -> Iterator[None]:
    """Look for configs in a folder of the user's own first, inside a block.

    Args:
        folder: The value of ``--config-dir``; None: there is none.

    Raises:
        ConfigError: It is no folder.
    """
    folder = os.path.expanduser(folder) if folder else folder
    if folder is not None and not (folder and Path(folder).is_dir()):
        raise ConfigError(f"--config-dir {folder}: there is no such folder")
    Plugins.instance().register(OwnConfigs)
    before, OwnConfigs.folder = OwnConfigs.folder, Path(folder).absolute() if folder else None
    try:
        yield
    finally:
        OwnConfigs.folder = before


def list_own_options() -> list[str]:
    """The options that a command needs to find the same configs, inside ``own_configs``."""
    return ["--config-dir", str(OwnConfigs.folder)] if OwnConfigs.folder else []


def find_own_modules(composed: DictConfig, folder: Path) -> None:
    """Let the current folder be imported from where a ``_target_`` is in one of its modules.

    It comes last in ``sys.path``, and only where a ``_target_`` needs it: a file that lies in a folder of data, and has
    the name of some optional package, is not run.

    Args:
        composed: From the command line and the config folders of whoever runs the command.
        folder: The folder that the command was started in.
    """
    for target in list_targets(OmegaConf.to_container(composed)):
        module = target.partition(".")[0]
        is_here = module.isidentifier() and ((folder / module).is_dir() or (folder / f"{module}.py").is_file())
        if is_here and str(folder) not in sys.path and importlib.util.find_spec(module) is None:
            sys.path.append(str(folder))


def list_targets(values: Any) -> list[str]:
    """The values of all keys ``_target_`` of a config.

    >>> list_targets({"loss": {"_target_": "mine.Loss"}, "parts": [{"_target_": "mine.Part"}]})
    ['mine.Loss', 'mine.Part']
    """
    if isinstance(values, list):
        return [target for value in values for target in list_targets(value)]
    if not isinstance(values, dict):
        return []
    found = [values["_target_"]] if isinstance(values.get("_target_"), str) else []
    return found + [target for value in values.values() for target in list_targets(value)]
