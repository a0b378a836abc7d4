"""Commands that compose a config: ``cxrlit prepare | inspect | compare | export``."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from cxrlit.config import CompareConfig, ConfigSection, ExportConfig, InspectConfig, PrepareConfig, read_config
from cxrlit.config.compose import compose_config, refuse_sweep
from cxrlit.config.folders import initialize_conf, own_configs
from cxrlit.config.overrides import expand_home
from cxrlit.core.command_line import read_path
from cxrlit.core.errors import ConfigError, format_count

SCHEMAS: dict[str, type[ConfigSection]] = {
    "prepare": PrepareConfig,
    "inspect": InspectConfig,
    "compare": CompareConfig,
    "export": ExportConfig,
}

PATHS: dict[str, dict[str, str]] = {
    "compare": {
        "baseline": "a phase folder, the folder of an evaluation, or a file of predictions",
        "candidate": "the same of the model that is asked about",
    },
    "export": {"ckpt": "a checkpoint or a phase folder that was evaluated, or several: the members of an ensemble"},
}
"""Positional arguments before the settings: config keys whose values are taken literally, without Hydra's grammar."""


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of a command to its parser."""
    paths = PATHS.get(name, {})
    for path, meaning in paths.items():
        parser.add_argument(path, type=read_path, metavar=path.upper(), help=meaning)
    parser.add_argument("settings", nargs="*", default=[], metavar="KEY=VALUE", help="settings, as for train.py")
    parser.add_argument(
        "--config-dir", type=read_path, metavar="DIR", help="configs of your own, looked for there before conf/"
    )
    parser.add_argument("--cfg", action="store_true", help="show the settings and do nothing")
    if name == "prepare":
        parser.add_argument("--verify", action="store_true", help="check every byte of what is prepared")
    if name == "export":
        parser.add_argument(
            "--out", type=read_path, required=True, metavar="DIR", help="folder of the bundle, which is not there yet"
        )
        parser.add_argument(
            "--int8", action="store_true", help="also quantise to int8, which is in the bundle if it passes its gate"
        )
        parser.add_argument(
            "--max-auroc-loss", metavar="X", help="of int8: most AUROC that a label may lose (default 0.002)"
        )
        parser.add_argument(
            "--force", action="store_true", help="take int8 although no label has enough cases to judge its AUROC by"
        )
    keys = [key for key in SCHEMAS[name].model_fields if key not in paths and (key != "out" or name == "compare")]
    parser.epilog = f"keys: {', '.join(keys)}; cxrlit/config says what each means and may be"


def run(options: argparse.Namespace) -> Any:
    """Compose and check the config, run the command, and return its result."""
    if options.cfg and options.settings[:1] in (["job"], ["hydra"], ["all"]):
        raise ConfigError(f"--cfg {options.settings[0]}: cxrlit {options.command} --cfg takes no word after it")
    for name in PATHS.get(options.command, {}):
        given = getattr(options, name)
        if given.startswith(f"{name}=") and not Path(given).exists():
            values = given.partition("=")[2].removeprefix("[").removesuffix("]").replace(",", " ")
            raise ConfigError(f"{given}: {name} is given without its key: {values}")
    with own_configs(options.config_dir), initialize_conf():
        if options.command == "export":
            take_members(options)
            options.settings += take_int8(options)
        settings = [expand_home(text) for text in options.settings]
        refuse_sweep(settings, options.command)
        return _run_composed(options, compose_config(options.command, settings))


def _run_composed(options: argparse.Namespace, composed: DictConfig) -> Any:
    given = {name: getattr(options, name) for name in PATHS.get(options.command, {})}
    if options.command == "export":
        given["out"] = options.out
    if given:
        composed = OmegaConf.create({**given, **cast(dict[str, Any], OmegaConf.to_container(composed))})
    if options.cfg:
        print(OmegaConf.to_yaml(composed), end="")
        return None
    return _find_task(options)(read_config(composed, SCHEMAS[options.command]))


def take_members(options: argparse.Namespace) -> None:
    """Move checkpoints among the settings to ``ckpt``: arguments that are no settings, or are existing paths."""
    paths = [text for text in options.settings if "=" not in text or os.path.lexists(text)]
    options.settings = [text for text in options.settings if text not in paths]
    options.ckpt = [options.ckpt, *paths]


def take_int8(options: argparse.Namespace) -> list[str]:
    """Convert the int8 options to settings.

    Raises:
        ConfigError: One is given without ``--int8``.
    """
    given = {"--force": "force=true"} if options.force else {}
    if options.max_auroc_loss is not None:
        given["--max-auroc-loss"] = f"max_auroc_loss={options.max_auroc_loss}"
    if given and not options.int8:
        raise ConfigError(f"{min(given)} goes with --int8")
    return [*given.values(), *(["int8=true"] if options.int8 else [])]


def prepare(config: PrepareConfig, verify: bool) -> None:
    """``cxrlit prepare``: build or complete the stores, or check every byte of them."""
    from cxrlit.core.console import say
    from cxrlit.data.concerns import name_label_concerns, warn_once
    from cxrlit.data.copies import notice_images
    from cxrlit.data.dataset import find_parts, read_data
    from cxrlit.data.store.open_stores import open_data_stores, verify_data_stores
    from cxrlit.data.tta import choose_side

    data = read_data(config.data, config.labels, Path(config.cache_dir))
    resize = config.data.resize
    if verify:
        verify_data_stores(data, resize, Path(config.cache_dir))
        return
    sizes = sorted({*config.sizes, *(choose_side(size, config.tta) for size in config.sizes)})
    stores = open_data_stores(data, sizes, resize, Path(config.cache_dir), config.num_workers)
    parts = find_parts(data, config.data)
    rows = data.name_rows(data.index)
    warn_once(data, name_label_concerns(rows if parts is None else rows.assign(split=parts), data.labels))
    notice_images(data, stores[0], parts, Path(config.cache_dir))
    n_images = int((stores[0].positions >= 0).sum())
    say(f"{data.name} is prepared: {format_count(n_images, 'image')} at {', '.join(map(str, sizes))} px")


def inspect(config: InspectConfig) -> None:
    """``cxrlit inspect``: print the tables and write the page."""
    from cxrlit.inspection.inspect_data import inspect_data

    inspect_data(config)


def compare(config: CompareConfig) -> int:
    """``cxrlit compare``: compare two models, and return the exit code of the answer."""
    from cxrlit.evaluation.compare.command import compare_models

    return compare_models(config)


def export(config: ExportConfig) -> None:
    """``cxrlit export``: write the bundle."""
    from cxrlit.handoff.export import export_bundle

    export_bundle(config)


def _find_task(options: argparse.Namespace) -> Callable[[Any], Any]:
    if options.command == "prepare":
        return lambda config: prepare(config, options.verify)
    tasks: dict[str, Callable[[Any], Any]] = {"compare": compare, "export": export, "inspect": inspect}
    return tasks[options.command]
