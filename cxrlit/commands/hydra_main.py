"""The way from a command line to a checked config, and from a fault to one line.

``launch`` reads the command line and composes, ``run_task`` checks what was composed and works on it: once each. The
points of a sweep are composed and checked before the first trains. Hydra's own main shows help, completes and the like.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from cxrlit.config import ConfigSection, EvaluateConfig, SectionT, TrainConfig, read_config, read_sweep
from cxrlit.config.compose import compose_config, expand_sweep, name_key, say_hydra_faults
from cxrlit.config.folders import find_conf, find_own_modules, initialize_conf, own_configs
from cxrlit.core.command_line import format_command
from cxrlit.core.errors import ConfigError
from cxrlit.core.exit_on_error import name_fault, stop
from cxrlit.core.ranks import rank
from cxrlit.core.signals import Interrupted, catch_signals
from cxrlit.sweeps.check_points import check_points

BATCH_SIZE = "hydra.sweeper.max_batch_size"
"""The one key of Hydra's own sweeper that is heard: points that are launched together."""


def launch(
    run: Callable[[DictConfig], Any],
    config_name: str,
    schema: type[ConfigSection],
    task: Callable[..., Any] | None = None,
) -> None:
    """Run what the command line asks for: one config, a sweep, or what Hydra shows.

    Args:
        run: What Hydra runs for a composed config. Launchers find it by its name in its module.
        config_name: ``train`` or ``evaluate``.
        schema: What its config must be.
        task: What a sweep runs for each point (``run_sweep``).
    """
    try:
        with catch_signals():
            asked = parse_arguments(sys.argv[1:], schema)
            with own_configs(asked.config_dir):
                if asked.help or asked.hydra_help or asked.info or asked.shell_completion:
                    show_help(run, config_name, asked)
                    return
                with initialize_conf(config_name):
                    if asked.multirun:
                        first, search = check_points(asked.overrides)
                        from cxrlit.sweeps.sweep import run_sweep

                        assert task is not None
                        run_sweep(task, asked.overrides, first, search)
                    elif asked.cfg:
                        show_config(config_name, asked)
                    else:
                        run_main(run, config_name, asked.overrides)
    except Interrupted as interrupted:
        if rank() == 0:
            print(interrupted, file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)


def run_main(run: Callable[[DictConfig], Any], config_name: str, overrides: Sequence[str]) -> None:
    """Compose one config and run it as a job of Hydra's; ``hydra.main`` would compose it twice more.

    Raises:
        ConfigError: It cannot be composed, or is a sweep.
    """
    expand_sweep(overrides, multirun=False)
    composed = compose_config(config_name, overrides, with_hydra=True)
    search = read_sweep(composed)
    if search is not None:
        chosen = f"sweep={search.name}"
        raise ConfigError(f"{chosen}: many trainings are a sweep: {format_command(f'train -m {chosen} ...')}")
    composed.hydra.mode = RunMode.RUN
    configure_log(composed.hydra.hydra_logging, composed.hydra.verbose)
    callbacks = Callbacks(composed)
    context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
    callbacks.on_run_start(config=composed, config_name=config_name)
    job = run_job(run, composed, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    callbacks.on_run_end(config=composed, config_name=config_name, job_return=job)
    _ = job.return_value  # raises what ended the job


def run_task(task: Callable[[SectionT], Any], composed: DictConfig, schema: type[SectionT]) -> Any:
    """Run a task on a checked config, in a job of Hydra's; a fault that the user can mend ends it with one line."""
    try:
        job = HydraConfig.get()
        find_own_modules(composed, Path(job.runtime.cwd))
        overrides: Any = OmegaConf.to_container(job.overrides.task)
        return task(read_config(composed, schema, map(name_key, overrides)))
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)


def show_help(run: Callable[[DictConfig], Any], config_name: str, asked: argparse.Namespace) -> None:
    """Let Hydra's own main show its help, completions and the like.

    Raises:
        ConfigError: A config cannot be composed.
    """
    if asked.help or asked.info:
        with initialize_conf(config_name):
            compose_config(config_name, asked.overrides)  # says in a line what Hydra says in many
    if asked.help:
        place = sys.argv.index(asked.overrides[0]) if asked.overrides else len(sys.argv)
        sys.argv.insert(place, f"hydra.help.app_name='{format_command(config_name)}'")
    main = hydra.main(version_base="1.3", config_path=str(find_conf()), config_name=config_name)(run)
    main()


def show_config(config_name: str, asked: argparse.Namespace) -> None:
    """Print the composed config (``--cfg``).

    Raises:
        ConfigError: It cannot be composed.
    """
    expand_sweep(asked.overrides, multirun=False)
    started = GlobalHydra.instance().hydra
    assert started is not None
    with say_hydra_faults(config_name, asked.overrides):
        started.show_cfg(config_name, asked.overrides, asked.cfg, asked.package, asked.resolve)


def parse_arguments(arguments: Sequence[str], schema: type[ConfigSection]) -> argparse.Namespace:
    """What a command line asks for, as Hydra's parser reads it.

    Raises:
        ConfigError: The first option that is not there, or argument that is no setting.
    """
    for text in arguments:
        if re.match(r"-[^-=]{3,}=", text):  # argparse reads -phase=highres as -p hase=highres
            raise ConfigError(f"{text}: settings have no dash: {text[1:]}")
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
    for override in known.overrides:
        key = name_key(override)
        if key.startswith(("hydra.sweep.", "hydra.sweeper", "hydra/sweeper")) and key != BATCH_SIZE:
            raise ConfigError(f"{key}: a sweep is cxrlit's own, its files are in <runs_dir>/<run>/sweeps: drop this")
        if key == "hydra.mode":
            raise ConfigError("hydra.mode: -m asks for a sweep: drop this")
        if schema is EvaluateConfig and "=" not in override and not override.startswith("~"):
            kind = "predictions" if override.endswith((".csv", ".csv.gz", ".tsv", ".parquet")) else "ckpt"
            raise ConfigError(f"{override}: write {kind}={override}")
    return known
