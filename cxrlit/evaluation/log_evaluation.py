"""Send an evaluation to the loggers' runs of its phase: numbers, report and pictures."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cxrlit.config import EvaluateConfig
from cxrlit.core.console import say
from cxrlit.core.errors import CXRLitError
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.training.logger_runs import finish_runs, list_runs, read_run, resume_run, say_failures
from cxrlit.training.loggers import build_logger, check_files_place

SENT = ("eval_*.csv", "confusion_template.csv", "thresholds*.json", "claim.md", "figures/*.png")
"""Files that are sent with the report. Predictions are not sent, since they describe single patients."""

WITH_PATIENTS = ("heatmaps/*.png",)


@contextmanager
def logged_evaluation(checkpoints: Sequence[Checkpoint], out: Path, config: EvaluateConfig) -> Iterator[Path | None]:
    """Send the evaluation of one checkpoint to the runs of its phase when the block ends.

    A failure to send is only a warning, since the results are already written.

    Args:
        checkpoints: The evaluated checkpoints.
        out: The folder of the results, whose name identifies them: a later evaluation of the same name replaces them.
        config: ``logger``: loggers by name; ``log_images``: also send images of patients.

    Yields:
        Path for a report without images of patients; None if nothing is sent.
    """
    folder = checkpoints[0].path.resolve().parent if len(checkpoints) == 1 else None
    names = find_loggers(folder, config) if folder else []
    if folder is None or not names:
        yield None
        return
    with TemporaryDirectory() as staged:
        shared = Path(staged) / "report.html"
        yield shared
        files = gather(out, shared, Path(staged) / out.name, config.log_images)
        for name in names:
            try:
                send(name, folder, files, config)
            except CXRLitError as error:
                say(f"warning: the evaluation is not in the run of {name}: {error}", style="yellow")


def find_loggers(folder: Path, config: EvaluateConfig) -> list[str]:
    """List the loggers that have a run of the phase and are in ``config.logger``.

    Args:
        folder: The phase folder.
        config: As for ``logged_evaluation``.
    """
    runs = list_runs(folder) if config.logger else []
    for name in runs:
        if name not in config.logger:
            say(f"The phase was logged to {name}, the evaluation is not: there is no logger.{name}")
    return [name for name in runs if name in config.logger]


def send(name: str, folder: Path, files: Path, config: EvaluateConfig) -> None:
    """Send an evaluation to the run that a logger has of a phase.

    Args:
        name: Name of the logger.
        folder: The phase folder.
        files: From ``gather``.
        config: As for ``logged_evaluation``.

    Raises:
        CXRLitError: The run is in another place, or the service cannot be reached.
    """
    run = read_run(folder, name)
    assert run is not None  # list_runs lists only existing runs
    logger = build_logger(name, config.logger[name], folder, run["version"])
    try:
        with say_failures(name, "python evaluate.py sends it again"):
            resume_run(name, logger, folder, run)
            if isinstance(logger, MLFlowLogger):
                check_files_place(name, logger)
            logger.log_metrics(read_numbers(files))
            send_files(logger, files, f"{folder.name}-{files.name}")
            logger.finalize("success")
    finally:
        finish_runs([logger])
    say(f"The evaluation is in the run of {name}: {run['version']}")


def read_numbers(out: Path) -> dict[str, float]:
    """Read the defined macro metrics of each part, as ``<name of the folder>/<part>/<metric>``."""
    summary = pd.read_csv(out / "eval_summary.csv").set_index("split").select_dtypes("number")
    return {
        f"{out.name}/{part}/{metric}": float(value)
        for part, row in summary.iterrows()
        for metric, value in row.items()
        if not str(metric).endswith(("_low", "_high")) and np.isfinite(value)
    }


def gather(out: Path, shared: Path, files: Path, with_patients: bool) -> Path:
    """Copy the files to send into a folder.

    Args:
        out: The folder of the results.
        shared: The report without images of patients.
        files: The folder to create, which is returned.
        with_patients: Take the full report and the heatmaps.
    """
    for pattern in (*SENT, *(WITH_PATIENTS if with_patients else ())):
        for path in sorted(out.glob(pattern)):
            copy = files / path.relative_to(out)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    report = out / "report.html" if with_patients else shared
    if report.is_file():
        shutil.copy(report, files / "report.html")
    return files


def send_files(logger: Logger, files: Path, name: str) -> None:
    """Add a folder to a logger's run, if the logger can store files; other loggers take only numbers.

    Args:
        logger: A logger whose run has begun.
        files: The folder.
        name: Name of the folder in the run.
    """
    if isinstance(logger, WandbLogger):
        import wandb

        artifact = wandb.Artifact(name, type="evaluation")
        artifact.add_dir(str(files))
        logger.experiment.log_artifact(artifact)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifacts(logger.run_id, str(files), files.name)
    elif isinstance(logger, TensorBoardLogger):
        for path in sorted(files.rglob("*.csv")):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            logger.experiment.add_text(f"{files.name}/{path.stem}", _write_markdown(table))
        for path in sorted(files.rglob("*.png")):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            assert picture is not None  # the report wrote it
            logger.experiment.add_image(f"{files.name}/{path.stem}", picture, dataformats="HWC")


def _write_markdown(table: pd.DataFrame) -> str:
    """Write a table of text in Markdown.

    >>> print(_write_markdown(pd.DataFrame({"label": ["a|b"], "auroc": ["0.5"]})))
    | label | auroc |
    | --- | --- |
    | a\\|b | 0.5 |
    """
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
