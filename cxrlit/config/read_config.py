"""Turn Hydra's composed config into a checked one, or into one line that names the wrong key."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from cxrlit.config.sweep import SweepCommand, SweeperT
from cxrlit.config.train import FLAT_KEYS, TrainConfig
from cxrlit.config.types import N_LAYERS, PHASE_PATTERN, ConfigSection
from cxrlit.core.command_line import format_command
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.core.labels import NAME_PATTERN

SHOW_KEYS = {
    "train": "train --cfg job",
    "evaluate": "evaluate --cfg job",
    "prepare": "prepare --cfg",
    "inspect": "inspect --cfg",
    "compare": "compare --help",
    "export": "export --help",
    "sweep": "train --cfg hydra -p hydra.sweeper",
}
"""Command that prints all keys of a command."""

RENAMED = {
    "evaluate": {"wanted": "min_rate", "device": "trainer.accelerator"},
    "train": {
        "freeze_bn": "batch_norm (frozen | affine | adapt | train)",
        "loss.name": "loss._target_, or a choice: loss=bce",
        "augment.flip": "augment.transforms.flip.p",
        "augment.rotate": "augment.transforms.affine.rotate=[-7,7]",
        "augment.zoom": "augment.transforms.affine.scale=[0.9,1.1]",
        "augment.contrast": "augment.transforms.contrast.contrast_limit=[-0.15,0.15]",
        "learning_rate": "lr",
        "device": "trainer.accelerator",
        "gpus": "trainer.devices",
        "data.path": "data.root",
        "data.dir": "data.root",
    },
}
"""Current names of renamed keys, and of keys that other programs use."""

PATTERNS = {
    NAME_PATTERN: "the name of a label begins with a letter, and has letters, digits, spaces and _ ( ) . + - /",
    PHASE_PATTERN: "the name of a phase has small letters, digits and _",
}
"""Explanation of each pattern that a text must match."""

MAX_SIBLINGS = 15

SectionT = TypeVar("SectionT", bound=ConfigSection)


def read_config(composed: DictConfig | dict[str, Any], schema: type[SectionT], typed: Iterable[str] = ()) -> SectionT:
    """Check a composed config and convert it to its schema.

    Args:
        composed: Hydra's composed config, or the dict saved with a checkpoint.
        schema: ``TrainConfig``, ``EvaluateConfig`` or the schema of another command.
        typed: Keys that the user set on the command line. Only these are rejected for having no effect.

    Raises:
        ConfigError: A key is unknown or missing, a value is of the wrong type or out of range, or two keys
            contradict each other. The message is one line.
    """
    values = _gather_phases(composed) if schema is TrainConfig else composed
    values = _resolve(values)
    try:
        config = schema.model_validate(values, context=frozenset(key.partition(".")[0] for key in typed))
    except ValidationError as error:
        raise ConfigError(_say_first_fault(error, values, schema.command)) from None
    return config.settle()


def read_sweeper(composed: DictConfig, schema: type[SweeperT]) -> SweeperT:
    """Check ``hydra.sweeper`` of a composed config and convert it to its schema.

    Raises:
        ConfigError: As for ``read_config``.
    """
    settings = {key: value for key, value in _resolve(composed.hydra.sweeper).items() if key != "_target_"}
    command: Any = read_config({"hydra": {"sweeper": settings}}, SweepCommand[schema])  # type: ignore[valid-type]
    sweeper: SweeperT = command.hydra.sweeper
    return sweeper


def suggest_key(key: str, known: list[str], command: str) -> str:
    """Suggest a known key for an unknown key of a command: the end of a message."""
    names = RENAMED.get(command, {})
    renamed = names.get(key) or names.get(key.rpartition(".")[2])
    if renamed:
        return f"it is called {renamed} now"
    last = key.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    close = difflib.get_close_matches(key, same, n=1, cutoff=0.7) or [other for other in same if other == last]
    close = close or (same if len(same) == 1 else difflib.get_close_matches(key, known, n=1, cutoff=0.7))
    if close:
        return f"did you mean {close[0]}?"
    return list_siblings(key, known) or f"the keys are: {format_command(SHOW_KEYS[command])}"


def list_siblings(key: str, known: list[str]) -> str:
    """The keys beside a dotted key: the end of a message; empty if there are none or too many.

    >>> list_siblings("loss.gama", ["lr", "loss._target_", "loss.gamma.neg"])
    'loss has the keys _target_, gamma'
    """
    parent = key.rpartition(".")[0]
    names = [other.removeprefix(f"{parent}.").partition(".")[0] for other in known if other.startswith(f"{parent}.")]
    there = list(dict.fromkeys(names))
    return f"{parent} has the keys {', '.join(there)}" if parent and 0 < len(there) <= MAX_SIBLINGS else ""


def list_keys(values: Any, prefix: str = "") -> list[str]:
    """Dotted names of all keys with a value in nested dicts."""
    if not isinstance(values, dict) or not values:
        return [prefix.removesuffix(".")] if prefix else []
    return [name for key, value in values.items() for name in list_keys(value, prefix=f"{prefix}{key}.")]


def _resolve(node: Any) -> Any:
    """Resolve interpolations into plain values."""
    if not isinstance(node, DictConfig):
        return node
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(node))
        values = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        variable = re.match(r"Interpolation key '([A-Z_]+)' not found", str(error))
        remedy = f": an environment variable is ${{oc.env:{variable[1]}}}" if variable else ""
        raise ConfigError(f"{error.full_key}: {first_line(error)}{remedy}") from None
    if missing:
        raise ConfigError(f"{missing[0]} has no value: say {missing[0]}=VALUE")
    return values


def _gather_phases(composed: DictConfig | dict[str, Any]) -> DictConfig | dict[str, Any]:
    """Collect the settings of each phase in its section, before interpolations are resolved.

    Each flat key that is set replaces the goal's own key, and ``scheduler`` replaces that of each phase. The shared
    callbacks are copied into each phase and merged with its own: the phase's keys win, and null drops a callback. An
    interpolation in them then refers to the phase.
    """
    is_plain = isinstance(composed, dict)
    values: Any = dict(composed) if is_plain else OmegaConf.to_container(composed)
    phases, shared, scheduler = values.get("phases"), values.get("callbacks"), values.get("scheduler")
    flat = {key: values[key] for key in FLAT_KEYS if values.get(key) is not None}
    if isinstance(phases, dict) and isinstance(shared, dict):  # otherwise validation reports the error
        gathered = {}
        for name, phase in phases.items():
            if isinstance(phase, dict):
                phase = {**phase, **(flat if name == values.get("phase") else {})}
                if isinstance(scheduler, dict):
                    phase["scheduler"] = _merge_scheduler(scheduler, phase.get("scheduler"))
                if isinstance(phase.get("callbacks"), dict):
                    phase["callbacks"] = _merge_callbacks(shared, phase["callbacks"])
            gathered[name] = phase
        values |= {"phases": gathered, "callbacks": {}, "scheduler": None}
    gathered_values: DictConfig | dict[str, Any] = values if is_plain else OmegaConf.create(values)
    return gathered_values


def _merge_scheduler(shared: dict[str, Any], own: Any) -> Any:
    """A shared scheduler with a class replaces a phase's own; without a class, its set keys are merged into that."""
    if "_target_" in shared or not isinstance(own, dict):
        return shared if "_target_" in shared else own
    return {**own, **{key: value for key, value in shared.items() if value is not None}}


def _merge_callbacks(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = {}
    for name in dict.fromkeys([*shared, *own]):
        base, change = shared.get(name), own.get(name, {})
        if change is None or (base is None and not change):
            continue
        both = isinstance(change, dict) and isinstance(base or {}, dict)  # otherwise validation reports the error
        merged[name] = {**(base or {}), **change} if both else change or base
    return merged


def _say_first_fault(error: ValidationError, values: dict[str, Any], command: str) -> str:
    faults = error.errors(include_url=False)
    # A flat key is checked under its own name and in its phase; report the shorter name, which the user typed.
    fault = min(faults, key=lambda item: (item["type"] != "extra_forbidden", len(item["loc"])))
    parts = [str(part) for part in fault["loc"] if not re.match(r"(literal|dict|list)\[", str(part))]
    if parts[:1] == ["data"] and len(parts) > 2:
        del parts[1]  # name of the union's member
    if parts[:3] == ["hydra", "sweeper", "space"] and len(parts) > 4:
        del parts[4]  # name of the union's member
    key, kind = ".".join(parts), fault["type"]
    if kind == "extra_forbidden":
        known = [name for name in list_keys(values) if name != key]
        return f"{key}: there is no such key; {suggest_key(key, known, command)}"
    if kind == "missing":
        return f"{key}: the key is missing"
    if kind == "union_tag_invalid":
        return f"{key}.source={fault['ctx']['tag']}: it may be {fault['ctx']['expected_tags']}"
    if kind == "none_required":
        return f"{key}={fault['input']}: the chosen data set takes none: add data=nih, or which it is"
    if fault["input"] == "" and kind not in ("extra_forbidden", "value_error"):
        name = re.sub(r"\.\d+$", "", key)
        return f"{name} has no value: say {name}={'[...]' if kind == 'list_type' else 'VALUE'}, or drop it"
    if kind == "too_short" and fault["input"] == []:
        return f"{key} is empty: name at least one, {key}=[...]"
    if kind == "list_type" and isinstance(fault["input"], (str, int)):
        return f"{key} is a list: {key}=[{fault['input']}]"
    message = fault["msg"].removeprefix("Value error, ")
    if not key or kind == "value_error":
        return message
    said = PATTERNS.get(fault.get("ctx", {}).get("pattern", ""), f"{message[0].lower()}{message[1:]}")
    return f"{key}={fault['input']}: {said}{_write_right(key, kind, fault['input'])}"


def _write_right(key: str, kind: str, value: Any) -> str:
    """How to write a value of the wrong type, if that is obvious; else empty."""
    if kind == "string_type" and type(value) in (int, float, bool):
        is_entry = key.rpartition(".")[2].isdigit()
        return f": a text is written '\"{value}\"'" if is_entry else f": a text is written {key}='\"{value}\"'"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f": {key}={int(value)}"
    if kind in ("int_type", "float_type") and isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value):
        return f": a number has no quotes: {key}={value}"
    if key.endswith("n_unfreeze") and value == "all":
        return f": {key}={N_LAYERS} are all"
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off", "0", "1"):
        return f": {key}={'true' if str(value).lower() in ('yes', 'on', '1') else 'false'}"
    if isinstance(value, list) and kind in ("string_type", "int_type", "float_type") and len(value) == 1:
        return f": it is no list: {key}={value[0]}"
    return ""
