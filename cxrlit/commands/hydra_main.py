"""The way from a command line to a checked config, and from a fault to one line.

``launch`` reads the command line, and Hydra composes and runs what it asks for. ``run_task`` checks what was composed
and works on it. The points of a sweep are checked by the sweeper before the first trains.

``hydra.main`` composes twice and prints several lines for a fault. The functions that it calls are private: this file
alone uses Hydra's command-line parser, and ``run``, ``multirun`` and ``show_cfg`` of its object.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cxrlit.config import ConfigSection, EvaluateConfig, SectionT, TrainConfig, read_config
from cxrlit.config.compose import compose_config, list_swept, refuse_sweep, say_hydra_faults
from cxrlit.config.folders import find_conf, find_own_modules, initialize_conf, own_configs
from cxrlit.config.overrides import expand_home, explain_space, name_key
from cxrlit.core.command_line import format_command
from cxrlit.core.errors import ConfigError
from cxrlit.core.exit_on_error import name_fault, stop
from cxrlit.core.ranks import rank
from cxrlit.core.signals import Interrupted, catch_signals
from cxrlit.sweeps.objective import Objective


class TaskError(Exception):
    """Carries an internal error through Hydra, to tell it from errors that Hydra finds.

    Args:
        error: The error.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


def launch(
    run: Callable[[DictConfig], Any],
    config_name: str,
    schema: type[ConfigSection],
    task: Callable[..., Any] | None = None,
) -> None:
    """Run what the command line asks for: one config, a sweep, or Hydra's help.

    Args:
        run: Runs a composed config.
        config_name: ``train`` or ``evaluate``.
        schema: Schema of the config.
        task: Runs a point of a sweep (``Objective``). Launchers import it by its name and module.
    """
    try:
        with catch_signals():
            asked = parse_arguments(sys.argv[1:], schema)
            with own_configs(asked.config_dir):
                if asked.help or asked.hydra_help or asked.info or asked.shell_completion:
                    show_help(run, config_name, asked)
                    return
                with initialize_conf(config_name):
                    run_hydra(run, config_name, asked, task)
    except Interrupted as interrupted:
        if rank() == 0:
            print(interrupted, file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except TaskError as failed:
        raise failed.error from None
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)


def run_hydra(
    run: Callable[[DictConfig], Any], config_name: str, asked: argparse.Namespace, task: Callable[..., Any] | None
) -> None:
    """Let Hydra compose the config, and run or show it.

    Raises:
        ConfigError: A config cannot be composed, or is a sweep without ``-m``.
        TaskError: The task failed with an internal error.
    """
    started = GlobalHydra.instance().hydra
    assert started is not None
    with say_hydra_faults(config_name, asked.overrides):
        if asked.multirun:
            assert task is not None
            list_swept(asked.overrides)  # raises for what cannot be parsed
            started.multirun(config_name, Objective(task), [*asked.overrides, "hydra.mode=MULTIRUN"])
            return
        refuse_sweep(asked.overrides, config_name)
        if asked.cfg:
            started.show_cfg(config_name, asked.overrides, asked.cfg, asked.package, asked.resolve)
        else:
            started.run(config_name, run, asked.overrides)


def run_task(task: Callable[[SectionT], Any], composed: DictConfig, schema: type[SectionT]) -> Any:
    """Check the config and run a task on it, in a Hydra job; an error that the user can correct ends it with one line.

    Raises:
        TaskError: The task failed with an internal error.
    """
    try:
        job = HydraConfig.get()
        find_own_modules(composed, Path(job.runtime.cwd))
        overrides: Any = OmegaConf.to_container(job.overrides.task)
        return task(read_config(composed, schema, map(name_key, overrides)))
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise TaskError(error) from error
        stop(fault)


def show_help(run: Callable[[DictConfig], Any], config_name: str, asked: argparse.Namespace) -> None:
    """Let Hydra's own main show its help or completions.

    Raises:
        ConfigError: A config cannot be composed.
    """
    if asked.help or asked.info:
        with initialize_conf(config_name):
            compose_config(config_name, asked.overrides)  # one line in place of Hydra's many
    if asked.help:
        place = sys.argv.index(asked.overrides[0]) if asked.overrides else len(sys.argv)
        sys.argv.insert(place, f"hydra.help.app_name='{format_command(config_name)}'")
    main = hydra.main(version_base="1.3", config_path=str(find_conf()), config_name=config_name)(run)
    main()


def parse_arguments(arguments: Sequence[str], schema: type[ConfigSection]) -> argparse.Namespace:
    """Parse a command line with Hydra's parser.

    Raises:
        ConfigError: An option is unknown, or an argument is not a setting; the message names the first.
    """
    for place, text in enumerate(arguments):
        name = text.lstrip("-")
        if re.match(r"-[^-=]{3,}=", text):  # argparse reads -phase=highres as -p hase=highres
            raise ConfigError(f"{text}: settings have no dash: {name}")
        if re.fullmatch(r"-[a-z]\w{2,}|--run", text):  # Hydra's --run does nothing
            value = "".join(other for other in arguments[place + 1 : place + 2] if "=" not in other) or "VALUE"
            raise ConfigError(f"{text}: settings have no dash: {name}={value}")
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        known, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    options = [text for text in unknown if text.startswith("-")]
    for name in ("config_path", "config_name", "experimental_rerun"):
        if getattr(known, name) is not None:
            options.append(f"--{name.replace('_', '-')}")
    if options and "=" in options[0]:
        raise ConfigError(f"{options[0]}: settings have no dash: {options[0].lstrip('-')}")
    if options:
        name, after = options[0].lstrip("-"), "".join(known.overrides[:1])
        if name in schema.model_fields and after and "=" not in after:
            raise ConfigError(f"{options[0]} {after}: settings have no dash: {name}={after}")
        raise ConfigError(f"{options[0]}: there is no such option; settings are given as KEY=VALUE")
    if known.shell_completion and format_command("train") == "cxrlit train":
        raise ConfigError("--shell-completion: it completes python train.py and python evaluate.py, not cxrlit")
    for name in ("resolve", "package"):
        if getattr(known, name) and not known.cfg:
            raise ConfigError(f"--{name} goes with --cfg")
    if unknown:
        raise ConfigError(f"{unknown[0]}: it cannot be understood here; put -m first and the settings after it")
    if known.multirun and schema is not TrainConfig:
        raise ConfigError("-m: only train.py sweeps")
    if known.multirun and known.cfg:
        raise ConfigError("--cfg shows one config: drop -m")
    known.overrides = [expand_home(text) for text in known.overrides]
    checkpoints = [text for text in known.overrides if schema is EvaluateConfig and name_key(text) == "ckpt"]
    if len(checkpoints) > 1:
        paths = [text.partition("=")[2].strip("[]") for text in checkpoints]
        raise ConfigError(f"ckpt is given twice: keep one; of several checkpoints together: ckpt=[{','.join(paths)}]")
    for place, override in enumerate(known.overrides):
        key = name_key(override)
        if schema is TrainConfig and re.match(r"sweep\b", key):
            now = override.replace("sweep", "hydra/sweeper" if key == "sweep" else "hydra.sweeper", 1)
            raise ConfigError(f"{override}: it is called {now} now")
        if re.match(r"hydra[./](sweep|launcher)", key) and not (known.multirun or known.cfg):
            command = format_command(f"train -m {override} ...")
            raise ConfigError(f"{override}: it goes with a sweep: {command}")
        if key == "hydra.mode":
            raise ConfigError("hydra.mode: -m asks for a sweep: drop this")
        space = "" if "=" in override else explain_space(known.overrides, place)
        if space:
            raise ConfigError(space)
        if schema is EvaluateConfig and "=" not in override and not override.startswith("~"):
            if override in schema.model_fields:
                raise ConfigError(f"{override}: settings are given as KEY=VALUE")
            kind = "predictions" if override.endswith((".csv", ".csv.gz", ".tsv", ".parquet")) else "ckpt"
            paths = [text for text in known.overrides if "=" not in text and not text.startswith("~")]
            written = override if len(paths) == 1 or kind != "ckpt" else f"[{','.join(paths)}]"
            raise ConfigError(f"{override}: write {kind}={written}")
    return known
