"""Folders in which configs and a user's own classes are found."""

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
    """The folder ``conf/``: the repository's in a clone or an editable install, else the package's copy."""
    project = PACKAGE.parent / "pyproject.toml"
    is_clone = project.is_file() and 'name = "cxrlit"' in project.read_text(encoding="utf-8")
    return PACKAGE.parent / "conf" if is_clone else PACKAGE / "conf"


def initialize_conf(job_name: str = "app") -> initialize_config_dir:
    """Let Hydra compose from ``conf/`` inside a ``with`` block."""
    return initialize_config_dir(str(find_conf()), version_base="1.3", job_name=job_name)


class OwnConfigs(SearchPathPlugin):
    """Puts the user's own config folder before ``conf/`` wherever Hydra is initialized.

    Hydra's own ``--config-dir`` comes after ``conf/``, so that its files cannot replace files of the same name.

    Attributes:
        folder: Absolute path of the folder; None: no folder.
    """

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder in front of Hydra's search path."""
        if self.folder is not None:
            search_path.prepend("own", f"file://{self.folder}", anchor="main")


@contextmanager
def own_configs(folder: str | None) -> Iterator[None]:
    """Search the user's own config folder first, inside the block.

    Args:
        folder: The value of ``--config-dir``; None: no folder.

    Raises:
        ConfigError: The path is no folder.
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
    """Command-line options that find the same configs; for use inside ``own_configs``."""
    return ["--config-dir", str(OwnConfigs.folder)] if OwnConfigs.folder else []


def find_own_modules(composed: DictConfig, folder: Path) -> None:
    """Make the current folder importable if a ``_target_`` names one of its modules.

    The folder comes last in ``sys.path``, and only where a ``_target_`` needs it: otherwise a file in a data folder
    with the name of an optional package would be run.

    Args:
        composed: A config from the command line and the user's own config folders.
        folder: The folder in which the command was started.
    """
    for target in list_targets(OmegaConf.to_container(composed)):
        module = target.partition(".")[0]
        is_here = module.isidentifier() and ((folder / module).is_dir() or (folder / f"{module}.py").is_file())
        if is_here and str(folder) not in sys.path and importlib.util.find_spec(module) is None:
            sys.path.append(str(folder))


def list_targets(values: Any) -> list[str]:
    """The values of all ``_target_`` keys of a config.

    >>> list_targets({"loss": {"_target_": "mine.Loss"}, "parts": [{"_target_": "mine.Part"}]})
    ['mine.Loss', 'mine.Part']
    """
    if isinstance(values, list):
        return [target for value in values for target in list_targets(value)]
    if not isinstance(values, dict):
        return []
    found = [values["_target_"]] if isinstance(values.get("_target_"), str) else []
    return found + [target for value in values.values() for target in list_targets(value)]
