"""Build the object that a ``_target_`` names, or say in one line why it cannot be built."""

import importlib
import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from pydantic import ValidationError

from cxrlit.config.types import Instantiable
from cxrlit.core.errors import ConfigError, first_line


def build_target(key: str, spec: Instantiable, *args: Any, **kwargs: Any) -> Any:
    """Check a ``_target_`` with its arguments, and build it. Lists and dicts are passed on unchanged.

    Args:
        key: Key of the dict in the config.
        spec: The dict with ``_target_``.
        args: Leading arguments that the program supplies.
        kwargs: Named arguments that the program supplies; they replace those of the dict.

    Raises:
        ConfigError: The class cannot be found, has no such argument, or raises. The message is one line.

    >>> build_target("part", {"_target_": "fractions.Fraction", "numerator": 1}, denominator=3)
    Fraction(1, 3)
    >>> build_target("part", {"_target_": "fractions.Fraction", "denominator": 0})
    Traceback (most recent call last):
    cxrlit.core.errors.ConfigError: part: fractions.Fraction cannot be built: ZeroDivisionError: Fraction(0, 0)
    """
    check_target(key, {**spec, **kwargs}, positional=len(args))
    try:
        return instantiate({"_convert_": "all", **spec}, *args, **kwargs)
    except Exception as error:  # a user's class may raise anything
        raise ConfigError(_say_build_fault(key, spec, error)) from None


def check_target(key: str, spec: Instantiable, positional: int = 0) -> None:
    """Check that a ``_target_`` exists and takes its arguments.

    Args:
        key: Key of the dict in the config.
        spec: The dict with ``_target_``.
        positional: Number of leading arguments that the program supplies.

    Raises:
        ConfigError: The class cannot be found, or has no such argument.
    """
    name = spec.get("_target_")
    if not isinstance(name, str):
        missing = f"it is missing: +{key}._target_=CLASS" if name is None else "it must be the dotted name of a class"
        raise ConfigError(f"{key}._target_: {missing}")
    try:
        found = get_class(name)
    except Exception as error:  # importing a user's own module may raise anything
        raise ConfigError(f"{key}._target_={name}: {say_import_fault(name, error)}") from None
    try:
        parameters = list(inspect.signature(found).parameters.values())[positional:]
    except ValueError:  # classes written in C may have no signature
        return
    names = [parameter.name for parameter in parameters if not parameter.name.startswith("_")]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for argument in spec:
        if argument not in names and not argument.startswith("_") and not takes_any:
            drop = "" if key.startswith("phases.") else f"; ~{key}.{argument} drops it"
            raise ConfigError(
                f"{key}.{argument}: {name} has no such argument; it takes {', '.join(names) or 'none'}{drop}"
            )


def takes_argument(spec: Instantiable, argument: str) -> bool:
    """Whether the class of a checked dict has a parameter of that name.

    >>> takes_argument({"_target_": "fractions.Fraction"}, "denominator")
    True
    """
    return argument in inspect.signature(get_class(spec["_target_"])).parameters


def _say_build_fault(key: str, spec: Instantiable, error: BaseException) -> str:
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    schema = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
    if isinstance(schema, ValidationError):
        faults = [fault for fault in schema.errors(include_url=False) if fault["loc"]]
        field = str(faults[0]["loc"][0]) if faults else ""
        if field in spec or (faults and faults[0]["type"] == "missing"):
            said = dict.fromkeys(_shorten(fault["msg"]) for fault in faults if str(fault["loc"][0]) == field)
            given = f"={spec[field]}" if field in spec else ""
            return f"{key}.{field}{given}: {'; '.join(said)}"
        error = ValueError("; ".join(_shorten(fault["msg"]) for fault in schema.errors(include_url=False)))
    return f"{key}: {spec['_target_']} cannot be built: {type(error).__name__}: {first_line(error)}"


def _shorten(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"


def say_import_fault(name: str, error: Exception) -> str:
    """Why a dotted name cannot be imported: the end of a message."""
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except Exception as fault:
        return first_line(fault)
    return f"{module} has no {attribute}" if not hasattr(found, attribute) else f"{attribute} is not a class"
