"""Origin of the classes in a config: versions of packages, and hashes of the user's own source files."""

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
    """Installed packages and own source files behind each ``_target_`` of a config.

    The modules of the name, of its class and of its base classes count. For a user's own module, each of the user's
    files that it imports counts too, wherever the import stands. Files that it reads do not count, nor do modules whose
    names are computed at run time.

    Args:
        spec: A dict with ``_target_``, or any nesting of such dicts.
        key: Key of the spec in the config.

    Returns:
        By package name, the version of each installed package; by module name, the SHA-256 of the file of any other
        module, also of a package installed from source (``pip install -e``). Nothing for classes of cxrlit.

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
    """Modules of a dotted name, of its class and of its base classes."""
    try:
        target = get_object(name)
    except Exception as error:  # importing a user's own module may raise anything
        raise ConfigError(f"{key}={name}: {say_import_fault(name, error)}") from None
    named = name.rpartition(".")[0]
    while named and named not in sys.modules:  # a nested class
        named = named.rpartition(".")[0]
    classes = target.__mro__ if isinstance(target, type) else (target,)
    return [one for one in (named, *(getattr(kind, "__module__", None) for kind in classes)) if one]


def _add_module(module: str, found: dict[str, str]) -> None:
    """Add the version of a module's package, or the hashes of its own file and of the files that it imports."""
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
    """Whether a module is the user's: in no installed package, or in one that is installed from its source folder."""
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
    except Exception:  # find_spec imports the parent packages
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _list_imports(module: str, path: Path) -> Iterator[str]:
    """Names of the modules that a source file may import."""
    try:
        tree = ast.parse(path.read_bytes() if path.suffix == ".py" else b"")
    except (SyntaxError, ValueError):  # the file cannot be imported
        return
    within = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), within)
            except ImportError:  # a relative import above the top package
                continue
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@cache
def _find_folder(package: str) -> Path:
    return Path(str(distribution(package).locate_file(""))).resolve()


@cache
def _list_packages() -> Mapping[str, list[str]]:
    return packages_distributions()
