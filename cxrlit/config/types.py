"""Types that several config sections share."""

import os
import re
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cxrlit.core.labels import FIXED_COLUMNS, NAME_LENGTH, NAME_PATTERN

PHASE_PATTERN = r"^[a-z]\w*$"
PhaseName = Annotated[str, Field(pattern=PHASE_PATTERN, max_length=40, description="name of a phase")]
BatchNormMode = Literal["frozen", "affine", "adapt", "train"]
BATCH_NORM_MODES: tuple[BatchNormMode, ...] = get_args(BatchNormMode)
Precision = Literal["bf16", "fp16", "fp32"]
EvaluationPrecision = Literal["bf16", "fp32"]
Normalization = Literal["imagenet", "unit", "half", "jfhealthcare", "medical_mae"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]
TTA = Literal["none", "flip", "crops"]
Average = Literal["probs", "logits"]
N_LAYERS = 427
"""Number of layers of DenseNet121 without its head, as Keras counts them."""

ImageSize = Annotated[int, Field(ge=32, le=2048, description="side of the square image, pixels")]
BatchSize = Annotated[int, Field(ge=1, le=65536, description="images of one optimizer step, over all devices")]
LayerCount = Annotated[int, Field(ge=0, le=N_LAYERS, description="last layers that train, counted as Keras does")]
LearningRate = Annotated[float, Field(gt=0, le=10, description="learning rate; the peak of a one-cycle schedule")]
Epochs = Annotated[int, Field(ge=1, le=10_000, description="epochs at most")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Folder = Annotated[str, Field(min_length=1), AfterValidator(lambda path: os.path.abspath(os.path.expanduser(path)))]
"""Path of a folder, made absolute."""


def _drop_nulls(entries: Any) -> Any:
    return {name: spec for name, spec in entries.items() if spec is not None} if isinstance(entries, dict) else entries


Instantiable = dict[str, Any]
"""A dict that Hydra instantiates: ``_target_``, the dotted name of a class, and its arguments."""
Loggers = Annotated[
    dict[str, Instantiable],
    BeforeValidator(_drop_nulls),
    Field(exclude=True, default_factory=dict),
]
"""Loggers by name; null drops one. Config dumps exclude them: their settings may contain secrets."""


def _check_labels(labels: list[str]) -> list[str]:
    if len({label.casefold() for label in labels}) < len(labels):
        raise ValueError("labels names each label once")
    taken = [label for label in labels if label in {*FIXED_COLUMNS, "macro", "split", "row"}]
    if taken:
        raise ValueError(f"labels: {taken[0]} is the name of another column: choose another")
    return labels


SeenName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=40, description="name of a data set")]
LabelName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
Labels = Annotated[
    list[LabelName], Field(min_length=1, description="the findings, in order"), AfterValidator(_check_labels)
]


def _check_run(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"run={name}: a run's name has letters, digits, . _ and -, no space, and no . or - in front")
    return name


RunName = Annotated[str, AfterValidator(_check_run)]


class ConfigSection(BaseModel):
    """A part of the config: frozen; unknown keys and wrong types are errors, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    command: ClassVar[str] = "train"
    """Command of the section: a key of ``read_config.SHOW_KEYS``."""

    def settle(self) -> Self:
        """A copy with each choice in one place and without keys that have no effect."""
        return self
