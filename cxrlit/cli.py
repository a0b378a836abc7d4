"""The command ``cxrlit``: what is done to data before they are trained on."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cxrlit.config import InspectConfig, PrepareConfig, Section
from cxrlit.errors import ConfigError, CXRLitError
from cxrlit.launch import compose_config, expand_sweep, run_task, stop

CONFIG_DIR = Path(__file__).resolve().parents[1] / "conf"

COMMANDS: dict[str, tuple[type[Section], str]] = {
    "prepare": (PrepareConfig, "decode the images of a data set once, for all sizes that training will use"),
    "inspect": (InspectConfig, "show what is in a data set, on the screen and as an HTML page"),
}
"""Commands that compose a config, with its schema and what they do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a fault that the user can mend is one line and exit code 2."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    schema, _ = COMMANDS[options.command]
    try:
        if not CONFIG_DIR.is_dir():
            raise ConfigError(f"{CONFIG_DIR} is not there: install cxrlit from its repository with pip install -e .")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            [settings] = expand_sweep(options.settings, multirun=False)
            composed = compose_config(options.command, settings)
        if options.cfg:
            print(OmegaConf.to_yaml(composed), end="")
            return
        run_task(_find_task(options), composed, schema)
    except CXRLitError as error:
        stop(error)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


def prepare(config: PrepareConfig, verify: bool) -> None:
    """``cxrlit prepare``: build or complete the stores, or check every byte of them."""
    from cxrlit.data.load import read_data
    from cxrlit.data.open import open_data_stores, verify_data_stores

    data = read_data(config.data, config.labels, Path(config.cache_dir))
    resize = config.data.resize
    if verify:
        verify_data_stores(data, resize, Path(config.cache_dir))
        return
    open_data_stores(data, config.sizes, resize, Path(config.cache_dir), config.num_workers)


def inspect(config: InspectConfig) -> None:
    """``cxrlit inspect``: the tables on the screen and the page."""
    from cxrlit.inspection.inspect import inspect_data

    inspect_data(config)


def _find_task(options: argparse.Namespace) -> Callable[[Any], None]:
    if options.command == "prepare":
        return lambda config: prepare(config, options.verify)
    return inspect


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cxrlit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (schema, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, epilog=_say_keys(schema))
        command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, as for train.py")
        command.add_argument("--cfg", action="store_true", help="show the settings and do nothing")
        if name == "prepare":
            command.add_argument("--verify", action="store_true", help="check every byte of what is prepared")
    return parser.parse_args(list(arguments))


def _say_keys(schema: type[Section]) -> str:
    return f"keys: {', '.join(schema.model_fields)}; cxrlit/config says what each means and may be"
