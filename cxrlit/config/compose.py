"""Compose a config from overrides with Hydra; every error of a command line is one line."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlit.config.folders import find_own_modules, initialize_conf
from cxrlit.config.overrides import SEVERAL, explain_several, explain_syntax, name_key, write_anew
from cxrlit.config.read_config import SectionT, list_keys, list_siblings, read_config, suggest_key
from cxrlit.core.errors import ConfigError, first_line


def compose_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a config inside ``initialize_conf``, and make its ``_target_``s in the current folder importable.

    Args:
        config_name: Name of a file of ``conf/``.
        overrides: Overrides of the command line.

    Raises:
        ConfigError: An override cannot be parsed, or names an unknown key or choice.
    """
    with say_hydra_faults(config_name, overrides):
        composed = compose(config_name, overrides=list(overrides))
    find_own_modules(composed, Path.cwd())
    return composed


@contextmanager
def say_hydra_faults(config_name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Turn errors of Hydra inside the block into a ``ConfigError`` of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_say_hydra_fault(error, config_name, overrides)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}{error.problem or first_line(error)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"a config file is not text in UTF-8 ({error})") from None
    except ValueError as error:
        if not str(error).startswith("invalid literal for int()"):
            raise
        raise ConfigError(f"{' '.join(overrides)}: a place in a list is a number ({error})") from None  # labels.x=1
    except RuntimeError as error:
        if not re.match(r"Invalid plugin|Unknown plugin class|Hydra \w+ is not configured", str(error)):
            raise
        remedy = "hydra/sweeper and hydra/launcher name classes in modules of a folder hydra_plugins/"
        raise ConfigError(f"{error}: {remedy}") from None


def compose_defaults(
    config_name: str, schema: type[SectionT], settings: Mapping[str, Any], choices: Sequence[str] = ()
) -> SectionT:
    """The default config of another command, with some values replaced; also works inside a Hydra command.

    Args:
        config_name: Name of a file of ``conf/``.
        schema: Schema of the config.
        settings: Values to replace, by dotted key.
        choices: Group choices, as on a command line.

    Raises:
        ConfigError: A choice is unknown, or a value does not match the schema.
    """
    started = GlobalHydra.instance().is_initialized()
    with nullcontext() if started else initialize_conf():
        composed = compose_config(config_name, choices)
    for key, value in settings.items():
        OmegaConf.update(composed, key, value, merge=False, force_add=True)
    return read_config(composed, schema, typed=settings)


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The override lists of all jobs: ``["a=1,2", "b=3"]`` -> ``[["a=1", "b=3"], ["a=2", "b=3"]]``.

    Raises:
        ConfigError: An override cannot be parsed, or its values cannot be enumerated.
    """
    return [list(job) for job in itertools.product(*(_values(override) for override in _parse(overrides)))]


def list_swept(overrides: Sequence[str]) -> list[str]:
    """The overrides with more than one value: ``["a=1,2", "b=3"]`` -> ``["a=1,2"]``.

    Raises:
        ConfigError: An override cannot be parsed.
    """
    return [override.input_line or "" for override in _parse(overrides) if override.is_sweep_override()]


def refuse_sweep(overrides: Sequence[str], command: str) -> None:
    """Reject sweeps in the overrides of a command that runs once.

    Raises:
        ConfigError: An override cannot be parsed, or has more than one value.
    """
    for text in list_swept(overrides):
        raise ConfigError(explain_several(text, command))


def _parse(overrides: Sequence[str]) -> list[Override]:
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    return [_parse_one(overrides, place, parser) for place in range(len(overrides))]


def _parse_one(overrides: Sequence[str], place: int, parser: OverridesParser) -> Override:
    text = overrides[place]
    try:
        [override] = parser.parse_overrides([text])
    except (HydraException, OmegaConfBaseException):
        raise ConfigError(explain_syntax(overrides, place)) from None
    loader = parser.config_loader
    choices = loader.get_group_options(override.key_or_group) if loader and override.key_or_group else []
    if not override.key_or_group or (choices and override.value() is None and not override.is_delete()):
        what = f"it may be {', '.join(choices)}" if choices else "settings are given as KEY=VALUE"
        raise ConfigError(f"{text}: {what}")
    if not choices and override.value() == "None":
        raise ConfigError(f"{text}: nothing is written null: {text.partition('=')[0]}=null")
    if choices and isinstance(override.value(), list):
        _check_choices(text, override, choices)
    return override


def _check_choices(text: str, override: Override, choices: Sequence[str]) -> None:
    """Check several choices of one group. Hydra merges them: named entries become one dict.

    Raises:
        ConfigError: The group takes one choice only, or a choice is unknown, duplicate or excludes the others.
    """
    group, chosen = override.key_or_group, list(map(str, override.value()))  # type: ignore[arg-type]
    if group not in SEVERAL:
        given = text.partition("=")[2]
        remedies = {"data": f": data=several data.sources={given}", "phases": f": chain={given} names the phases"}
        raise ConfigError(f"{text}: this group takes one choice{remedies.get(str(group), '')}")
    for name in chosen:
        if name not in choices:
            raise ConfigError(f"{group}={name}: there is no such choice; it may be {', '.join(choices)}")
    if "none" in chosen and len(chosen) > 1:
        raise ConfigError(f"{text}: none stands alone: {group}=none")
    if not chosen or len(set(chosen)) < len(chosen):
        none = f", or {group}=none" if "none" in choices else ""
        raise ConfigError(f"{text}: name each choice once: {group}=[{', '.join(choices[:2])}]{none}")


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    try:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    except (HydraException, OmegaConfBaseException):  # an interval, or a choice inside a choice
        values = []
    if not values:
        raise ConfigError(f"{override.input_line}: these are no values to sweep over; name them: {key}=V1,V2")
    return values


def _say_hydra_fault(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text)
    if key and not re.search(r"\bvalue\b.*\b(of type|could not)\b", text):
        name = key[1].lstrip("+")
        groups = re.search(r"Did you mean to override (?:one of )?([^?]+)\?", text)
        if groups:
            return f"{name}: there is no such group; there are {groups[1]}"
        where = getattr(error.__cause__, "full_key", None) or ""
        if where.startswith(f"{name}."):
            new = where.removeprefix(f"{name}.")
            given = next((text for text in overrides if name_key(text) == name and "_target_" in text), "")
            if given:
                return f"{name}: {new} is not among the keys that are there; drop those first: {write_anew(given)}"
            return f"{name}: the key is there; what is new is {new}: +{where}=VALUE adds it"
        loader = GlobalHydra.instance().config_loader()
        choices = [
            choice for choice in overrides if loader.get_group_options(name_key(choice)) and name_key(choice) != name
        ]
        group = next((name_key(choice) for choice in choices if name.startswith(f"{name_key(choice)}.")), None)
        if group and group in map(name_key, list_swept(choices)):
            return f"{name}: not each choice of {group} has this key: ++{name}=VALUE adds it where it is not there"
        if name.startswith("scheduler.") and "." not in name.removeprefix("scheduler."):
            return f"{name}: +{name}=VALUE sets it in the scheduler of each phase"
        is_of_hydra = name.startswith("hydra.")
        try:
            composed = compose(config_name, overrides=choices, return_hydra_config=is_of_hydra)
        except HydraException:  # another choice is wrong too
            composed = compose(config_name, return_hydra_config=is_of_hydra)
        known = [other for other in list_keys(OmegaConf.to_container(composed)) if other != name]
        parent, _, last = name.rpartition(".")
        if parent and last in loader.get_group_options(parent.replace(".", "/")):
            return f"{name}: there is no such key; {parent}={last} is a choice; {list_siblings(name, known)}"
        return f"{name}: there is no such key; {suggest_key(name, known, config_name)}"
    choice = re.search(r"Could not find '([^']+)'\s+Available options in '[^']+':((?:\n\t\S+)+)", text)
    if choice:
        group, _, name = choice[1].rpartition("/")
        if choice[1] in ("hydra/launcher/submitit_local", "hydra/launcher/submitit_slurm"):
            return f"{group}={name} needs submitit: pip install 'cxrlit[slurm]'"
        own = f"; {group}._target_={name} takes a class" if "." in name else ""
        return f"{group}={name}: there is no such choice; it may be {', '.join(choice[2].split())}{own}"
    appended = re.search(r"Could not append to config. An item is already at '([^']+)'", text)
    if appended:
        return f"+{appended[1]}: the key is there already: drop the +"
    named = re.search(r"^\s*full_key: (\S+)|^Error merging override (.+)", text, re.MULTILINE)
    where = f"{named[1] or named[2]}: " if named else ""
    if isinstance(error, InstantiationException):  # from a sweeper or a launcher
        where = where or "hydra/sweeper, hydra/launcher: "
    return f"{where}{first_line(error.__cause__ if where and error.__cause__ else error)}"
