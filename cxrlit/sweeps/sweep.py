"""A sweep: run the points of a grid or a search by one of Hydra's launchers, and rank them as they end.

Hydra's own sweeper stops at the first job that fails, and leaves no table. Torch, Matplotlib and other slow packages
are imported after the points are checked, so that errors are reported at once.
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
    """What Hydra passes to a sweeper.

    Attributes:
        arguments: Overrides of the command line, without those of Hydra.
        config: The composed config, with swept keys at their defaults, and with Hydra's section.
        context: Loads the configs of the jobs.
        objective: Trains a config.
    """

    arguments: list[str]
    config: DictConfig
    context: HydraContext
    objective: TaskFunction

    @property
    def folder(self) -> Path:
        """The folder of the sweep, absolute."""
        return Path(self.config.hydra.sweep.dir).expanduser().absolute()

    def name_folder(self, name: str) -> Path:
        """Folder of a sweep that the same command resumes: the name replaces the time."""
        is_by_time = "${now:" in str(OmegaConf.to_container(self.config.hydra.sweep))  # no later command would find it
        return self.folder.with_name(name) if is_by_time else self.folder

    def check_point(self, overrides: Sequence[str]) -> TrainConfig:
        """Compose and check a point as its job will.

        Raises:
            ConfigError: It is invalid, needs several processes, or chooses its best epoch by another metric than the
                ranking.
        """
        chosen: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        config = read_config(compose_config("train", [*chosen, *overrides]), TrainConfig)
        check_one_process(config.trainer)
        if config.monitor != "val/auroc_macro":
            raise ConfigError(f"monitor={config.monitor}: the jobs of a sweep are ranked by val/auroc_macro: drop it")
        return config

    def check_parts(self, configs: Sequence[TrainConfig]) -> None:
        """Build and try what points name, and check that the launcher is installed; raises like ``check_recipe``."""
        from cxrlit.training.check_recipe import check_recipe
        from cxrlit.training.trainer import quiet_lightning

        quiet_lightning()
        launcher = self.config.hydra.runtime.choices["hydra/launcher"]
        if str(launcher).startswith("submitit"):  # its plugin imports it only in a job
            import_extra("submitit", "slurm", f"hydra/launcher={launcher}")
        for config in configs:
            check_recipe(config)


def run_grid(multirun: Multirun) -> None:
    """Run every combination of the values on the command line, and rank them.

    Raises:
        ConfigError: A point is invalid, or the launcher is not installed; nothing has run.
        CXRLitError: A job failed; all others have run.
        Interrupted: A signal stopped the sweep.
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
    """Return the arguments with ``evaluate=true`` unless they set ``evaluate``."""
    return [*arguments] if "evaluate" in map(name_key, arguments) else [*arguments, "evaluate=true"]


def list_points(arguments: Sequence[str]) -> list[Point]:
    """List every combination of the values of the swept keys; a single point if none is swept."""
    swept = {name_key(text) for text in list_swept(arguments)}
    return [
        Point(job, chosen, {name_key(text): text.partition("=")[2] for text in chosen if name_key(text) in swept})
        for job, chosen in enumerate(expand_sweep(arguments), 1)
    ]


def run_study(multirun: Multirun) -> None:
    """Run the unfinished trials of a study, and rank all trials.

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
    """Check the ends of a search space, and that nothing else sets its keys.

    Returns:
        The config that all trials share.

    Raises:
        ConfigError: An end is invalid, or an override sets a key of the space.
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
    """Run points in batches, rank them, and print the ranking; raises like ``run_grid``."""
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
    """Print the command that trains only the best point and, if seeds are swept, those for an ensemble."""
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
    """Print the commands that evaluate and export models of one split as an ensemble."""
    paths = [format_path(folder) for folder in folders]
    command = format_command(f"evaluate {quote_list_for_shell('ckpt', paths)}")
    say(f"Evaluate the mean of the {len(paths)} seeds: {command}")
    if len(paths) <= MAX_MEMBERS:
        command = format_command(f"export {shlex.join(paths)} --out bundle")
        say(f"Then hand it over as one bundle: {command}")


def place_files(config: DictConfig, folder: Path) -> None:
    """Place all files of a launcher in the folder of the sweep, in the config of the sweep and of each point."""
    config.hydra.sweep.dir = str(folder)
    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder))}")


def launch_points(multirun: Multirun, plan: Plan, points: list[Point]) -> None:
    """Launch points together, and wait until each has written its record."""
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
    except Exception as error:  # from the launcher, if a process died
        reason = first_line(error)
    for point in points:
        waiting = f"waiting for job {point.job}"
        with hold_lock(job_record_path(plan.folder, point.job), waiting):  # if another process died
            if read_job_record(plan.folder, point.job) is None:
                write_job_record(
                    plan.folder, Record(job=point.job, values=point.values, status="failed", reason=reason)
                )
                update_ranking(plan.folder)
