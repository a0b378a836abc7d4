"""What ``python train.py`` takes."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cxrlit.config.data import DataConfig
from cxrlit.config.types import (
    N_LAYERS,
    BatchSize,
    ConfigSection,
    Epochs,
    Folder,
    Fraction,
    ImageSize,
    Instantiable,
    LabelName,
    Labels,
    LayerCount,
    LearningRate,
    PhaseName,
    PrecisionChoice,
    Seed,
)


class ModelConfig(ConfigSection):
    """The network."""

    name: Literal["densenet121"]
    weights: str | None = Field(
        description="what the chain starts from: imagenet, none, or a file of weights; "
        "auto: imagenet (none for synthetic data); null: what init_from says"
    )
    normalize: Literal["imagenet", "unit"] = Field(description="mean and std after scaling to [0, 1]")


class LossConfig(ConfigSection):
    """Binary cross-entropy over the labels."""

    name: Literal["bce", "weighted_bce"]
    pos_weight_cap: float | None = Field(gt=0, le=1000, description="upper bound of negatives / positives")

    @model_validator(mode="after")
    def _check_cap(self) -> Self:
        if (self.name == "weighted_bce") != (self.pos_weight_cap is not None):
            raise ValueError("loss.pos_weight_cap is a number with loss=weighted_bce, and null with loss=bce")
        return self


class AugmentConfig(ConfigSection):
    """Training images only. All zero: no augmentation."""

    flip: Fraction = Field(description="probability of a horizontal flip")
    rotate: float = Field(ge=0, le=45, description="rotation at most, degrees either way")
    zoom: float = Field(ge=0, lt=0.5, description="change of scale at most, as a fraction either way")
    contrast: float = Field(ge=0, lt=1, description="change of contrast at most, as a fraction either way")


class SamplerConfig(ConfigSection):
    """Which training images an epoch draws, and how often."""

    name: Literal["shuffle", "oversample"]
    labels: list[LabelName] | None = Field(description="labels whose positives are drawn more often")
    prevalence: float | None = Field(gt=0, lt=1, description="labels rarer than this are drawn more often")

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        wanted = self.name == "oversample"
        if (self.labels is not None) != wanted or (self.prevalence is not None) != wanted:
            raise ValueError("sampler.labels and sampler.prevalence go with sampler=oversample, and with it alone")
        return self


class PhaseConfig(ConfigSection):
    """One phase: one trainer, one optimizer, one scheduler."""

    img_size: ImageSize
    batch_size: BatchSize
    n_unfreeze: LayerCount
    n_unfreeze_schedule: dict[int, LayerCount] | None = Field(description="{epoch: n_unfreeze}, from epoch 0 on")
    freeze_bn: bool = Field(description="every BatchNorm keeps its statistics, weight and bias")
    lr: LearningRate
    max_epochs: Epochs
    scheduler: Instantiable | None
    require_improvement: bool = Field(
        description="hand on the starting weights where validation AUROC ends below theirs"
    )
    callbacks: dict[str, Instantiable | None] = Field(description="callbacks of this phase over those of all phases")

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


class PhasesConfig(ConfigSection):
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


class MachineConfig(ConfigSection):
    """Where the work runs."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    devices: int = Field(ge=1, le=1024, description="devices of a node, a process each; they share each batch")
    num_nodes: int = Field(ge=1, le=4096, description="nodes")
    num_workers: int | None = Field(
        ge=0,
        le=256,
        description="processes that augment training images; images that are not augmented come from one thread, "
        "whatever the number; 0: neither, batches are made between the steps; null: chosen from the machine",
    )


class TrainerConfig(MachineConfig):
    """How the batches are computed."""

    precision: PrecisionChoice = Field(description="auto: bf16 where the device has it")
    gradient_clip_norm: float | None = Field(gt=0, description="gradients are scaled down to this norm")
    checkpoint_every_n_steps: int | None = Field(
        ge=1, description="steps between two saves of the whole state; null: before each validation alone"
    )
    compile: bool = Field(default=False, description="torch.compile the network")  # checkpoints before it have none

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile and self.devices * self.num_nodes > 1:
            raise ValueError("trainer.compile=true goes with one device: drop it, or trainer.devices")
        return self


class MetricsConfig(ConfigSection):
    """What is measured beside the validation AUROC."""

    train: bool = Field(description="AUROC of the training images as they were seen")


def _check_run(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"run={name}: a run's name has letters, digits, . _ and -, no space, and no . or - in front")
    return name


RunName = Annotated[str, AfterValidator(_check_run)]

FLAT_KEYS = ("img_size", "lr", "n_unfreeze", "batch_size", "max_epochs", "freeze_bn")
"""Keys that, where set, stand in for ``phases.<goal>.<key>``."""


class TrainConfig(ConfigSection):
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
    run: RunName = Field(description="name of the run, a folder of runs_dir")
    runs_dir: Folder = Field(description="folder of the runs")
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    evaluate: bool = Field(description="evaluate the goal when it is trained")
    cache_features: bool = Field(
        description="compute what comes before the first trained layer once for each of feature_views augmented views "
        "of an image, keep it below cache_dir, and reuse it in later epochs"
    )
    feature_views: int = Field(ge=1, le=1000, description="augmented views of each training image that are kept")
    labels: Labels
    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    augment: AugmentConfig
    sampler: SamplerConfig
    optimizer: Instantiable
    phases: PhasesConfig
    callbacks: dict[str, Instantiable | None]
    trainer: TrainerConfig
    logger: Instantiable | None
    metrics: MetricsConfig

    @field_validator("optimizer")
    @classmethod
    def _check_lr(cls, optimizer: Instantiable) -> Instantiable:
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

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        unknown = [label for label in self.sampler.labels or () if label not in self.labels]
        if unknown:
            raise ValueError(
                f"sampler.labels: there is no {' or '.join(unknown)} among the labels: say sampler.labels=[...] with "
                f"those to draw more often, of {', '.join(self.labels)}"
            )
        return self

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        n_devices = self.trainer.devices * self.trainer.num_nodes
        for name, phase in self.phases:
            if phase.batch_size < n_devices:
                raise ValueError(
                    f"phases.{name}.batch_size={phase.batch_size} is shared by {n_devices} devices: set it to "
                    f"{n_devices} or more, or take fewer devices"
                )
        return self

    def settle(self) -> Self:
        """The same choices, each in one place: ``auto`` weights and flat keys resolved."""
        weights = self.model.weights
        if weights == "auto":
            weights = None if self.init_from else self.data.default_weights
        model = self.model.model_copy(update={"weights": weights})
        return self.model_copy(update={**dict.fromkeys(FLAT_KEYS), "model": model})
