"""A worker of ``cxrlit predict --engine ray``: an actor of Ray Data that loads the bundle once and predicts files.

Ray is sent the code of this file and not its name, so that a machine without cxrlit can say so: nothing of cxrlit is
imported here before its version is compared. A fault is a row in place of those of the files, since Ray folds what an
actor raises into pages of text.
"""

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        version: Version of cxrlit where the command runs.
        bundle: The bundle, by its reference in Ray's store.
        settings: What ``Predictor.from_bundle`` takes.
        heatmaps: Draw them.
        folder: The folder that relative names of files start from; None: no name is relative.
        batch_size: None: that of the backend.
        backend: Description of the backend that all workers are to have; empty: any.
    """

    version: str
    bundle: Any
    settings: dict[str, Any]
    heatmaps: bool
    folder: str | None
    batch_size: int | None
    backend: str = ""


class RayWorker:
    """Predicts files of a job.

    Args:
        job: What to do.

    Attributes:
        fault: Why it cannot; empty where it can.
        predictor: The bundle, ready; None where there is a fault.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.fault = ""
        self.predictor: Any = None
        try:
            import cxrlit
        except ImportError as error:
            self.fault = name_worker(f"cxrlit cannot be imported ({error}): install cxrlit {job.version} there")
            return
        if cxrlit.__version__ != job.version:
            self.fault = name_worker(f"it has cxrlit {cxrlit.__version__}, and not {job.version}: install that there")
            return
        try:
            self.predictor = load_predictor(job)
        except Exception as error:
            self.fault = describe_fault(error)
            return
        backend = self.predictor.backend.description
        if job.backend not in ("", backend):
            self.fault = name_worker(f"it computes with {backend}, another one with {job.backend}: take alike workers")

    def __call__(self, batch: Any) -> Iterator[Any]:
        """Predict files.

        Args:
            batch: An Arrow table. Its column ``file`` has the fields of ``Listed`` as JSON, which can hold a name that
                is no Unicode.

        Yields:
            Arrow tables with the columns ``row``, as JSON, and ``picture``, the heatmaps as PNG.
        """
        if self.fault:
            yield pack([{"fault": self.fault}], [b""])
            return
        from cxrlit.core.errors import DataError
        from cxrlit.handoff.predict_rows import predict_rows
        from cxrlit.handoff.read_inputs import Listed

        files = [Listed(*json.loads(text)) for text in batch["file"].to_pylist()]
        waiting = iter(files)
        try:
            for made in predict_rows(self.predictor, files, self.job.heatmaps, self.job.batch_size):
                for one, file in zip(made, waiting, strict=False):
                    if one.row["reason"] and not file.reason and not os.path.lexists(file.path):
                        raise DataError(f"{file.path}: there is no such file; each worker needs all files")
                yield pack([one.row for one in made], [one.picture for one in made])
        except Exception as error:
            yield pack([{"fault": describe_fault(error)}], [b""])


def probe(job: Job) -> dict[str, Any]:
    """What a worker computes with: ``backend``, ``description`` and ``batch_size``; or its ``fault``."""
    worker = RayWorker(job)
    if worker.fault:
        return {"fault": worker.fault}
    backend = worker.predictor.backend
    return {
        "backend": backend.description,
        "description": worker.predictor.description,
        "batch_size": job.batch_size or backend.batch_size,
    }


def load_predictor(job: Job) -> Any:
    """The predictor of a job, in the folder that its relative names start from."""
    import ray

    from cxrlit.handoff.predictor import Predictor

    if job.folder is not None:
        os.chdir(job.folder)
    predictor = Predictor.from_bundle(ray.get(job.bundle), **job.settings)
    predictor.n_readers = job.settings["n_threads"]
    return predictor


def pack(rows: list[dict[str, Any]], pictures: list[bytes]) -> Any:
    """An Arrow table."""
    import pyarrow

    return pyarrow.table({"row": [json.dumps(row) for row in rows], "picture": pyarrow.array(pictures, "binary")})


def describe_fault(error: Exception) -> str:
    """What a user can mend, as a line; raises anything else."""
    from cxrlit.core.exit_on_error import name_fault

    fault = name_fault(error)
    if fault is None:
        raise error
    return name_worker(str(fault))


def name_worker(fault: str) -> str:
    """A fault with the machine that has it."""
    return f"Ray worker on {platform.node()}: {fault}"
