"""Ablation: train a baseline and each lever alone as the points of a sweep; ``ablation_report.py`` makes the table."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from cxrlit.config import AblationConfig, TrainConfig, read_sweeper
from cxrlit.config.compose import list_swept
from cxrlit.config.overrides import name_key
from cxrlit.core.console import print_table, progress_steps, say
from cxrlit.core.errors import ConfigError, format_count
from cxrlit.core.files import hash_value
from cxrlit.sweeps.record import BASELINE, FOLD, LEVER, RECORD_VERSION, Plan, Point
from cxrlit.sweeps.sweep import Multirun, evaluate_all, list_points, run_points

if TYPE_CHECKING:
    from cxrlit.training.plan import PlannedPhase

REPEATED = ("seed", FOLD)
"""Keys that an ablation may repeat over."""


def run_ablation(multirun: Multirun) -> None:
    """Print the plan of the ablation, run its points, and report the change that each lever makes.

    Raises:
        ConfigError: A lever or a point is invalid; nothing has run.
        CXRLitError: The data cannot be read, or a job failed after all others have run.
        Interrupted: A signal stopped the sweep.
    """
    settings = read_sweeper(multirun.config, AblationConfig)
    arguments = evaluate_all(multirun.arguments)
    levers = choose_levers(settings)
    points = list_ablation(arguments, levers)
    configs = [check_lever(multirun, point) for point in points]
    refuse_same(list(levers), configs)
    multirun = multirun._replace(arguments=arguments)
    multirun.check_parts(configs)
    show_plan(points, configs)
    points_id = hash_value([RECORD_VERSION, [[point.overrides, point.values] for point in points]], digits=8)
    folder = multirun.name_folder(f"ablation-{points_id}")
    run_points(multirun, Plan(folder, len(points), [points], points_id))


def choose_levers(settings: AblationConfig) -> Mapping[str, list[str]]:
    """Choose the levers to try and their overrides, the baseline first.

    Raises:
        ConfigError: No lever is named, one is named twice, or one is unknown.
    """
    there = ", ".join(settings.levers)
    if not settings.change:
        raise ConfigError(f"hydra.sweeper.change names the levers to try: change=[{next(iter(settings.levers), '')}]; "
                          f"there are {there}")  # fmt: skip
    for name in settings.change:
        if name not in settings.levers:
            close = get_close_matches(name, settings.levers, n=1)
            raise ConfigError(f"change={name}: there is no such lever; " + (f"did you mean {close[0]}?" if close else
                              f"there are {there}"))  # fmt: skip
    if len(set(settings.change)) < len(settings.change) or BASELINE in settings.change:
        raise ConfigError(f"change names each lever once; {BASELINE} is always there")
    return {BASELINE: [], **{name: settings.levers[name] for name in settings.change}}


def list_ablation(arguments: Sequence[str], levers: Mapping[str, Sequence[str]]) -> list[Point]:
    """List the points: the baseline and each lever alone, once for each seed and fold.

    Args:
        arguments: The command line of the baseline.
        levers: Overrides of each lever; they replace the baseline's overrides of the same key.

    Raises:
        ConfigError: The command line varies another key, or a lever contradicts it or itself.
    """
    swept = [name_key(text) for text in list_swept(arguments)]
    for key in swept:
        if key not in REPEATED:
            raise ConfigError(
                f"{key}: an ablation repeats over {' and '.join(REPEATED)} alone: make each value of it a lever: "
                f"'+levers.NAME=[\"{key}=VALUE\"]'"
            )
    for name, overrides in levers.items():
        keys = [name_key(text) for text in overrides]
        for text in list_swept(overrides):
            raise ConfigError(f"lever {name}: {text}: it takes one value")
        for key in keys:
            if key in swept:
                raise ConfigError(f"lever {name} sets {key}, over which the ablation repeats: drop one of the two")
            if keys.count(key) > 1:
                raise ConfigError(f"lever {name} sets {key} twice")
    points: list[Point] = []
    for repeat in list_points(arguments):
        for name, overrides in levers.items():
            changed = set(map(name_key, overrides))
            kept = [text for text in repeat.overrides if name_key(text) not in changed]
            points.append(Point(len(points) + 1, [*kept, *overrides], {LEVER: name, **repeat.values}))
    return points


def check_lever(multirun: Multirun, point: Point) -> TrainConfig:
    """Check a point as its job will.

    Raises:
        ConfigError: It is invalid, or has no evaluation.
    """
    try:
        config = multirun.check_point(point.overrides)
    except ConfigError as error:
        if point.values[LEVER] == BASELINE:
            raise
        raise ConfigError(f"lever {point.values[LEVER]}: {error}") from None
    if not config.evaluate:
        raise ConfigError("evaluate=false: an ablation compares evaluations: drop it")
    return config


def refuse_same(levers: Sequence[str], configs: Sequence[TrainConfig]) -> None:
    """Check that every lever changes the baseline, and that no two levers are equal.

    Args:
        levers: Names of the levers, the baseline first.
        configs: Configs of the points; the first ones are one of each lever, in order.

    Raises:
        ConfigError: A lever changes nothing, or two are equal.
    """
    seen: dict[str, str] = {}
    for name, config in zip(levers, configs, strict=False):
        same = seen.setdefault(config.model_dump_json(), name)
        if same != name:
            what = "changes nothing of the baseline" if same == BASELINE else f"changes the same as {same}"
            raise ConfigError(f"lever {name} {what}: drop it")


def show_plan(points: Sequence[Point], configs: Sequence[TrainConfig]) -> None:
    """Print the changes of each lever, and the phases that it trains and shares.

    Raises:
        ConfigError: A lever changes no phase.
        CXRLitError: The data or the weights cannot be read.
    """
    chains: list[list[PlannedPhase]] = []
    with progress_steps(len(points)) as step:
        for point, chain in zip(points, plan_points(configs), strict=False):
            step(f"plan of job {point.job}")
            chains.append(chain)
    n_levers = len({point.values[LEVER] for point in points})
    table = Table(title="The ablation", title_justify="left")
    for column in ("lever", "changes", "phases of its own", "shared with the baseline"):
        table.add_column(column, overflow="fold")
    own = {phase.id for phase in chains[0]}
    base = set(points[0].overrides)
    for point, chain in zip(points[:n_levers], chains, strict=False):
        is_baseline = point.values[LEVER] == BASELINE
        shared = [phase.name for phase in chain if phase.id in own and not is_baseline]
        alone = [phase.name for phase in chain if phase.name not in shared]
        if not alone and len(chain) == len(own):
            raise ConfigError(f"lever {point.values[LEVER]} trains the same phases as the baseline: drop it")
        changes = " ".join(text for text in point.overrides if text not in base)
        table.add_row(point.values[LEVER], changes, ", ".join(alone), ", ".join(shared))
    print_table(table)
    phases = {phase.folder: phase for chain in chains for phase in chain}
    n_to_run = sum(phase.is_to_run for phase in phases.values())
    say(
        f"{format_count(len(points), 'training')}: {format_count(n_levers - 1, 'lever')} and the baseline, each "
        f"{format_count(len(points) // n_levers, 'time')}; {format_count(len(phases), 'phase')} in all, "
        f"{n_to_run} to train"
    )


def plan_points(configs: Sequence[TrainConfig]) -> "Iterator[list[PlannedPhase]]":
    """Plan the chain of each config; data that several configs share are read once."""
    from cxrlit.data.dataset import SplitData, load_data
    from cxrlit.training.chain import plan_quietly

    read: dict[str, SplitData] = {}
    for config in configs:
        key = hash_value([config.data.model_dump(mode="json"), config.labels, config.cache_dir])
        if key not in read:
            read[key] = load_data(config.data, config.labels, Path(config.cache_dir))
        yield plan_quietly(config, read[key])
