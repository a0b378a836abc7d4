"""Train up to a goal: plan the chain, reuse finished phases, resume interrupted ones, run the rest."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning import Callback

from cxrlit.config import ModelConfig, Precision, TrainConfig
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, say
from cxrlit.core.distributed import join_ranks
from cxrlit.core.ranks import on_rank_0, rank_0_first
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.sources.registry import name_sources
from cxrlit.data.split import name_patients_sources
from cxrlit.model.checkpoint import find_checkpoint, read_checkpoint
from cxrlit.model.start import start_network
from cxrlit.model.weights.open_weights import name_configured, open_configured
from cxrlit.model.weights.seen import find_saw_of_ancestor, name_seen
from cxrlit.training.check_recipe import (
    build_epoch_metrics,
    check_recipe,
    check_schedule,
    describe_slow_average,
    name_idle_keys,
)
from cxrlit.training.checks import check_ancestors, check_images, check_seen, check_start, warn_labels
from cxrlit.training.hardware import choose_precision
from cxrlit.training.phase import PhaseRun
from cxrlit.training.phase_folder import Result, read_chain_seconds
from cxrlit.training.plan import PlannedPhase, hash_start, plan_chain, print_data, print_plan
from cxrlit.training.trainer import quiet_lightning


class Start(NamedTuple):
    """The starting weights of a chain.

    Attributes:
        checkpoint: The checkpoint that ``init_from`` names; None: ``model.weights``.
        trained_patients: Patients that it was trained on.
        content: Hash of the weights.
        model: The settings of the network, with the weights' normalization and the data that they saw.
    """

    checkpoint: Path | None
    trained_patients: set[str]
    content: str
    model: ModelConfig


def train(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> Result:
    """Train the goal and the phases before it; finished phases are reused.

    Args:
        config: From ``read_config``.
        callbacks: Callbacks that watch the goal and change no result; they are not part of the phase's id.

    Returns:
        The result of the goal.

    Raises:
        CXRLitError: An error that the user can correct; no file is left half-written.
    """
    quiet_lightning()
    choose_precision(config.trainer.precision, config.trainer.accelerator)  # fails before any work
    join_ranks(config.trainer)
    on_rank_0(check_recipe)(config)
    start = read_start(config)
    if start.checkpoint is not None:
        config = config.model_copy(update={"init_from": str(start.checkpoint)})
    data = rank_0_first(load_data)(config.data, config.labels, Path(config.cache_dir))
    if start.checkpoint is None:
        start = read_weights(config, start)
    config = config.model_copy(update={"model": start.model})
    phases, precision = plan_and_check(config, data, start)

    previous, goal = start.checkpoint, phases[-1]
    for number, phase in enumerate(phases, start=1):
        if phase.status != "not needed":
            later = [other for other in phases[number:] if other.is_to_run]
            watching = callbacks if phase is goal else ()
            result = PhaseRun(phase, config, data, precision, previous, later, watching).complete()
        previous = phase.folder
    say(f"Trained: {format_path(result.folder)} ({result.describe()}, {data.describe_split()})")
    say(f"Evaluate it: {format_command(f'evaluate ckpt={format_path(result.folder)}')}")
    return result._replace(seconds=read_chain_seconds([phase.folder for phase in phases]))


def plan_quietly(config: TrainConfig, data: SplitData) -> list[PlannedPhase]:
    """Plan the phases of a chain as ``train`` does, without printing.

    Args:
        config: From ``read_config``.
        data: Index and split of the config's data.

    Raises:
        CXRLitError: As for ``train``.
    """
    quiet_lightning()
    start = read_start(config)
    if start.checkpoint is not None:
        config = config.model_copy(update={"init_from": str(start.checkpoint)})
    else:
        start = read_weights(config, start, is_said=False)
    return plan_chain(config.model_copy(update={"model": start.model}), data, start.content)[0]


@on_rank_0
def read_start(config: TrainConfig) -> Start:
    """Read and check the starting weights of a chain.

    Raises:
        CheckpointError: The checkpoint or the file of weights cannot be used.
        ConfigError: The checkpoint has other labels or another normalization.
    """
    if config.init_from is None:
        return Start(None, set(), hash_start(config), config.model)
    path = find_checkpoint(Path(config.init_from)).resolve()
    checkpoint = read_checkpoint(path)
    check_start(checkpoint, config)
    content = hash_start(config.model_copy(update={"init_from": str(path)}))
    theirs = checkpoint.config.model
    said = name_seen(config.model.weights_saw, [*name_sources(config.data), *(theirs.weights_saw or ())])
    saw = find_saw_of_ancestor(theirs, said)
    model = settle_model(config.model, theirs.normalize, saw)
    return Start(path, set(checkpoint.metadata.trained_patients), content, model)


@on_rank_0
def read_weights(config: TrainConfig, start: Start, is_said: bool = True) -> Start:
    """Add to the start what is known of ``model.weights``, and print it if ``is_said``.

    Raises:
        CheckpointError: The weights cannot be used.
        ConfigError: The weights contradict the config.
    """
    said = name_seen(config.model.weights_saw, name_sources(config.data))
    asked = config.model.model_copy(update={"weights_saw": said})
    weights = name_configured(asked) or open_configured(asked)
    for line in weights.describe(config.labels if config.model.take_head else ()) if is_said else ():
        say(line)
    model = settle_model(config.model, weights.normalize, weights.saw)
    return start._replace(trained_patients=set(weights.trained_patients), model=model)


def settle_model(model: ModelConfig, normalize: str, saw: Sequence[str] | None) -> ModelConfig:
    """Return the settings of the network with the normalization and the data seen of its weights."""
    return model.model_copy(update={"normalize": normalize, "weights_saw": None if saw is None else list(saw)})


@on_rank_0
def plan_and_check(config: TrainConfig, data: SplitData, start: Start) -> tuple[list[PlannedPhase], Precision]:
    """Plan the chain, print the plan and check it, before anything is written."""
    check_ancestors(data, start.trained_patients)
    check_seen(config.model, data, name_patients_sources(start.trained_patients))
    phases, precision = plan_chain(config, data, start.content)
    print_data(data)
    print_plan(phases, precision)
    for line in name_idle_keys(config):
        say(f"warning: {line}", style="yellow")
    if any(phase.is_to_run for phase in phases):
        warn_labels(data)
    metrics = build_epoch_metrics(config)
    for phase in phases:
        if phase.is_to_run:
            n_train = int((data.split["split"] == "train").sum())
            check_schedule(phase.name, config, metrics, n_train)
            if said := describe_slow_average(phase.name, config, n_train):
                say(f"warning: {said}", style="yellow")
        elif phase.status == "done":
            check_images(phase, config, data)
    if phases[0].is_to_run:
        start_network(config, start.checkpoint)
    return phases, precision
