"""Build a logger of the config for one phase, or say in one line what is missing."""

import os
import re
import socket
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from hydra.utils import get_class
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cxrlit.config import Instantiable
from cxrlit.config.build import build_target, check_target
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.core.extras import import_extra

NEEDS = {
    TensorBoardLogger: ("torch.utils.tensorboard", "tensorboard"),
    WandbLogger: ("wandb", "wandb"),
    MLFlowLogger: ("mlflow", "mlflow"),
}
"""Module that each Lightning logger imports, and the extra that installs it."""
SQLITE_NEEDS = ("sqlalchemy", "alembic")
"""Modules that MLflow needs for a store in a SQLite file."""

STORE_VARIABLE = "MLFLOW_TRACKING_URI"

WANDB_FILES = (Path("wandb/settings"), Path(".wandb/settings"))
"""Files with W&B settings in the current folder, which may be another user's; W&B prints their names."""
WANDB_KEYS = ("entity", "project", "mode")
"""Settings that W&B's own commands write; others may send data, and the user's API key, to another server."""
WANDB_SERVER = "https://api.wandb.ai"


def fill_places(value: Any, facts: Mapping[str, Any]) -> Any:
    """Replace ``{NAME}`` in the settings of a logger by facts of a phase.

    Args:
        value: A dict, a list or a single value.
        facts: Value of each ``NAME``. A text that is only ``{NAME}`` becomes the value itself, of its own type.

    >>> facts = {"phase": "frozen-1a2b3c4d", "run_id": None}
    >>> fill_places({"name": "mine {phase} {other}", "id": "{run_id}"}, facts)
    {'name': 'mine frozen-1a2b3c4d {other}', 'id': None}
    """
    if isinstance(value, Mapping):
        return {key: fill_places(item, facts) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_places(item, facts) for item in value]
    if not isinstance(value, str):
        return value
    if value[1:-1] in facts and value == f"{{{value[1:-1]}}}":
        return facts[value[1:-1]]
    return re.sub(r"\{(\w+)\}", lambda place: str(facts.get(place[1], place[0])), value)


def build_logger(name: str, spec: Instantiable, folder: Path, run_id: str | int | None = None) -> Logger:
    """Check that the package of a logger is installed, and build the logger; no run begins.

    Args:
        name: Name of the logger in the config.
        spec: Its ``_target_`` and arguments, with ``{folder}``, ``{phase}``, ``{run}``, ``{runs_dir}``, ``{run_id}``.
        folder: The phase folder, ``<runs_dir>/<run>/<phase>-<id>``.
        run_id: The run to continue; None: a new one.

    Raises:
        ConfigError: Its package is missing or fails, its arguments are wrong, or it is not a logger.
    """
    run_folder = folder.parent
    if "${" in str(folder):  # Hydra would resolve it when it builds the logger
        raise ConfigError(f"{folder}: loggers need a folder without ${{ in its name")
    facts = {"folder": str(folder), "phase": folder.name, "run": run_folder.name, "runs_dir": str(run_folder.parent)}
    settings = fill_places(spec, {**facts, "run_id": run_id})
    check_target(f"logger.{name}", settings)
    target = get_class(settings["_target_"])
    _import_package(name, target)
    if issubclass(target, WandbLogger):
        _check_folder_settings(name, settings.get("settings") or {})
    if issubclass(target, MLFlowLogger):
        settings = _choose_store(name, settings, run_folder.parent, must_exist=run_id is not None)
        _name_store(name, settings["tracking_uri"])
    logger = build_target(f"logger.{name}", settings)
    if not isinstance(logger, Logger):
        raise ConfigError(f"logger.{name}: {type(logger).__name__} is not a logger of Lightning")
    return logger


def check_files_place(name: str, logger: MLFlowLogger) -> None:
    """Check that a run in a SQLite file stores its files beside it: another user's file may name any folder.

    Args:
        name: Name of the logger in the config.
        logger: A logger whose run has begun.

    Raises:
        ConfigError: The run stores files elsewhere, for example after the runs folder was moved.
    """
    place, root = str(logger.experiment.get_run(logger.run_id).info.artifact_uri), logger._artifact_location
    if str(logger._tracking_uri).startswith("sqlite:///") and place != f"{root}/{logger.run_id}/artifacts":
        raise ConfigError(
            f"logger.{name}: the run keeps its files in {place[:300]}, which is not in {root}: if that is the place, "
            f"+logger.{name}.artifact_location= names the folder above the run's"
        )


def _import_package(name: str, target: type) -> None:
    for kind, (module, extra) in NEEDS.items():
        if issubclass(target, kind):
            if extra == "mlflow":  # MLflow would send usage statistics
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            for one in dict.fromkeys((extra, module)):  # an extra is named like its package
                import_extra(one, extra, f"logger.{name}")


def _check_folder_settings(name: str, own: Any) -> None:
    """Check that W&B settings in the current folder set no server, key or the like unless the user also set it.

    Args:
        name: Name of the logger in the config.
        own: ``settings`` of the logger, which override those of files, as environment variables do.

    Raises:
        ConfigError: They set such a key.
    """
    for path in WANDB_FILES:
        parser = ConfigParser()
        try:
            parser.read(path)
            found = dict(parser.items("default")) if parser.has_section("default") else {}
        except (OSError, ValueError, ConfigParserError) as error:
            raise ConfigError(f"logger.{name}: {path.absolute()}: {first_line(error)}: mend or remove it") from None
        for key in sorted(found.keys() - WANDB_KEYS):
            if (
                key in own
                or f"WANDB_{key.upper()}" in os.environ
                or (key, found[key].rstrip("/")) == ("base_url", WANDB_SERVER)
            ):
                continue
            raise ConfigError(
                f"logger.{name}: {path.absolute()}, which W&B reads, sets {key}: take it out, or, if it is yours, "
                f"say it with +logger.{name}.settings.{key}= or WANDB_{key.upper()}"
            )


def _choose_store(name: str, settings: Instantiable, runs_dir: Path, must_exist: bool) -> Instantiable:
    """Without a server, store MLflow's runs in a SQLite file, and files beside it: MLflow refuses plain folders."""
    address = settings.get("tracking_uri") or f"sqlite:///{runs_dir / 'mlflow.db'}"
    if not address.startswith("sqlite:///"):
        return settings
    for module in SQLITE_NEEDS:
        import_extra(module, "mlflow", f"logger.{name}")
    database = Path(address.removeprefix("sqlite:///"))
    if must_exist and not database.is_file():
        raise ConfigError(f"logger.{name}: the run is not in {database}: name its server, logger.{name}.tracking_uri=")
    database.parent.mkdir(parents=True, exist_ok=True)
    files = (database.parent / "mlflow-artifacts").absolute().as_uri()
    return {"artifact_location": files, **settings, "tracking_uri": address}


def _name_store(name: str, address: str) -> None:
    """Set MLflow's store, but restore the environment variable, which the next training would read."""
    import mlflow

    _check_server(name, address)
    before = os.environ.get(STORE_VARIABLE)
    mlflow.set_tracking_uri(address)
    if before is None:
        os.environ.pop(STORE_VARIABLE, None)
    else:
        os.environ[STORE_VARIABLE] = before


def _check_server(name: str, address: str) -> None:
    """Check that MLflow's server answers: its client would retry silently for many minutes.

    Raises:
        ConfigError: The server does not answer.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or getproxies():  # only the proxy may reach it
        return
    try:
        socket.create_connection((url.hostname or "", url.port or (443 if url.scheme == "https" else 80)), 10).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"logger.{name}: no server answers at {url.hostname}:{url.port} ({first_line(error)}): start it, or set "
            f"logger.{name}.tracking_uri or {STORE_VARIABLE}"
        ) from None
