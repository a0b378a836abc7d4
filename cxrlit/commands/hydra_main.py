"""The way from a command line to a checked config, and from a fault to one line.

Hydra composes, sweeps and parses; what it cannot do is done here: every point of the command line is checked before
any work, also those of a sweep, and no message of a fault that the user can mend is longer than a line.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlit.config import (
    MachineConfig,
    Section,
    SectionT,
    TrainConfig,
    list_keys,
    read_config,
    read_sweep,
    suggest_key,
)
from cxrlit.core.errors import ConfigError, first_line
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


def compose_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a config inside ``initialize_config_dir``; Hydra's faults become one line.

    Raises:
        ConfigError: An override cannot be parsed, or names a key or a choice that is not there.
    """
    try:
        return compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_say_hydra_fault(error, config_name, overrides)) from None
    except ValueError as error:  # labels.x=1
        raise ConfigError(f"{' '.join(overrides)}: a place in a list is a number ({error})") from None


def compose_defaults(
    config_name: str, config_dir: Path, schema: type[SectionT], settings: Mapping[str, Any]
) -> SectionT:
    """The config of another command as ``conf/`` has it, with settings over it; inside a command of Hydra, too."""
    started = GlobalHydra.instance().is_initialized()
    with nullcontext() if started else initialize_config_dir(str(config_dir), version_base="1.3"):
        composed = compose_config(config_name, [])
    return read_config(OmegaConf.merge(composed, dict(settings)), schema)  # type: ignore[arg-type]


def expand_sweep(overrides: Sequence[str], multirun: bool) -> list[list[str]]:
    """The override lists of all jobs: ``["a=1,2", "b=3"]`` -> ``[["a=1", "b=3"], ["a=2", "b=3"]]``.

    Without ``multirun`` there is one job.

    Raises:
        ConfigError: An override cannot be parsed, or sweeps without ``-m``.
    """
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    parsed = [_parse(text, OverridesParser.create(loader)) for text in overrides]
    if not multirun:
        swept = [override for override in parsed if override.is_sweep_override()]
        if swept:
            raise ConfigError(f"{swept[0].input_line}: several values are a sweep: python train.py -m ...")
        return [list(overrides)]
    return [list(job) for job in itertools.product(*(_values(override) for override in parsed))]


def list_swept(overrides: Sequence[str]) -> list[str]:
    """The overrides with several values: ``["a=1,2", "b=3"]`` -> ``["a=1,2"]``.

    Raises:
        ConfigError: An override cannot be parsed.
    """
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    return [text for text in overrides if _parse(text, parser).is_sweep_override()]


def name_key(override: str) -> str:
    """The key that an override sets.

    >>> name_key("+callbacks.mine._target_=my.Class")
    'callbacks.mine._target_'
    """
    return override.lstrip("+~").partition("=")[0]


def _parse(text: str, parser: OverridesParser) -> Override:
    try:
        [override] = parser.parse_overrides([text])
    except (HydraException, OmegaConfBaseException):
        raise ConfigError(
            f"{text}: it cannot be understood; settings are given as KEY=VALUE, and a value with =, ~ or a space in it "
            "as \"KEY='VALUE'\""
        ) from None
    loader = parser.config_loader
    choices = loader.get_group_options(override.key_or_group) if loader and override.key_or_group else []
    if not override.key_or_group or (choices and override.value() is None and not override.is_delete()):
        what = f"it may be {', '.join(choices)}" if choices else "settings are given as KEY=VALUE"
        raise ConfigError(f"{text}: {what}")
    if choices and isinstance(override.value(), list):  # Hydra would lay one over the other
        remedy = f": data=several data.sources={text.partition('=')[2]}" if override.key_or_group == "data" else ""
        raise ConfigError(f"{text}: this group takes one choice{remedy}")
    return override


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    try:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    except (HydraException, OmegaConfBaseException):  # an interval, a choice inside a choice
        values = []
    if not values:
        raise ConfigError(f"{override.input_line}: these are no values to sweep over; name them: {key}=V1,V2")
    return values


def _say_hydra_fault(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text)
    if key and not re.search(r"\bvalue\b.*\b(of type|could not)\b", text):
        name = key[1].lstrip("+")
        groups = re.search(r"Did you mean to override (?:one of )?([^?]+)\?", text)
        if groups:
            return f"{name}: there is no such group; there are {groups[1]}"
        loader = GlobalHydra.instance().config_loader()
        choices = [
            choice for choice in overrides if loader.get_group_options(name_key(choice)) and name_key(choice) != name
        ]
        try:
            composed = compose(config_name, overrides=choices)
        except HydraException:  # another of them is at fault, too
            composed = compose(config_name)
        known = [other for other in list_keys(OmegaConf.to_container(composed)) if other != name]
        return f"{name}: there is no such key; {suggest_key(name, known, config_name)}"
    choice = re.search(r"Could not find '([^']+)'\s+Available options in '[^']+':((?:\n\t\S+)+)", text)
    if choice:
        group, _, name = choice[1].rpartition("/")
        if choice[1] in ("hydra/launcher/submitit_local", "hydra/launcher/submitit_slurm"):
            return f"{group}={name} needs submitit: pip install 'cxrlit[slurm]'"
        return f"{group}={name}: there is no such choice; it may be {', '.join(choice[2].split())}"
    appended = re.search(r"Could not append to config. An item is already at '([^']+)'", text)
    if appended:
        return f"+{appended[1]}: the key is there already: drop the +"
    return first_line(error)
