"""Keys of the sweepers of ``python train.py -m``: ``hydra.sweeper``."""

import math
import re
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, model_validator
from pydantic_core import PydanticCustomError

from cxrlit.config.types import ConfigSection, Seed

Value = bool | int | float | str | None


def _check_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PydanticCustomError("number", "input should be a number")
    return value


Number = Annotated[int | float, PlainValidator(_check_number)]


class SearchInterval(ConfigSection):
    """Numbers from ``low`` to ``high`` inclusive; integers if both are integers."""

    low: Number
    high: Number
    log: bool = Field(False, description="drawn by their logarithm")
    step: int | None = Field(None, ge=1, description="distance of whole numbers")

    @property
    def is_whole(self) -> bool:
        """Whether the interval is of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def extremes(self) -> Sequence[Value]:
        """Both ends of the interval."""
        return (self.low, self.high)

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} has no logarithm: it must be above 0 with log=true")
        if self.step is not None and (not self.is_whole or self.log):
            raise ValueError("step goes with whole numbers and log=false")
        return self


class Choices(ConfigSection):
    """Values to choose from."""

    choices: list[Value] = Field(min_length=1)

    @property
    def extremes(self) -> Sequence[Value]:
        """All choices."""
        return self.choices


def _flatten(space: Any, prefix: str = "") -> Any:
    """Flatten nested sections to dotted keys.

    Null entries are dropped. Choices replace an interval from ``conf/``: Hydra can add keys to a section, but not
    replace it.
    """
    if not isinstance(space, dict):
        return space
    flat: dict[str, Any] = {}
    for name, node in space.items():
        key = f"{prefix}{name}"
        if isinstance(node, dict) and node and not node.keys() & {*SearchInterval.model_fields, "choices"}:
            flat |= _flatten(node, f"{key}.")
        elif isinstance(node, dict):
            flat[key] = {"choices": node["choices"]} if "choices" in node else node
        elif node is not None:
            raise ValueError(f"hydra.sweeper.space.{key}={node}: it must be {{low: A, high: B}} or {{choices: [A, B]}}")
    return flat


def _name_kind(parameter: Any) -> str:
    return "Choices" if isinstance(parameter, Choices) or "choices" in parameter else "SearchInterval"


Parameter = Annotated[
    Annotated[SearchInterval, Tag("SearchInterval")] | Annotated[Choices, Tag("Choices")], Discriminator(_name_kind)
]


class GridConfig(ConfigSection):
    """Keys of a grid: every combination of some values."""

    max_batch_size: int | None = Field(ge=1, description="jobs that are launched together; null: all of them")
    params: dict[str, str | int | float | bool] | None = Field(
        description="values of keys, as the command line has them"
    )


LeverName = Annotated[str, Field(pattern=r"^[a-zA-Z]\w*$", max_length=40)]


class AblationConfig(ConfigSection):
    """Keys of an ablation: a baseline, and variants that each change one setting."""

    levers: dict[LeverName, Annotated[list[str], Field(min_length=1)]] = Field(
        description="what can be changed, by name: overrides as the command line has them"
    )
    change: list[LeverName] | None = Field(description="the levers to try, each alone")


class SweepConfig(ConfigSection):
    """Keys of a search that maximizes the goal's validation macro AUROC."""

    n_trials: int = Field(ge=1, le=100_000, description="trials of the study, those of earlier commands included")
    n_parallel: int = Field(ge=1, le=1000, description="trials at a time")
    seed: Seed = Field(description="of the sampler")
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "none"]
    n_startup_trials: int = Field(ge=1, le=100_000, description="trials before sampler and pruner learn from them")
    n_warmup_epochs: int = Field(ge=0, le=10_000, description="epochs of each trial that are never pruned")
    space: Annotated[dict[str, Parameter], BeforeValidator(_flatten)] = Field(
        min_length=1, description="keys of the config, each {low, high, log, step} or {choices}"
    )

    def list_corners(self) -> list[list[str]]:
        """Overrides of a few points that together reach both ends of each interval, and every choice."""
        n_points = max(len(parameter.extremes) for parameter in self.space.values())
        columns = [
            [write_override(key, value) for value in islice(cycle(parameter.extremes), n_points)]
            for key, parameter in self.space.items()
        ]
        return [list(point) for point in zip(*columns, strict=True)]


SweeperT = TypeVar("SweeperT", bound=ConfigSection)


class HydraSection(ConfigSection, Generic[SweeperT]):
    """The sweeper's part of Hydra's own config."""

    sweeper: SweeperT


class SweepCommand(ConfigSection, Generic[SweeperT]):
    """A command line's sweep settings, under the key names that a user types."""

    command = "sweep"
    hydra: HydraSection[SweeperT]


def write_override(key: str, value: Value) -> str:
    """``KEY=VALUE`` in Hydra's grammar; floats with four digits, so that they can be typed.

    >>> write_override("lr", 1.23456e-05), write_override("data.root", "/a b"), write_override("lr", None)
    ('lr=1.235e-05', "data.root='/a b'", 'lr=null')
    """
    if isinstance(value, float) and math.isfinite(value):
        return f"{key}={float(f'{value:.4g}')!r}"
    if isinstance(value, str):
        return f"{key}={quote(value)}"
    return f"{key}={'null' if value is None else str(value).lower()}"


def quote(text: str) -> str:
    """A text as a value of Hydra's grammar, quoted if necessary.

    >>> quote("adamw"), quote("it's"), quote("1")
    ('adamw', "'it\\\\'s'", "'1'")
    """
    if text.replace("_", "").isalpha() and text.lower() not in {"null", "true", "false", "nan", "inf"}:
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
