"""How a command is typed."""

import sys
from pathlib import Path


def name_command(name: str) -> str:
    """``python train.py`` where a script of the repository runs, else ``cxrlit train``, which runs anywhere.

    Args:
        name: ``train`` or ``evaluate``.
    """
    is_script = Path(sys.argv[0]).name in ("train.py", "evaluate.py")
    return f"python {name}.py" if is_script else f"cxrlit {name}"
