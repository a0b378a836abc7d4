"""A sweep: the points of a grid or of a search, run by one of Hydra's launchers, ranked as they end.

Hydra's own sweeper stops at the first job that fails, and leaves no table. Torch, Matplotlib and the like are imported
after the points are checked, so that a fault is said at once.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cxrlit.config import MAX_MEMBERS, GridConfig, SweepConfig, TrainConfig, quote, read_config, read_sweeper
from cxrlit.config.compose import compose_config, expand_sweep, list_swept
from cxrlit.config.folders import list_own_options
from cxrlit.config.overrides import name_key, quote_list_for_shell
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, say
from cxrlit.core.errors import ConfigError, CXRLitError, first_line, format_count
from cxrlit.core.extras import import_extra
from cxrlit.core.files import hash_value, hold_lock, write_text
from cxrlit.sweeps.objective import Objective, check_one_process
from cxrlit.sweeps.record import (
    FOLD,
    LEVER,
    RECORD_VERSION,
    Plan,
    Point,
    Record,
    job_record_path,
    read_job_record,
    write_job_record,
)

if TYPE_CHECKING:
    import pandas as pd


class Multirun(NamedTuple):
    """What Hydra hands to a sweeper.

    Attributes:
        arguments: What the command line sets, without what is Hydra's own.
        config: What it composes to, with the defaults of what is swept, and with Hydra's own part.
        context: Loads the configs of the jobs.
        objective: Trains one.
    """

    arguments: list[str]
    config: DictConfig
    context: HydraContext
    objective: TaskFunction

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir).expanduser().absolute()

    def name_folder(self, name: str) -> Path:
        """The folder of a sweep that the same command goes on with: by a name in place of the time."""
        is_by_time = "${now:" in str(OmegaConf.to_container(self.config.hydra.sweep))  # nobody would find it again
        return self.folder.with_name(name) if is_by_time else self.folder

    def check_point(self, overrides: Sequence[str]) -> TrainConfig:
        """Compose and check a point as its job will.

        Raises:
            ConfigError: It is no config, needs several processes, or chooses its best epoch by another metric than the
                ranking.
        """
        chosen: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        config = read_config(compose_config("train", [*chosen, *overrides]), TrainConfig)
        check_one_process(config.trainer)
        if config.monitor != "val/auroc_macro":
            raise ConfigError(f"monitor={config.monitor}: the jobs of a sweep are ranked by val/auroc_macro: drop it")
        return config

    def check_parts(self, configs: Sequence[TrainConfig]) -> None:
        """Build and try what points name, and see that the launcher's package is there; raises as ``check_recipe``."""
        from cxrlit.training.check_recipe import check_recipe
        from cxrlit.training.trainer import quiet_lightning

        quiet_lightning()
        launcher = self.config.hydra.runtime.choices["hydra/launcher"]
        if str(launcher).startswith("submitit"):  # its plugin imports it in a job alone
            import_extra("submitit", "slurm", f"hydra/launcher={launcher}")
        for config in configs:
            check_recipe(config)


def run_grid(multirun: Multirun) -> None:
    """Run every combination of the values on the command line, and rank them.

    Raises:
        ConfigError: A point is no config, or what launches is not installed. Nothing has run.
        CXRLitError: A job failed. All others have run.
        Interrupted: A signal asked to stop.
    """
    settings = read_sweeper(multirun.config, GridConfig)
    given = {name_key(text) for text in multirun.arguments}
    params = [f"{key}={text}" for key, text in (settings.params or {}).items() if key not in given]
    arguments = [*params, *multirun.arguments]
    if FOLD in map(name_key, list_swept(arguments)):
        arguments = evaluate_all(arguments)
    multirun = multirun._replace(arguments=arguments)
    points = list_points(multirun.arguments)
    multirun.check_parts([multirun.check_point(point.overrides) for point in points])
    size = settings.max_batch_size or len(points)
    batches = [points[start : start + size] for start in range(0, len(points), size)]
    points_id = hash_value([RECORD_VERSION, [point.overrides for point in points]])
    run_points(multirun, Plan(multirun.folder, len(points), batches, points_id))


def evaluate_all(arguments: Sequence[str]) -> list[str]:
    """The arguments of points that are evaluated unless ``evaluate`` says otherwise."""
    return [*arguments] if "evaluate" in map(name_key, arguments) else [*arguments, "evaluate=true"]


def list_points(arguments: Sequence[str]) -> list[Point]:
    """Every combination of the values of the swept keys; a single point where none is swept."""
    swept = {name_key(text) for text in list_swept(arguments)}
    return [
        Point(job, chosen, {name_key(text): text.partition("=")[2] for text in chosen if name_key(text) in swept})
        for job, chosen in enumerate(expand_sweep(arguments), 1)
    ]


def run_study(multirun: Multirun) -> None:
    """Run the trials of a study that are not finished, and rank all of them.

    Raises:
        ConfigError, CXRLitError, Interrupted: As for ``run_grid``.
    """
    search = read_sweeper(multirun.config, SweepConfig)
    import_extra("optuna", "sweeps", "hydra/sweeper=optuna")
    config = check_search(multirun, search)
    from cxrlit.sweeps.study import hash_study, run_trials

    study_id = hash_study(search, config)
    folder = multirun.name_folder(f"optuna-{study_id}")
    trials = run_trials(search, multirun.arguments, folder)
    run_points(multirun, Plan(folder, search.n_trials, trials, study_id, search))


def check_search(multirun: Multirun, search: SweepConfig) -> TrainConfig:
    """Check the ends of a space, and that nothing else sets its keys.

    Returns:
        The config that all trials share.

    Raises:
        ConfigError: An end is no config, or an override sets a key of the space.
    """
    for text in list_swept(multirun.arguments):
        key, _, values = text.partition("=")
        remedy = f"+hydra.sweeper.space.{key}.choices=[{values}]"
        raise ConfigError(f"{text}: hydra/sweeper=optuna searches a space: {remedy}")
    for text in multirun.arguments:
        key = name_key(text)
        if key in search.space:
            remedy = f"drop it here, or set hydra.sweeper.space.{key}=null"
            raise ConfigError(f"{text}: hydra.sweeper.space searches {key}: {remedy}")
    config = multirun.check_point(multirun.arguments)
    for corner in search.list_corners():
        try:
            multirun.check_point([*multirun.arguments, *corner])
        except ConfigError as error:
            raise ConfigError(f"hydra.sweeper.space: {error}") from None
    multirun.check_parts([config])
    return config


def run_points(multirun: Multirun, plan: Plan) -> None:
    """Run points by batches, rank them, print the ranking; raises as ``run_grid``."""
    from cxrlit.sweeps.ablation_report import report_ablation
    from cxrlit.sweeps.folds import report_folds
    from cxrlit.sweeps.ranking import print_ranking, update_ranking

    folder = plan.folder
    place_files(multirun.config, folder)
    with hold_lock(folder, f"waiting for another process that runs {format_path(folder)}"):
        mark = folder / "sweep.id"
        if mark.is_file() and mark.read_text(encoding="utf-8") != plan.id:
            raise ConfigError(f"hydra.sweep.dir={folder}: it holds another sweep: choose another folder")
        write_text(mark, plan.id)
        for batch in plan.batches:
            launch_points(multirun, plan, batch)
    ranking, keys = update_ranking(folder)
    print_ranking(ranking, keys, folder)
    if LEVER in keys:
        report_ablation(folder)
    elif FOLD in keys:
        report_folds(folder)
    elif ranking["status"].iloc[0] == "done":
        say_best(multirun, ranking, keys)
    failed = ranking[ranking["status"] == "failed"]
    if len(failed):
        fault = failed.sort_values("job").iloc[0]
        raise CXRLitError(f"{len(failed)} of {len(ranking)} jobs failed, job {fault['job']} with: {fault['reason']}")


def say_best(multirun: Multirun, ranking: "pd.DataFrame", keys: list[str]) -> None:
    """The command that trains the best point alone, and what its other seeds are good for."""
    from cxrlit.sweeps.ranking import list_members

    settings = [text for text in multirun.arguments if name_key(text) not in keys]
    best = [f"{key}={ranking[key].iloc[0]}" for key in keys]
    command = format_command(shlex.join(["train", *list_own_options(), *settings, *best]))
    say(f"Train the best, or go on from it: {command}")
    above = Path(multirun.config.runs_dir).expanduser().absolute().parent
    folders = [above / name for name in list_members(ranking, keys)]
    if len(folders) > 1 and "runs_dir" not in keys:
        say_ensemble(folders)


def say_ensemble(folders: Sequence[Path]) -> None:
    """The commands that average models of one split, and hand them over as one."""
    paths = [format_path(folder) for folder in folders]
    command = format_command(f"evaluate {quote_list_for_shell('ckpt', paths)}")
    say(f"Evaluate the mean of the {len(paths)} seeds: {command}")
    if len(paths) <= MAX_MEMBERS:
        command = format_command(f"export {shlex.join(paths)} --out bundle")
        say(f"Then hand it over as one bundle: {command}")


def place_files(config: DictConfig, folder: Path) -> None:
    """Let all files of a launcher go into the folder of the sweep: by the config, and by that of each point."""
    config.hydra.sweep.dir = str(folder)
    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder))}")


def launch_points(multirun: Multirun, plan: Plan, points: list[Point]) -> None:
    """Launch points together, and wait until each has left its record."""
    from cxrlit.sweeps.job import Job
    from cxrlit.sweeps.ranking import update_ranking

    for point in points:
        job_record_path(plan.folder, point.job).unlink(missing_ok=True)
    assert isinstance(multirun.objective, Objective)
    job = Job(multirun.objective.task, plan.folder, points, plan.n_jobs, plan.search)
    launcher = Plugins.instance().instantiate_launcher(multirun.context, job, multirun.config)
    name = multirun.config.hydra.runtime.choices["hydra/launcher"]
    if name != "basic":
        say(f"Launching {format_count(len(points), 'job')} with {name}; what they leave: {format_path(plan.folder)}")
    reason = "its process ended without a result"
    try:
        launcher.launch([point.overrides for point in points], initial_job_idx=points[0].number)
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
