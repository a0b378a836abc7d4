"""The way from a command line to a checked config, and from a fault to one line.

Hydra composes, sweeps and parses; what it cannot do is done here: every point of the command line is checked before
any work, also those of a sweep, and no message of a fault that the user can mend is longer than a line.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from cxrlit.config import MachineConfig, Section, SectionT, TrainConfig, read_config, read_sweep
from cxrlit.config.compose import compose_config, expand_sweep, list_swept, name_key
from cxrlit.core.errors import ConfigError
from cxrlit.core.faults import name_fault, stop
from cxrlit.core.ranks import rank
from cxrlit.core.signals import Interrupted, catch_signals

BATCH_SIZE = "hydra.sweeper.max_batch_size"
"""The one key of Hydra's own sweeper that is heard: points that are launched together."""


def launch(
    main: Callable[[], Any],
    config_dir: Path,
    config_name: str,
    schema: type[Section],
    task: Callable[..., Any] | None = None,
) -> None:
    """Check the command line, then run a function that ``hydra.main`` decorated, or a sweep.

    Args:
        main: The decorated function.
        config_dir: Absolute path of ``conf/``.
        config_name: ``train`` or ``evaluate``.
        schema: What its config must be.
        task: What a sweep runs for each point (``run_sweep``).
    """
    try:
        with catch_signals():
            swept = check_command_line(sys.argv[1:], config_dir, config_name, schema)
            if swept is None:
                main()
            else:
                from cxrlit.sweeps.sweep import run_sweep

                assert task is not None
                run_sweep(task, config_dir, swept)
    except Interrupted as interrupted:
        if rank() == 0:
            print(interrupted, file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)


def run_task(task: Callable[[SectionT], Any], composed: DictConfig, schema: type[SectionT]) -> Any:
    """Run a task on a checked config; a fault that the user can mend ends the program with one line."""
    try:
        return task(read_config(composed, schema))
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)


def check_command_line(
    arguments: Sequence[str], config_dir: Path, config_name: str, schema: type[Section]
) -> list[str] | None:
    """Compose and check every config that a command line asks for.

    Returns:
        The overrides of a sweep; None where the command line asks for none.

    Raises:
        ConfigError: The first fault.
    """
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        known, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    options = [text for text in unknown if text.startswith("-")]
    for name in ("config_path", "config_name", "config_dir", "experimental_rerun"):
        if getattr(known, name) is not None:
            options.append(f"--{name.replace('_', '-')}")
    if options:
        raise ConfigError(f"{options[0]}: there is no such option; settings are given as KEY=VALUE")
    if known.resolve and not known.cfg:
        raise ConfigError("--resolve goes with --cfg")
    if unknown:
        raise ConfigError(f"{unknown[0]}: it cannot be understood here; put -m first and the settings after it")
    if known.multirun and schema is not TrainConfig:
        raise ConfigError("-m: only train.py sweeps")
    if known.multirun and known.cfg:
        raise ConfigError("--cfg shows one config: drop -m")
    for override in known.overrides:
        key = name_key(override)
        if key.startswith(("hydra.sweep.", "hydra.sweeper", "hydra/sweeper")) and key != BATCH_SIZE:
            raise ConfigError(f"{key}: a sweep is cxrlit's own, its files are in <runs_dir>/<run>/sweeps: drop this")
    if known.help or known.hydra_help or known.info or known.shell_completion:
        return None
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        jobs = expand_sweep(known.overrides, known.multirun)
        for text in list_swept(known.overrides):
            if name_key(text).startswith("hydra"):
                raise ConfigError(f"{text}: what is Hydra's own has one value for all jobs")
        for overrides in jobs:
            composed = compose_config(config_name, overrides)
            if not known.cfg:
                config = read_config(composed, schema)
                if known.multirun and isinstance(config, TrainConfig):
                    check_one_process(config.trainer)
                _check_search(composed, config_name, known)
    return known.overrides if known.multirun else None


def _check_search(composed: DictConfig, config_name: str, known: argparse.Namespace) -> None:
    """The ends of a search space are configs, and nothing else sets what is searched."""
    sweep = read_sweep(composed) if config_name == "train" else None
    if sweep is None:
        return
    if not known.multirun:
        raise ConfigError(f"sweep={sweep.name}: many trainings are a sweep: python train.py -m sweep={sweep.name} ...")
    swept = list_swept(known.overrides)
    if swept:
        key, _, values = swept[0].partition("=")
        raise ConfigError(f"{swept[0]}: sweep={sweep.name} searches a space: +sweep.space.{key}.choices=[{values}]")
    for override in known.overrides:
        key = name_key(override)
        if key in sweep.space:
            raise ConfigError(f"{override}: sweep.space searches {key}: drop it here, or set sweep.space.{key}=null")
    for corner in sweep.list_corners():
        try:
            read_config(compose_config(config_name, [*known.overrides, *corner]), TrainConfig)
        except ConfigError as error:
            raise ConfigError(f"sweep.space: {error}") from None


def check_one_process(machine: MachineConfig) -> None:
    """A point of a sweep trains in the process that sweeps.

    Raises:
        ConfigError: It asks for several devices.
    """
    if machine.devices * machine.num_nodes > 1:
        raise ConfigError(
            f"trainer.devices={machine.devices} trainer.num_nodes={machine.num_nodes}: a sweep trains each point on "
            f"one device: drop it, or start each point by itself: torchrun --nproc-per-node={machine.devices} train.py"
        )
