"""Every key that a user may set: its type, its range, what it means. The values stand in ``conf/``.

Hydra composes the files of ``conf/`` and the command line; ``read_config`` checks the outcome here, so that
a typo, a wrong type, a value out of range or a contradiction is one line that names the key.
"""

import difflib
import os
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxrlit.errors import ConfigError, first_line

PhaseName = Literal["scratch", "frozen", "finetune", "highres"]
PHASE_NAMES: tuple[PhaseName, ...] = get_args(PhaseName)
Precision = Literal["bf16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp32"]
N_LAYERS = 427
"""Layers of DenseNet121 without its head, as Keras counts them."""

ImageSize = Annotated[int, Field(ge=32, le=2048, description="side of the square image, pixels")]
BatchSize = Annotated[int, Field(ge=1, le=65536, description="images of one optimizer step, over all devices")]
LayerCount = Annotated[int, Field(ge=0, le=N_LAYERS, description="last layers that train, counted as Keras does")]
LearningRate = Annotated[float, Field(gt=0, le=10, description="learning rate; the peak of a one-cycle schedule")]
Epochs = Annotated[int, Field(ge=1, le=10_000, description="epochs at most")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Folder = Annotated[str, Field(min_length=1), AfterValidator(lambda path: os.path.abspath(os.path.expanduser(path)))]
"""Becomes absolute."""
Target = dict[str, Any]
"""What Hydra instantiates: a dict with ``_target_``, the dotted name of a class, and its arguments."""


class Section(BaseModel):
    """A part of the config: unknown keys and wrong types are errors, nothing is converted, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataBase(Section):
    """Keys that every data set has."""

    default_weights: ClassVar[str] = "imagenet"

    val_fraction: float = Field(gt=0, lt=1, description="share of the images outside test that validate")
    test_fraction: float = Field(gt=0, lt=1, description="share of all images that test, where no official list says")
    split: Literal["auto", "official", "grouped"] = Field(description="auto: official where the lists are there")
    split_seed: Seed = Field(description="seed of the split alone, so that several seeds share one split")
    resize: Literal["pad", "crop", "stretch"] = Field(description="how an image that is not square becomes square")
    max_dropped: Fraction = Field(description="share of the table's images that may be missing or corrupt")


class SyntheticData(DataBase):
    """The embedded data set: drawn once, in NIH's layout, under ``cache_dir``."""

    default_weights: ClassVar[str] = "none"

    source: Literal["synthetic"]
    n_patients: int = Field(ge=20, le=100_000)
    image_px: int = Field(ge=32, le=1024, description="side of the drawn images, pixels")
    seed: Seed = Field(description="seed of the drawings")


class NIHData(DataBase):
    """NIH ChestX-ray14 as its users have it on disk."""

    source: Literal["nih"]
    root: Folder | None = Field(description="folder of the images and the label table")


class ModelConfig(Section):
    """The network."""

    name: Literal["densenet121"]
    weights: str | None = Field(
        description="what the chain starts from: imagenet, none, or a file of weights; "
        "auto: imagenet (none for synthetic data); null: what init_from says"
    )
    normalize: Literal["imagenet", "unit"] = Field(description="mean and std after scaling to [0, 1]")


class LossConfig(Section):
    """Binary cross-entropy over the labels."""

    name: Literal["bce", "weighted_bce"]
    pos_weight_cap: float | None = Field(gt=0, le=1000, description="upper bound of negatives / positives")

    @model_validator(mode="after")
    def _check_cap(self) -> Self:
        if (self.name == "weighted_bce") != (self.pos_weight_cap is not None):
            raise ValueError("loss.pos_weight_cap is a number with loss=weighted_bce, and null with loss=bce")
        return self


class AugmentConfig(Section):
    """Training images only. All zero: no augmentation."""

    flip: Fraction = Field(description="probability of a horizontal flip")
    rotate: float = Field(ge=0, le=45, description="rotation at most, degrees either way")
    zoom: float = Field(ge=0, lt=0.5, description="change of scale at most, as a fraction either way")
    contrast: float = Field(ge=0, lt=1, description="change of contrast at most, as a fraction either way")


class PhaseConfig(Section):
    """One phase: one trainer, one optimizer, one scheduler."""

    img_size: ImageSize
    batch_size: BatchSize
    n_unfreeze: LayerCount
    n_unfreeze_schedule: dict[int, LayerCount] | None = Field(description="{epoch: n_unfreeze}, from epoch 0 on")
    freeze_bn: bool = Field(description="every BatchNorm keeps its statistics, weight and bias")
    lr: LearningRate
    max_epochs: Epochs
    scheduler: Target | None
    callbacks: dict[str, Target | None] = Field(description="callbacks of this phase over those of all phases")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        schedule = self.n_unfreeze_schedule
        if schedule is None:
            return self
        if not schedule or min(schedule) != 0:
            raise ValueError("n_unfreeze_schedule must say what trains from epoch 0 on")
        if max(schedule) >= self.max_epochs:
            raise ValueError(f"n_unfreeze_schedule names epoch {max(schedule)}, the last is {self.max_epochs - 1}")
        if max(schedule.values()) != self.n_unfreeze:
            raise ValueError(
                f"n_unfreeze_schedule unfreezes {max(schedule.values())} layers at most, n_unfreeze says "
                f"{self.n_unfreeze}: set both to the same number"
            )
        return self


class PhasesConfig(Section):
    """The phases, in the order in which they follow each other."""

    scratch: PhaseConfig
    frozen: PhaseConfig
    finetune: PhaseConfig
    highres: PhaseConfig

    def get(self, name: PhaseName) -> PhaseConfig:
        phase: PhaseConfig = getattr(self, name)
        return phase

    @model_validator(mode="after")
    def _check_meaning(self) -> Self:
        if self.scratch.n_unfreeze != N_LAYERS or self.scratch.n_unfreeze_schedule or self.scratch.freeze_bn:
            raise ValueError(
                "the scratch phase trains everything: it takes no n_unfreeze and no freeze_bn; "
                "name the phase that you mean (phase=finetune, phase=highres)"
            )
        if self.frozen.n_unfreeze != 0 or self.frozen.n_unfreeze_schedule or not self.frozen.freeze_bn:
            raise ValueError(
                "the frozen phase trains the head alone: it takes no n_unfreeze and no freeze_bn; phase=finetune does"
            )
        return self


class MachineConfig(Section):
    """Where the work runs."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    num_workers: int | None = Field(ge=0, le=256, description="loader processes; null: chosen from the machine")


class TrainerConfig(MachineConfig):
    """How the batches are computed."""

    precision: PrecisionChoice = Field(description="auto: bf16 where the device has it")
    gradient_clip_norm: float | None = Field(gt=0, description="gradients are scaled down to this norm")


class MetricsConfig(Section):
    """What is measured beside the validation AUROC."""

    train: bool = Field(description="AUROC of the training images as they were seen")


FLAT_KEYS = ("img_size", "lr", "n_unfreeze", "batch_size", "max_epochs", "freeze_bn")
"""Keys that, where set, stand in for ``phases.<goal>.<key>``."""


class TrainConfig(Section):
    """What ``python train.py`` takes."""

    phase: PhaseName
    img_size: ImageSize | None
    lr: LearningRate | None
    n_unfreeze: LayerCount | None
    batch_size: BatchSize | None
    max_epochs: Epochs | None
    freeze_bn: bool | None
    init_from: str | None = Field(description="checkpoint that the goal starts from, in place of the phases before")
    seed: Seed = Field(description="seed of initialisation, order and augmentation")
    run: str = Field(pattern=r"^\w[\w.-]*$", description="name of the run, a folder of runs_dir")
    runs_dir: Folder = Field(description="folder of the runs")
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    evaluate: bool = Field(description="evaluate the goal when it is trained")
    data: SyntheticData | NIHData = Field(discriminator="source")
    model: ModelConfig
    loss: LossConfig
    augment: AugmentConfig
    optimizer: Target
    phases: PhasesConfig
    callbacks: dict[str, Target | None]
    trainer: TrainerConfig
    logger: Target | None
    metrics: MetricsConfig

    @field_validator("optimizer")
    @classmethod
    def _check_lr(cls, optimizer: Target) -> Target:
        if "lr" in optimizer:
            raise ValueError("each phase has its own learning rate: set lr, or phases.<phase>.lr")
        return optimizer

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        weights = self.data.default_weights if self.model.weights == "auto" else self.model.weights
        if self.init_from is not None:
            if self.model.weights not in (None, "auto"):
                raise ValueError("init_from and model.weights both say what to start from: drop one of them")
        elif weights is None:
            raise ValueError("model.weights must be imagenet, none or a file, unless init_from names a checkpoint")
        elif self.phase == "scratch" and weights != "none":
            raise ValueError("phase=scratch starts from random weights: add model.weights=none, or name another phase")
        return self

    def settle(self) -> Self:
        """The same choices, each in one place: ``auto`` weights and flat keys resolved."""
        weights = self.model.weights
        if weights == "auto":
            weights = None if self.init_from else self.data.default_weights
        model = self.model.model_copy(update={"weights": weights})
        return self.model_copy(update={**dict.fromkeys(FLAT_KEYS), "model": model})


class EvaluateDataConfig(Section):
    """What has changed about the data since training."""

    root: Folder | None = Field(description="where the images are now, if they have moved since training")


class EvaluateConfig(Section):
    """What ``python evaluate.py`` takes. All else comes from the config saved with the checkpoint."""

    ckpt: str = Field(min_length=1, description="a checkpoint or a phase folder")
    out: Folder | None = Field(description="folder of the tables; null: eval/ beside the checkpoint")
    data: EvaluateDataConfig
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    trainer: MachineConfig


SectionT = TypeVar("SectionT", bound=Section)


def read_config(composed: DictConfig | dict[str, Any], schema: type[SectionT]) -> SectionT:
    """Check a composed config and give it types.

    Args:
        composed: What Hydra composed, or the dict that was saved with a checkpoint.
        schema: ``TrainConfig`` or ``EvaluateConfig``.

    Raises:
        ConfigError: A key is unknown or missing, a value is of the wrong type or out of range, or two keys
            contradict each other. The message is one line.
    """
    if isinstance(composed, DictConfig):
        try:
            missing = sorted(str(key) for key in OmegaConf.missing_keys(composed))
            values: Any = OmegaConf.to_container(composed, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{error.full_key}: {first_line(error)}") from None
        if missing:
            raise ConfigError(f"{missing[0]} has no value: say {missing[0]}=VALUE")
    else:
        values = dict(composed)
    if schema is TrainConfig:
        values = _apply_flat_keys(values)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_say_first_fault(error, values)) from None
    return config.settle() if isinstance(config, TrainConfig) else config


def suggest_key(key: str, known: list[str]) -> str:
    """What an unknown key may have meant: the end of a message."""
    last = key.rpartition(".")[2]
    close = [last] if last in known else difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else "the keys are: python train.py --cfg job"


def list_keys(values: Any, prefix: str = "") -> list[str]:
    """Dotted names of all keys of nested dicts."""
    if not isinstance(values, dict):
        return []
    return [
        name
        for key, value in values.items()
        for name in (f"{prefix}{key}", *list_keys(value, prefix=f"{prefix}{key}."))
    ]


def _apply_flat_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Let each flat key that is set stand in for the goal's own, after checking it under its own name."""
    phase, phases = values.get("phase"), values.get("phases")
    if not isinstance(phase, str) or not isinstance(phases, dict) or not isinstance(phases.get(phase), dict):
        return values  # validation says what is wrong
    flat = {key: values[key] for key in FLAT_KEYS if values.get(key) is not None}
    return {**values, "phases": {**phases, phase: {**phases[phase], **flat}}}


def _say_first_fault(error: ValidationError, values: dict[str, Any]) -> str:
    faults = error.errors(include_url=False)
    # A flat key is checked under its own name and in the phase that it went to: the shorter name is the user's.
    fault = min(faults, key=lambda item: (item["type"] != "extra_forbidden", len(item["loc"])))
    parts = [str(part) for part in fault["loc"]]
    if parts[:1] == ["data"] and len(parts) > 2:
        del parts[1]  # the name of the union's member
    key, kind = ".".join(parts), fault["type"]
    if kind == "extra_forbidden":
        known = [name for name in list_keys(values) if name != key]
        return f"{key}: there is no such key; {suggest_key(key, known)}"
    if kind == "missing":
        return f"{key}: the key is missing"
    if kind == "union_tag_invalid":
        return f"{key}.source={fault['ctx']['tag']}: it may be {fault['ctx']['expected_tags']}"
    message = fault["msg"].removeprefix("Value error, ")
    if not key or kind == "value_error":
        return f"{key}: {message}" if key in {"optimizer"} else message
    return f"{key}={fault['input']}: {message[0].lower()}{message[1:]}"
