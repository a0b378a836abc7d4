"""Commands and paths as a user types them."""

import argparse
import sys
from pathlib import Path

SCRIPTS = ("train.py", "evaluate.py")
"""Scripts of the repository; ``cxrlit train`` and ``cxrlit evaluate`` do the same anywhere."""


def format_command(line: str) -> str:
    """A command as the user types it: ``python train.py`` where a script of the repository runs.

    Args:
        line: A command of ``cxrlit`` and its arguments.

    >>> format_command("export --help")
    'cxrlit export --help'
    """
    name, space, rest = line.partition(" ")
    is_script = f"{name}.py" in SCRIPTS and Path(sys.argv[0]).name in SCRIPTS
    return (f"python {name}.py" if is_script else f"cxrlit {name}") + space + rest


def read_path(text: str) -> str:
    """Type of a path argument for argparse. It refuses an empty path, such as an unset shell variable.

    Raises:
        ArgumentTypeError: The path is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a path")
    return text
