"""Optional packages of cxrlit's extras, imported where they are needed."""

import importlib
from typing import Any

from cxrlit.core.errors import ConfigError, first_line


def import_extra(module: str, extra: str, needed_by: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Name of the module.
        extra: The extra that installs the package.
        needed_by: The feature that needs it, in the words of the user's command.

    Raises:
        ConfigError: The package or one of its dependencies is missing, or the import fails. The message names the
            extra.

    >>> import_extra("json", "none", "nothing").loads("1")
    1
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise ConfigError(f"{needed_by} needs {missing}: pip install 'cxrlit[{extra}]'") from None
    except Exception as error:  # a package that does not match its dependencies may raise anything
        raise ConfigError(
            f"{needed_by}: {module} cannot be imported: {first_line(error)}: "
            f"pip install --force-reinstall 'cxrlit[{extra}]'"
        ) from None
