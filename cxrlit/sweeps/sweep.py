"""A sweep: the points of a grid or of a search, run by one of Hydra's launchers, ranked as they end.

Hydra's own sweeper stops at the first job that fails, and leaves no table. Its launchers are used as they are.
"""

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from hydra.utils import get_class
from omegaconf import DictConfig

from cxrlit.config import SweepConfig, TrainConfig, quote
from cxrlit.config.compose import expand_sweep, list_swept, name_key
from cxrlit.config.folders import list_own_options
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, say
from cxrlit.core.errors import ConfigError, CXRLitError, first_line
from cxrlit.core.files import hold_lock
from cxrlit.sweeps.job import Job
from cxrlit.sweeps.ranking import print_ranking, update_ranking
from cxrlit.sweeps.record import Plan, Point, Record, job_record_path, read_job_record, write_job_record


def run_sweep(
    task: Callable[..., Any], overrides: Sequence[str], config: TrainConfig, sweep: SweepConfig | None
) -> None:
    """Run every point, rank them, print the ranking; inside ``initialize_config_dir``.

    Args:
        task: Trains a config; takes callbacks that watch the goal, and returns a ``Result``.
        overrides: What the command line sets, checked.
        config: The first point (``check_points``).
        sweep: How the points are searched; None: they are a grid.

    Raises:
        ConfigError: What launches or searches is not installed.
        CXRLitError: A job failed. All others have run.
        Interrupted: A signal asked to stop.
    """
    points = list_points(overrides)
    home = Path(config.runs_dir) / config.run / "sweeps"
    master = compose_master(expand_sweep(overrides, multirun=True)[0])
    if sweep is None:
        plan = plan_grid(points, home, master.hydra.sweeper.max_batch_size)
    else:
        try:
            from cxrlit.sweeps.study import plan_study
        except ImportError:
            raise ConfigError(f"sweep={sweep.name} needs optuna: pip install 'cxrlit[sweeps]'") from None
        plan = plan_study(sweep, points[0].overrides, config, home)
    place_files(master, plan.folder)
    build_launcher(master)  # before anything is written
    with hold_lock(plan.folder, f"waiting for another process that runs {format_path(plan.folder)}"):
        for batch in plan.batches:
            launch_points(task, master, plan, batch)
    ranking, keys = update_ranking(plan.folder)
    print_ranking(ranking, keys, plan.folder)
    if ranking["status"].iloc[0] == "done":
        settings = [text for text in points[0].overrides if name_key(text) not in keys]
        best = [f"{key}={ranking[key].iloc[0]}" for key in keys]
        command = format_command(shlex.join(["train", *list_own_options(), *settings, *best]))
        say(f"Train the best, or go on from it: {command}")
    failed = ranking[ranking["status"] == "failed"]
    if len(failed):
        fault = failed.sort_values("job").iloc[0]
        raise CXRLitError(f"{len(failed)} of {len(ranking)} jobs failed, job {fault['job']} with: {fault['reason']}")


def list_points(overrides: Sequence[str]) -> list[Point]:
    """Every combination of the values of the swept keys; a single point where none is swept.

    What an override says of Hydra or of the search is no part of a point.
    """
    swept = list_swept(overrides)
    return [
        Point(
            job,
            [text for text in chosen if not name_key(text).startswith(("hydra", "sweep"))],
            {
                name_key(text): text.partition("=")[2]
                for text, given in zip(chosen, overrides, strict=True)
                if given in swept
            },
        )
        for job, chosen in enumerate(expand_sweep(overrides, multirun=True), 1)
    ]


def plan_grid(points: list[Point], home: Path, batch_size: int | None) -> Plan:
    """A sweep over points that are known.

    Args:
        points: All of them.
        home: Folder of all sweeps of the run.
        batch_size: Points that are launched together; None: all of them.
    """
    size = batch_size or len(points)
    batches = [points[start : start + size] for start in range(0, len(points), size)]
    return Plan(home / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"), len(points), batches)


def compose_master(overrides: Sequence[str]) -> DictConfig:
    """The config that launchers derive those of the points from, with Hydra's own part of it.

    Args:
        overrides: One value of each key.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.compose_config("train", list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False)


def place_files(master: DictConfig, folder: Path) -> None:
    """Let all files of a launcher go into the folder of the sweep: by the config, and by that of each point."""
    master.hydra.sweep.dir = str(folder)
    master.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder))}")


def build_launcher(master: DictConfig) -> Launcher:
    """The launcher that ``hydra/launcher`` names.

    Raises:
        ConfigError: What it needs is not installed, or it takes no such setting.
    """
    options = {str(key): value for key, value in master.hydra.launcher.items() if key != "_target_"}
    try:
        launcher = get_class(master.hydra.launcher["_target_"])(**options)
    except Exception as error:  # any class may be named in the config, and raise anything
        raise ConfigError(f"hydra/launcher: {first_line(error)}") from None
    if not isinstance(launcher, Launcher):
        raise ConfigError(f"hydra/launcher: {type(launcher).__name__} is no launcher of Hydra")
    return launcher


def launch_points(task: Callable[..., Any], master: DictConfig, plan: Plan, points: list[Point]) -> None:
    """Launch points together, and wait until each has left its record."""
    for point in points:
        job_record_path(plan.folder, point.job).unlink(missing_ok=True)
    job = Job(task, plan.folder, points, plan.n_jobs, plan.sweep)
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    launcher = build_launcher(master)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(master))
    launcher.setup(hydra_context=context, task_function=job, config=master)
    if not isinstance(launcher, BasicLauncher):
        say(f"Launching {len(points)} jobs with {type(launcher).__name__}; what they leave: {format_path(plan.folder)}")
    reason = "its process ended without a result"
    try:
        launcher.launch([point.overrides for point in points], initial_job_idx=0)
    except Exception as error:  # of the launcher, where a process died
        reason = first_line(error)
    for point in points:
        waiting = f"waiting for job {point.job}"
        with hold_lock(job_record_path(plan.folder, point.job), waiting):  # where another one died
            if read_job_record(plan.folder, point.job) is None:
                write_job_record(
                    plan.folder, Record(job=point.job, values=point.values, status="failed", reason=reason)
                )
                update_ranking(plan.folder)
