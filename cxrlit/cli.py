"""The command ``cxrlit``: what is done to data before they are trained on, and to models after."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cxrlit.config import CompareConfig, InspectConfig, PrepareConfig, Section
from cxrlit.errors import ConfigError, CXRLitError
from cxrlit.launch import FAULT_EXIT_CODE, compose_config, expand_sweep, run_task, stop

CONFIG_DIR = Path(__file__).resolve().parents[1] / "conf"

COMMANDS: dict[str, tuple[type[Section], str]] = {
    "prepare": (PrepareConfig, "decode the images of a data set once, for all sizes that training will use"),
    "inspect": (InspectConfig, "show what is in a data set, on the screen and as an HTML page"),
    "compare": (CompareConfig, "say what changed between two models, and whether it is what was asked for"),
}
"""Commands that compose a config, with its schema and what they do."""

PATHS: dict[str, dict[str, str]] = {
    "compare": {
        "baseline": "a phase folder, the folder of an evaluation, or a file of predictions",
        "candidate": "the same of the model that is asked about",
    }
}
"""What comes before the settings."""

COMPARE_FAULT = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a fault that the user can mend is one line and exit code 2.

    ``compare`` answers with exit codes 0, 1 and 2, so that its faults, those of the program among them, are 3.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] != ["compare"]:
        _run(arguments)
        return
    try:
        code = _run(arguments)
    except SystemExit as end:
        raise SystemExit(COMPARE_FAULT if end.code == FAULT_EXIT_CODE else end.code) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(COMPARE_FAULT) from None
    if code:
        raise SystemExit(code)


def _run(arguments: Sequence[str]) -> Any:
    """What the command returns."""
    options = _parse(arguments)
    schema, _ = COMMANDS[options.command]
    try:
        if not CONFIG_DIR.is_dir():
            raise ConfigError(f"{CONFIG_DIR} is not there: install cxrlit from its repository with pip install -e .")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            [settings] = expand_sweep(options.settings, multirun=False)
            composed = compose_config(options.command, settings)
        paths = {name: getattr(options, name) for name in PATHS.get(options.command, {})}
        if paths:  # as they are, in no grammar
            composed = OmegaConf.create({**paths, **cast(dict[str, Any], OmegaConf.to_container(composed))})
        if options.cfg:
            print(OmegaConf.to_yaml(composed), end="")
            return None
        return run_task(_find_task(options), composed, schema)
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


def compare(config: CompareConfig) -> int:
    """``cxrlit compare``: the changes, the answer and its exit code."""
    from cxrlit.evaluation.verdict import compare_models

    return compare_models(config)


def _find_task(options: argparse.Namespace) -> Callable[[Any], Any]:
    if options.command == "prepare":
        return lambda config: prepare(config, options.verify)
    return compare if options.command == "compare" else inspect


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cxrlit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (schema, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, epilog=_say_keys(name, schema))
        for path, meaning in PATHS.get(name, {}).items():
            command.add_argument(path, metavar=path.upper(), help=meaning)
        command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, as for train.py")
        command.add_argument("--cfg", action="store_true", help="show the settings and do nothing")
        if name == "prepare":
            command.add_argument("--verify", action="store_true", help="check every byte of what is prepared")
    return parser.parse_args(list(arguments))


def _say_keys(name: str, schema: type[Section]) -> str:
    keys = [key for key in schema.model_fields if key not in PATHS.get(name, {})]
    return f"keys: {', '.join(keys)}; cxrlit/config says what each means and may be"
