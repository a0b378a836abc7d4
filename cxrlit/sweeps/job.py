"""One job of a sweep, in this or another process: train a point and write its record."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cxrlit.config import SweepConfig, TrainConfig
from cxrlit.core.console import say
from cxrlit.core.errors import first_line
from cxrlit.core.files import hold_lock
from cxrlit.core.signals import Interrupted
from cxrlit.sweeps.objective import name_failure, read_job
from cxrlit.sweeps.ranking import update_ranking
from cxrlit.sweeps.record import Point, Pruned, Record, job_record_path, write_job_record

if TYPE_CHECKING:
    from cxrlit.training.phase_folder import Result


@dataclass(frozen=True)
class Job:
    """The job that a launcher runs for each point. Launchers may pickle it.

    Attributes:
        task: As in ``Objective``.
        folder: The folder of the sweep.
        points: Points that are launched together; Hydra numbers their jobs from the first point's number.
        n_jobs: Number of jobs in the whole sweep.
        search: Search settings; None: a grid.
    """

    task: "Callable[[TrainConfig, Sequence[Any]], tuple[Result, Path | None]]"
    folder: Path
    points: list[Point]
    n_jobs: int
    search: SweepConfig | None

    def __call__(self, composed: DictConfig) -> None:
        """Train the point of Hydra's job number. An error is recorded, not raised, so that other jobs continue."""
        point = self.points[HydraConfig.get().job.num - self.points[0].number]
        with hold_lock(
            job_record_path(self.folder, point.job), f"waiting for another process that runs job {point.job}"
        ):
            say(f"Job {point.job} of {self.n_jobs}: {point.describe()}", style="bold")
            try:
                record = self._train(point, read_job(composed))
            except Interrupted as interrupted:
                self._write(Record(job=point.job, values=point.values, status="failed", reason=str(interrupted)))
                raise
            except Exception as error:
                reason = first_line(name_failure(error))
                say(f"Job {point.job} failed: {reason}", style="red")
                record = Record(job=point.job, values=point.values, status="failed", reason=reason)
            self._write(record)

    def _train(self, point: Point, config: TrainConfig) -> Record:
        callbacks: list[Any] = []
        if self.search is not None and self.search.pruner != "none":
            from cxrlit.sweeps.study import PruneTrial

            callbacks = [PruneTrial(self.folder, point.number, self.search)]
        status: Literal["done", "pruned"]
        evaluation, seconds = None, None
        try:
            result, evaluation = self.task(config, callbacks)
        except Pruned as pruned:
            say(f"Job {point.job} is pruned: {pruned}")
            scores = [float(row["val_auroc_macro"]) for row in read_metrics(pruned.folder)]
            folder, score = pruned.folder, max(scores)
            best = 1 + scores.index(score)
            status, reason = "pruned", str(pruned)
        else:
            folder, best, score, seconds = result.folder, result.best_epoch, result.best_score, result.seconds
            status, reason = "done", f"rejected for {result.rejected_for}" if result.rejected_for else ""
        return Record(
            job=point.job,
            values=point.values,
            status=status,
            reason=reason,
            auroc_macro=score,
            aurocs=read_aurocs(folder, best),
            best_epoch=best,
            folder=str(folder.relative_to(Path(config.runs_dir).parent)),
            evaluation=None if evaluation is None else str(evaluation),
            seconds=seconds,
        )

    def _write(self, record: Record) -> None:
        write_job_record(self.folder, record)
        update_ranking(self.folder)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Read the rows of ``metrics.csv``, an epoch each, as text, so that no float is rounded."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_aurocs(folder: Path, epoch: int) -> dict[str, float | None]:
    """Read the validation AUROC of each label after an epoch; None if undefined."""
    prefix = "val_auroc_"
    rows = read_metrics(folder)
    names = [name for name in rows[0] if name.startswith(prefix) and name != "val_auroc_macro"]
    row = rows[epoch - 1]
    return {name.removeprefix(prefix): float(row[name]) if row.get(name) else None for name in names}
