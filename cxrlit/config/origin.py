"""What computes where a config names classes: versions of packages, and the user's own source files."""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distribution, packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from cxrlit.config.build import say_import_fault
from cxrlit.core.errors import ConfigError
from cxrlit.core.files import hash_file


def find_origin(spec: Any, key: str = "") -> dict[str, str]:
    """What computes where a config names classes: for each ``_target_`` in it, packages and the user's own files.

    The module that the name is found in counts, that of the class, and those of its base classes. Of a user's own
    module each file of theirs that it imports counts as well, wherever in it the import stands. Files that it reads,
    and modules whose names are made while it runs, do not.

    Args:
        spec: A dict with ``_target_``, or any nesting of such dicts.
        key: Its name in the config.

    Returns:
        By name of an installed package, its version; by name of any other module, also one of a package that is
        installed from its sources (``pip install -e``), the SHA-256 of its file. Nothing for classes of cxrlit.

    Raises:
        ConfigError: A module cannot be imported.

    >>> list(find_origin([{"_target_": "torch.optim.SGD"}, {"_target_": "cxrlit.model.losses.FocalLoss"}]))
    ['torch']
    """
    if isinstance(spec, list):
        spec = dict(enumerate(spec))
    if not isinstance(spec, dict):
        return {}
    found: dict[str, str] = {}
    for name, item in spec.items():
        found |= find_origin(item, f"{key}.{name}" if key else str(name))
    if isinstance(spec.get("_target_"), str):
        for module in _list_modules(spec["_target_"], f"{key}._target_" if key else "_target_"):
            _add_module(module, found)
    return found


def _list_modules(name: str, key: str) -> list[str]:
    """The module that a name is found in, those of its class and of the base classes."""
    try:
        target = get_object(name)
    except Exception as error:  # importing a user's own module may raise anything
        raise ConfigError(f"{key}={name}: {say_import_fault(name, error)}") from None
    named = name.rpartition(".")[0]
    while named and named not in sys.modules:  # of a class in a class
        named = named.rpartition(".")[0]
    classes = target.__mro__ if isinstance(target, type) else (target,)
    return [one for one in (named, *(getattr(kind, "__module__", None) for kind in classes)) if one]


def _add_module(module: str, found: dict[str, str]) -> None:
    """Add the version of a module's package, or the hash of its own file and of those that it imports."""
    top = module.partition(".")[0]
    if module in found or top == "cxrlit" or top in sys.stdlib_module_names:
        return
    path = _find_file(module) if _is_own(top) else None
    if path is None:
        names = _list_packages().get(top, [])
        found |= {name: version(name) for name in names if name not in found} if names else {module: "unknown"}
        return
    found[module] = hash_file(path)
    for other in _list_imports(module, path):
        if _is_own(other.partition(".")[0]) and _find_file(other):
            _add_module(other, found)


def _is_own(top: str) -> bool:
    """Whether a module or package is the user's: in no installed package, or in one that lies where its sources do."""
    if top == "cxrlit" or top in sys.stdlib_module_names:
        return False
    packages = _list_packages().get(top, [])
    path = _find_file(top) if packages else None
    return not packages or (
        path is not None and not any(path.resolve().is_relative_to(_find_folder(package)) for package in packages)
    )


def _find_file(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except Exception:  # it imports the packages that the module is in
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _list_imports(module: str, path: Path) -> Iterator[str]:
    """Names of all that a source file imports, as modules."""
    try:
        tree = ast.parse(path.read_bytes() if path.suffix == ".py" else b"")
    except (SyntaxError, ValueError):  # nothing of it is imported then
        return
    within = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), within)
            except ImportError:  # above its package
                continue
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@cache
def _find_folder(package: str) -> Path:
    return Path(str(distribution(package).locate_file(""))).resolve()


@cache
def _list_packages() -> Mapping[str, list[str]]:
    return packages_distributions()
