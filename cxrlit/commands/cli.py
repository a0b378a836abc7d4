"""Train, evaluate and hand over chest X-ray classifiers: the command cxrlit.

What a command needs is imported when it is the one that runs: a prediction needs no Hydra, and ``--help`` nothing.
"""

import argparse
import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import cxrlit
from cxrlit.core.errors import ConfigError
from cxrlit.core.exit_on_error import FAULT_EXIT_CODE, name_fault, stop


class Command(NamedTuple):
    """A command.

    Attributes:
        module: Module in ``cxrlit.commands``, with ``main`` if Hydra reads its command line, else
            ``add_arguments`` and ``run``.
        text: Description for ``--help``.
    """

    module: str
    text: str


HYDRA_COMMANDS = {
    "train": Command("train", "train up to a goal phase, or sweep over many trainings, as train.py does"),
    "evaluate": Command("evaluate", "evaluate a checkpoint, or predictions of any program, as evaluate.py does"),
}

COMMANDS = {
    **HYDRA_COMMANDS,
    "ablate": Command("train", "train a baseline and changes of it, each alone, and say what each change makes"),
    "prepare": Command("config_commands", "decode the images of a data set once, for all sizes that training will use"),
    "inspect": Command("config_commands", "show what is in a data set, on the screen and as an HTML page"),
    "compare": Command("config_commands", "say what changed between two models, and whether it is what was asked for"),
    "export": Command(
        "config_commands", "write a trained and evaluated model as one folder that others can check and run"
    ),
    "predict": Command("bundle_commands", "run a bundle on radiographs: PNG, JPEG or DICOM, files or folders"),
    "demo": Command("bundle_commands", "serve a page on this machine to try a bundle with a radiograph"),
}

COMPARE_FAULT = 3

OF_ABLATION = re.compile(r"^([+~]*)(?=(change|levers)\b)")
"""Matches settings of ``cxrlit ablate`` that belong to its sweeper."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error that the user can correct is one line and exit code 2.

    ``compare`` answers with exit codes 0, 1 and 2, so all its errors, also internal ones, exit with 3.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["ablate"]:
        settings = [OF_ABLATION.sub(r"\1hydra.sweeper.", text) for text in arguments[1:]]
        arguments = ["train", "-m", "hydra/sweeper=ablation", *settings]
    if arguments and arguments[0] in HYDRA_COMMANDS:
        sys.argv = [f"cxrlit {arguments[0]}", *arguments[1:]]
        _import(arguments[0]).main()
        return
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
    """Run a command and return its result."""
    options = _parse(arguments)
    try:
        return _import(options.command).run(options)
    except Exception as error:
        fault = name_fault(error)
        if fault is None:
            raise
        stop(fault)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, like all commands."""

    def error(self, message: str) -> NoReturn:
        stop(ConfigError(f"{message.removeprefix('argument ')}; {self.prog} --help shows what there is"))
        raise AssertionError  # stop leaves


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="cxrlit", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"cxrlit {cxrlit.__version__}")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        stop(ConfigError(f"{arguments[0] or repr('')}: there is no such command; {meant}"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in arguments[:1]:
            _import(name).add_arguments(command, name)
    options, rest = parser.parse_known_args(list(arguments))
    odd = [text for text in rest if text.startswith("-") or not hasattr(options, "settings")]
    if odd:
        name = odd[0].lstrip("-")
        what = "there is no such option" if odd[0].startswith("-") else "one argument too many"
        if not hasattr(options, "settings"):
            what = f"options have two dashes: --{name}" if "=" in name else what
        elif "=" in name:
            what = f"settings have no dash: {name}"
        stop(ConfigError(f"{odd[0]}: {what}; cxrlit {options.command} --help shows what there is"))
    if rest:  # argparse leaves settings after an option in rest
        options.settings += rest
    return options


def _import(name: str) -> Any:
    return importlib.import_module(f"cxrlit.commands.{COMMANDS[name].module}")
