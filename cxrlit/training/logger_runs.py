"""The loggers' runs of a phase: a resumed phase continues them, and sends each row of numbers once.

``loggers/`` in the phase folder has, for each logger, ``NAME.json``, which identifies the run, and ``NAME.steps``, with
a line for each row sent. Training is exact, so a resumed phase repeats the rows after its state, in the same order;
rows that were already sent are skipped. The rows of the step log (``StepLog``) are in the state.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cxrlit.config import Instantiable, TrainConfig
from cxrlit.config.train import FLAT_KEYS
from cxrlit.core.errors import CheckpointError, ConfigError, CXRLitError, first_line
from cxrlit.core.files import write_json, write_text
from cxrlit.core.ranks import rank
from cxrlit.training.loggers import build_logger
from cxrlit.training.phase_folder import Result
from cxrlit.training.step_log import StepLog, count_epochs_from_1

FOLDER = "loggers"
"""Folder in the phase folder that records the loggers' runs."""

PLAIN = re.compile(r"[\w .:/@+-]{0,300}")
"""Pattern of names and ids that services give to runs."""

GO_ON = "what was saved before is kept, and the same command goes on: with this logger, or with others"


@contextmanager
def say_failures(name: str, remedy: str = GO_ON) -> Iterator[None]:
    """Turn an error of a logger inside the block into one line that names the logger.

    Args:
        name: Name of the logger.
        remedy: End of the line.

    Raises:
        CXRLitError: The logger failed, for example because its service cannot be reached.
    """
    try:
        yield
    except CXRLitError:
        raise
    except Exception as error:  # a service or a user's class can raise anything
        reason = first_line(error, 300).rstrip(".")
        raise CXRLitError(f"logger.{name}: {reason}; {remedy}") from None


def read_run(folder: Path, name: str) -> dict[str, Any] | None:
    """Read ``name`` and ``version`` of a logger's run in a phase; None if there is no run.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        found = {key: run[key] for key in ("name", "version")}
    except (ValueError, KeyError, TypeError, RecursionError):
        found = {}
    if not found or not _is_plain(found["name"]) or not _is_plain(found["version"]):
        raise CheckpointError(f"{path}: it is damaged: remove it, and logger.{name} begins a new run")
    return found


def _is_plain(value: Any) -> bool:
    """Whether a value is a plain name or number, which is safe as an argument."""
    return value is None or type(value) is int or (isinstance(value, str) and PLAIN.fullmatch(value) is not None)


def list_runs(folder: Path) -> list[str]:
    """List the loggers that have a run in a phase."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.json"))


class SendOnce:
    """Replaces ``log_metrics`` of a logger, and sends each row once, over all resumes of the phase.

    Args:
        name: Name of the logger in the config.
        logger: The logger.
        path: File with the steps of the rows sent, one per line.

    Attributes:
        n_rows: Rows so far, including those of earlier processes.
    """

    def __init__(self, name: str, logger: Logger, path: Path) -> None:
        self.name, self.path = name, path
        self._log_metrics, self._save = logger.log_metrics, logger.save
        self.n_rows = len(self._read())
        self._sent_before: deque[str] = deque()

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send a row unless it was sent before; rank 0 only.

        Raises:
            CXRLitError: The logger's service cannot be reached.
        """
        if rank() > 0:
            return
        if self._sent_before:
            if self._sent_before.popleft() == str(step):
                self.n_rows += 1
                return
            self._sent_before.clear()  # the rows differ now, for example with another callback
            write_text(self.path, "".join(f"{line}\n" for line in self._read()[: self.n_rows]))
        with say_failures(self.name):
            self._log_metrics(count_epochs_from_1(metrics), step)
            self._save()  # else TensorBoard keeps it in memory
        self.n_rows += 1
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{step}\n")

    def resume(self, n_rows: int) -> None:
        """Continue after ``n_rows`` rows; rows sent after them will be repeated, and skipped."""
        lines = self._read()
        self.n_rows, self._sent_before = min(n_rows, len(lines)), deque(lines[n_rows:])

    def _read(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []


def open_loggers(config: TrainConfig, phase: str, folder: Path) -> list[Logger]:
    """Build the loggers of a phase; rank 0 begins their runs, or continues those that the phase has.

    Args:
        config: The resolved config of the chain.
        phase: Name of the phase.
        folder: The phase folder, which gets ``FOLDER``.

    Raises:
        ConfigError: As for ``build_logger``; or the run is in another project or experiment.
        CXRLitError: A service cannot be reached.
    """
    opened: list[Logger] = []
    own = config.phases[phase].model_dump(mode="json", include=set(FLAT_KEYS))
    hyperparameters = {**config.model_dump(mode="json"), **own}  # the flat keys get the phase's settings
    try:
        for name, spec in config.logger.items():
            opened.append(_open_logger(name, spec, folder, hyperparameters))
    except BaseException:
        finish_runs(opened, exit_code=1)
        raise
    return opened


def _open_logger(name: str, spec: Instantiable, folder: Path, hyperparameters: Mapping[str, Any]) -> Logger:
    run = read_run(folder, name)
    logger = build_logger(name, spec, folder, None if run is None else run["version"])
    if rank() > 0:
        return logger
    if isinstance(logger, StepLog):
        logger.log_hyperparams(dict(hyperparameters))
        return logger
    with say_failures(name):
        if run is not None:
            resume_run(name, logger, folder, run)
            return logger
        _ = getattr(logger, "experiment", None)  # begins the run
        logger.log_hyperparams(dict(hyperparameters))
        write_json(folder / FOLDER / f"{name}.json", {"name": logger.name, "version": logger.version})
        send_once(name, logger, folder)
    return logger


def resume_run(name: str, logger: Logger, folder: Path, run: Mapping[str, Any]) -> None:
    """Continue the run of a logger in a phase.

    Raises:
        ConfigError: The run is in another project or experiment than the logger.
    """
    if run["name"] != logger.name:
        raise ConfigError(
            f"logger.{name}: the run of this phase is in {run['name']!r}, not in {logger.name!r}: name the same"
        )
    _ = getattr(logger, "experiment", None)  # opens it
    n_rows = send_once(name, logger, folder).n_rows
    if isinstance(logger, MLFlowLogger):
        logger.experiment.update_run(logger.run_id, status="RUNNING")
    elif isinstance(logger, WandbLogger) and logger.experiment.offline:
        logger.experiment.log({}, step=n_rows, commit=False)  # offline, W&B would count from 0 again


def send_once(name: str, logger: Logger, folder: Path) -> SendOnce:
    """Make ``log_metrics`` of a logger send each row once. The logger keeps its class, which callbacks check."""
    once = SendOnce(name, logger, folder / FOLDER / f"{name}.steps")
    logger.log_metrics = once  # type: ignore[method-assign]
    return once


def finish_runs(loggers: Sequence[Logger], exit_code: int = 0) -> None:
    """End the run of W&B, which would otherwise receive what this process logs next."""
    if rank() == 0 and any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(exit_code=exit_code)


@contextmanager
def finishing_runs(loggers: Sequence[Logger]) -> Iterator[None]:
    """End the runs when the block ends, also by an error."""
    try:
        yield
    except BaseException:
        finish_runs(loggers, exit_code=1)
        raise
    finish_runs(loggers)


def log_result(loggers: Sequence[Logger], result: Result, step: int) -> None:
    """Send the result of a phase.

    Args:
        loggers: From ``open_loggers``.
        result: The result.
        step: Number of steps of the phase.
    """
    for logger in loggers:
        if isinstance(logger, StepLog):
            continue
        numbers = {"best/epoch": result.best_epoch, f"best/{result.monitor.replace('/', '_', 1)}": result.best_score}
        if isinstance(logger, TensorBoardLogger):
            numbers["hp_metric"] = result.best_score  # shown in TensorBoard's table of hyperparameters
        logger.log_metrics(numbers, step)


def save_logs(loggers: Sequence[Logger]) -> dict[str, Any]:
    """Return the state of the logs in plain types: rows of step logs, and numbers of rows of the others."""
    return {
        "rows": [logger.state_dict() for logger in loggers if isinstance(logger, StepLog)],
        "n_rows": {once.name: once.n_rows for once in _list_once(loggers)},
    }


def resume_logs(loggers: Sequence[Logger], state: Mapping[str, Any]) -> None:
    """Continue the logs from a ``save_logs``; the loggers may differ now."""
    logs = [logger for logger in loggers if isinstance(logger, StepLog)]
    for log, rows in zip(logs, state["rows"], strict=False):
        log.load_state_dict(rows)
    for once in _list_once(loggers):
        once.resume(state["n_rows"].get(once.name, once.n_rows))


def _list_once(loggers: Sequence[Logger]) -> list[SendOnce]:
    return [logger.log_metrics for logger in loggers if isinstance(logger.log_metrics, SendOnce)]
