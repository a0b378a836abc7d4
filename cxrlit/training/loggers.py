"""From an entry of ``logger`` in the config to a logger of one phase, or to one line that says what it lacks."""

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
"""What a logger of Lightning imports when it begins, and the extra that brings it."""
SQLITE_NEEDS = ("sqlalchemy", "alembic")
"""What MLflow imports where its store is a SQLite file."""

STORE_VARIABLE = "MLFLOW_TRACKING_URI"

WANDB_FILES = (Path("wandb/settings"), Path(".wandb/settings"))
"""Where W&B reads settings of the current folder, which may be a stranger's; it names the file on the screen."""
WANDB_KEYS = ("entity", "project", "mode")
"""What its own commands write there; other keys may send data, and the user's key, to another server."""
WANDB_SERVER = "https://api.wandb.ai"


def fill_places(value: Any, facts: Mapping[str, Any]) -> Any:
    """Settings of a logger with the facts of a phase in the places of their names.

    Args:
        value: A dict, a list or a single value.
        facts: What stands for ``{NAME}``. A text that is ``{NAME}`` alone becomes the fact itself.

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
    """Build a logger of a phase, after a check that its package is there; no run begins.

    Args:
        name: Its name in the config.
        spec: Its ``_target_`` and arguments, with ``{folder}``, ``{phase}``, ``{run}``, ``{runs_dir}``, ``{run_id}``.
        folder: The phase folder, ``<runs_dir>/<run>/<phase>-<id>``.
        run_id: The run to go on with; None: a new one.

    Raises:
        ConfigError: Its package is missing or fails, it does not take its arguments, or it is no logger.
    """
    run_folder = folder.parent
    if "${" in str(folder):  # it would be resolved where the logger is built
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
    """A run in a SQLite file keeps its files where the logger does: the file may be a stranger's, and name any place.

    Args:
        name: Name of the logger in the config.
        logger: Its run has begun.

    Raises:
        ConfigError: It keeps them elsewhere, as after the folder of the runs was moved.
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
            if extra == "mlflow":  # it would report on its own use
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            for one in dict.fromkeys((extra, module)):  # an extra has the name of its package
                import_extra(one, extra, f"logger.{name}")


def _check_folder_settings(name: str, own: Any) -> None:
    """The current folder's settings of W&B choose no server, key or the like that the user did not choose, too.

    Args:
        name: Name of the logger in the config.
        own: Its ``settings``, which W&B takes before those of any file, as it does variables of the environment.

    Raises:
        ConfigError: They do.
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
    """Without a server MLflow's runs go into a SQLite file, and their files beside it: it refuses plain folders."""
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
    """Name MLflow its store, which it would write into the environment: the next training would take it from there."""
    import mlflow

    _check_server(name, address)
    before = os.environ.get(STORE_VARIABLE)
    mlflow.set_tracking_uri(address)
    if before is None:
        os.environ.pop(STORE_VARIABLE, None)
    else:
        os.environ[STORE_VARIABLE] = before


def _check_server(name: str, address: str) -> None:
    """Knock at MLflow's server: its client would try for many minutes without a word.

    Raises:
        ConfigError: Nobody answers.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or getproxies():  # a proxy may know the way where this machine does not
        return
    try:
        socket.create_connection((url.hostname or "", url.port or (443 if url.scheme == "https" else 80)), 10).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"logger.{name}: no server answers at {url.hostname}:{url.port} ({first_line(error)}): start it, or set "
            f"logger.{name}.tracking_uri or {STORE_VARIABLE}"
        ) from None
