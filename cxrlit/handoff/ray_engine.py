"""``cxrlit predict --engine ray``: files on the workers of a Ray cluster, by Ray Data.

Ray keeps the order of the files and gives those of a worker that died to another one. The batches are those that one
machine would make, and the journal is written here: table and resume are those of one machine.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cxrlit
from cxrlit.core.errors import ConfigError, CXRLitError, first_line, format_count
from cxrlit.core.extras import import_extra
from cxrlit.handoff import ray_worker
from cxrlit.handoff.bundle import read_bundle
from cxrlit.handoff.engine import Engine, PredictOptions
from cxrlit.handoff.predict_rows import Done
from cxrlit.handoff.ray_worker import Job, RayWorker
from cxrlit.handoff.read_inputs import Listed

MOST_BATCHES = 8
"""Batches of a task: a worker reads ahead within a task, and repeats the task of a worker that died."""


@dataclass(frozen=True)
class Share:
    """What each worker is given.

    Attributes:
        n_cpus: CPUs, and as many threads.
        n_gpus: 0 or 1.
        n_workers: Workers that the cluster has room for.
    """

    n_cpus: int
    n_gpus: int
    n_workers: int


@contextmanager
def open_ray(options: PredictOptions) -> Iterator[Engine]:
    """The engine of the Ray cluster that ``RAY_ADDRESS`` names, else of one that Ray starts on this machine.

    Raises:
        CXRLitError: Ray is not installed or not reached, the bundle cannot be used, or a worker cannot do the job.
    """
    ray, _, _ = (import_extra(module, "ray", "--engine ray") for module in ("ray", "pyarrow", "ray.data"))
    bundle = read_bundle(options.bundle)
    with connect(ray):
        ray.cloudpickle.register_pickle_by_value(ray_worker)
        share = choose_share([node["Resources"] for node in ray.nodes() if node["Alive"]], options)
        device = "cuda" if share.n_gpus else "cpu" if options.device == "auto" else options.device
        job = Job(
            version=cxrlit.__version__,
            bundle=ray.put(bundle),
            settings={
                "backend": options.backend,
                "precision": options.precision,
                "n_threads": share.n_cpus,
                "device": device,
                "compiles": options.compiles,
            },
            heatmaps=options.heatmaps,
            folder=None if all(path.expanduser().is_absolute() for path in options.files) else str(Path.cwd()),
            batch_size=options.batch_size,
        )
        probe = ray.remote(num_cpus=share.n_cpus, num_gpus=share.n_gpus)(ray_worker.probe)
        found = ray.get(probe.remote(job))
        check_fault(found)
        job = replace(job, batch_size=found["batch_size"], backend=found["backend"])
        yield Engine(
            bundle,
            found["backend"],
            f"{found['description']}, {format_count(share.n_workers, 'Ray worker')}",
            found["batch_size"],
            lambda files: predict_on_ray(ray, job, share, files),
        )


@contextmanager
def connect(ray: Any) -> Iterator[None]:
    """Inside the block Ray is connected. It reports no usage to its makers, opens no dashboard, and logs errors only.

    Raises:
        CXRLitError: It cannot be reached, or loses what it needs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        address = None if os.environ.get("RAY_ADDRESS") else "local"  # None: that of RAY_ADDRESS
        ray.init(address, include_dashboard=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConfigError(f"--engine ray: {first_line(error, 300)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    except ray.exceptions.RayTaskError:  # raised by our own code
        raise
    except ray.exceptions.RayError as error:
        raise CXRLitError(f"--engine ray: {first_line(error, 300)}") from None
    finally:
        ray.shutdown()


def choose_share(nodes: Sequence[Mapping[str, float]], options: PredictOptions) -> Share:
    """What each worker is given: so many CPUs as ``n_threads`` says, else an even share of the smallest node.

    Args:
        nodes: CPU and GPU of each node of the cluster, as Ray names them.
        options: Its device decides whether a worker has a GPU; ``auto``: where the cluster has one.

    Raises:
        ConfigError: No node has room for a worker.
    """
    takes_torch = options.backend in ("auto", "torch") and options.precision != "int8"
    on_gpu = options.device == "cuda" or (
        options.device == "auto" and takes_torch and any(node.get("GPU", 0) >= 1 for node in nodes)
    )
    rooms = [(int(node.get("CPU", 0)), int(node.get("GPU", 0)) if on_gpu else 1) for node in nodes]
    rooms = [(n_cpus, n_places) for n_cpus, n_places in rooms if n_cpus and n_places]
    n_cpus = options.n_threads or min((max(n_cpus // n_places, 1) for n_cpus, n_places in rooms), default=1)
    n_workers = sum(min(room // n_cpus, n_places) if on_gpu else room // n_cpus for room, n_places in rooms)
    if not n_workers:
        wanted = f"{format_count(n_cpus, 'CPU')}{' and a GPU' if on_gpu else ''}"
        raise ConfigError(f"--engine ray: no node of the cluster has {wanted}: see ray status, --threads and --device")
    return Share(n_cpus, int(on_gpu), n_workers)


def predict_on_ray(ray: Any, job: Job, share: Share, files: Sequence[Listed]) -> Iterator[list[Done]]:
    """Predict files batch by batch, in their order.

    Args:
        ray: Ray, connected.
        job: With its ``batch_size``.
        share: What each worker is given.
        files: From ``list_files``.

    Raises:
        CXRLitError: A worker cannot do the job.
    """
    import pyarrow

    assert job.batch_size is not None
    n_batches = -(-len(files) // job.batch_size)
    n_files = job.batch_size * min(max(n_batches // (4 * share.n_workers), 1), MOST_BATCHES)  # of a task
    tables = [
        pyarrow.table({"file": [json.dumps(file) for file in files[start : start + n_files]]})
        for start in range(0, len(files), n_files)
    ]
    if not tables:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    dataset = ray.data.from_arrow(tables).map_batches(
        RayWorker,
        fn_constructor_args=[job],
        batch_size=n_files,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(share.n_workers, len(tables))),
        num_cpus=share.n_cpus,
        num_gpus=share.n_gpus,
    )
    for batch in dataset.iter_batches(batch_size=job.batch_size, batch_format="pyarrow"):
        rows = [json.loads(row) for row in batch["row"].to_pylist()]
        for row in rows:
            check_fault(row)
        yield [Done(row, picture) for row, picture in zip(rows, batch["picture"].to_pylist(), strict=True)]


def check_fault(answer: Mapping[str, Any]) -> None:
    """Raise what a worker says in place of an answer.

    Raises:
        CXRLitError: It says a fault.
    """
    if "fault" in answer:
        raise CXRLitError(answer["fault"])
