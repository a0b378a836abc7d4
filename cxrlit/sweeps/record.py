"""The points of a sweep, and the record that each job writes, in any process."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from cxrlit.config import SweepConfig
from cxrlit.core.errors import CXRLitError
from cxrlit.core.files import write_text

RECORD_VERSION = 2
"""Part of every sweep's id. Increased when the format of its records changes."""


FOLD = "data.fold"
"""The key of a cross-validation, whose points test different patients and are not ranked."""

LEVER = "lever"
"""The column that an ablation varies: not a key, but a name for overrides."""
BASELINE = "baseline"
"""The lever that changes nothing."""


class Point(NamedTuple):
    """A job to come.

    Attributes:
        job: Its number in the sweep, from 1.
        overrides: Its full command line.
        values: Values of the keys that the sweep varies, as on the command line.
    """

    job: int
    overrides: list[str]
    values: dict[str, str]

    @property
    def number(self) -> int:
        """The number of the job from 0, as Hydra and Optuna count."""
        return self.job - 1

    def describe(self) -> str:
        """Write the varied values as ``key=value``."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())


class Plan(NamedTuple):
    """The points of a sweep.

    Attributes:
        folder: Folder of the sweep.
        n_jobs: Number of points.
        batches: Points that are launched together; the next batch is requested when they have ended.
        id: Hash of all that determines the points. A folder holds one sweep.
        search: Search settings; None: a grid.
    """

    folder: Path
    n_jobs: int
    batches: Iterable[list[Point]]
    id: str
    search: SweepConfig | None = None


class Pruned(Exception):
    """A training was stopped because it was worse than the others.

    Args:
        folder: Its phase folder, which stays unfinished.
        epoch: The epoch that decided, from 1.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.folder, self.epoch = folder, epoch
        super().__init__(f"below the median of the trials before it at epoch {epoch}")


class Record(BaseModel):
    """A job that has ended.

    Attributes:
        job: Its number.
        values: As in ``Point``.
        status: done, failed, or pruned: stopped early because it was worse than the others.
        reason: Why it is not done, or what it is rejected for; else empty.
        auroc_macro: Validation macro AUROC at ``best_epoch``.
        aurocs: Validation AUROC of each label at ``best_epoch``; None if undefined.
        best_epoch: Its best epoch, from 1; for a pruned job, the best so far.
        folder: Phase folder, relative to the folder above ``runs_dir``.
        evaluation: Folder of the evaluation, absolute; None without one.
        seconds: Training time of the phases up to the goal, seconds; None if unknown.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    job: int
    values: dict[str, str]
    status: Literal["done", "failed", "pruned"]
    reason: str = ""
    auroc_macro: float | None = None
    aurocs: dict[str, float | None] = {}
    best_epoch: int | None = None
    folder: str | None = None
    evaluation: str | None = None
    seconds: float | None = None


def job_record_path(folder: Path, job: int) -> Path:
    """Path of a job's record in the folder of its sweep."""
    return folder / "jobs" / f"{job}.json"


def write_job_record(folder: Path, record: Record) -> None:
    """Write the record of a job."""
    write_text(job_record_path(folder, record.job), record.model_dump_json(indent=2) + "\n")


def read_job_record(folder: Path, job: int) -> Record | None:
    """Read the record of a job; None if it has not ended.

    Raises:
        CXRLitError: The file is damaged.
    """
    path = job_record_path(folder, job)
    if not path.is_file():
        return None
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError:
        raise CXRLitError(f"{path}: it is damaged: remove it, the job is run again") from None
    if record.job != job:
        raise CXRLitError(f"{path}: it is of job {record.job}: remove it, the job is run again")
    return record


def read_records(folder: Path) -> list[Record]:
    """Read the records of all jobs of a sweep, in order.

    Raises:
        CXRLitError: A file is damaged, or belongs to another sweep.
    """
    jobs = sorted(int(path.stem) for path in (folder / "jobs").glob("*.json") if path.stem.isdecimal())
    records = [record for job in jobs if (record := read_job_record(folder, job)) is not None]
    for record in records:
        if record.values.keys() != records[0].values.keys():
            path = job_record_path(folder, record.job)
            raise CXRLitError(f"{path}: it varies other keys than the jobs before it: remove it, the job is run again")
    return records
