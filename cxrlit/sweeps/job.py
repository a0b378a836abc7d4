"""One job of a sweep, in this process or another: a training, and the record of what came out."""

import csv
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cxrlit.config import TrainConfig, read_config
from cxrlit.console import say
from cxrlit.errors import first_line
from cxrlit.files import hold_lock
from cxrlit.interrupt import Interrupted
from cxrlit.launch import name_fault
from cxrlit.sweeps.ranking import update_ranking
from cxrlit.sweeps.record import Point, Record, name_record, write_record
from cxrlit.training.checkpoint import START_EPOCH

if TYPE_CHECKING:
    from cxrlit.training.phase import Result


@dataclass(frozen=True)
class Job:
    """What a launcher runs for each point. It goes by pickle to where it runs.

    Attributes:
        task: Trains a config.
        folder: The folder of the sweep.
        points: The points that are launched together.
        n_jobs: Jobs of the whole sweep.
    """

    task: "Callable[[TrainConfig], Result]"
    folder: Path
    points: list[Point]
    n_jobs: int

    def __call__(self, composed: DictConfig) -> None:
        """Train the point whose turn it is. A fault is a record, and no exception: the others go on."""
        point = self.points[HydraConfig.get().job.num]
        with hold_lock(name_record(self.folder, point.job), f"waiting for another process that runs job {point.job}"):
            say(f"Job {point.job} of {self.n_jobs}: {point.describe()}", style="bold")
            try:
                record = self._train(point, read_config(composed, TrainConfig))
            except Interrupted as interrupted:
                self._write(Record(job=point.job, values=point.values, status="failed", reason=str(interrupted)))
                raise
            except Exception as error:
                fault = name_fault(error)
                if fault is None:
                    traceback.print_exc()
                reason = first_line(fault or error)
                say(f"Job {point.job} failed: {reason}", style="red")
                record = Record(job=point.job, values=point.values, status="failed", reason=reason)
            self._write(record)

    def _train(self, point: Point, config: TrainConfig) -> Record:
        folder, best, score = self.task(config)
        reason = "no epoch was better than the weights that it started from" if best == START_EPOCH else ""
        return Record(
            job=point.job,
            values=point.values,
            status="done",
            reason=reason,
            auroc_macro=score,
            aurocs=read_aurocs(folder, best),
            best_epoch=best,
            folder=str(folder.relative_to(Path(config.runs_dir).parent)),
        )

    def _write(self, record: Record) -> None:
        write_record(self.folder, record)
        update_ranking(self.folder)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv``, an epoch each, as they are written: their floats lose no bit."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_aurocs(folder: Path, epoch: int) -> dict[str, float | None]:
    """Validation AUROC of each label after an epoch; None where it is undefined, and where there was no such epoch."""
    prefix = "val_auroc_"
    rows = read_metrics(folder)
    names = [name for name in rows[0] if name.startswith(prefix) and name != "val_auroc_macro"]
    row = {} if epoch == START_EPOCH else rows[epoch]
    return {name.removeprefix(prefix): float(row[name]) if row.get(name) else None for name in names}
