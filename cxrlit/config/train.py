"""Keys of ``python train.py``."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cxrlit.config.data import DataConfig, NIHGoogleData
from cxrlit.config.model import ModelConfig
from cxrlit.config.phase import PhaseConfig, check_meaning
from cxrlit.config.types import (
    N_LAYERS,
    BatchNormMode,
    BatchSize,
    ConfigSection,
    Epochs,
    Folder,
    ImageSize,
    Instantiable,
    LabelName,
    Labels,
    LayerCount,
    LearningRate,
    Loggers,
    PhaseName,
    PrecisionChoice,
    RunName,
    Seed,
)


class AugmentConfig(ConfigSection):
    """Augmentation of training images; empty: no augmentation."""

    transforms: dict[str, Instantiable] = Field(
        description="transforms of albumentations, or classes of your own, by name, in order; null drops one"
    )

    @field_validator("transforms", mode="before")
    @classmethod
    def _drop_null(cls, transforms: Any) -> Any:
        if not isinstance(transforms, dict):
            return transforms
        return {name: spec for name, spec in transforms.items() if spec is not None}


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


class MachineConfig(ConfigSection):
    """Keys of the hardware: accelerator, devices, nodes and loader workers."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    devices: int = Field(ge=1, le=1024, description="devices of a node, a process each; they share each batch")
    num_nodes: int = Field(ge=1, le=4096, description="nodes")
    num_workers: int | None = Field(
        ge=0,
        le=256,
        description="processes that augment training images; images that are not augmented come from one thread, "
        "whatever the number; 0: no loader workers; null: chosen from the machine",
    )


class TrainerConfig(MachineConfig):
    """Keys of the Trainer: hardware, precision, gradients and checkpoints."""

    precision: PrecisionChoice = Field(
        description="auto: bf16 where the device computes in it; fp16: on a GPU, with gradient scaling"
    )
    accumulate_grad_batches: int = Field(ge=1, le=10_000, description="batches whose gradients make one step")
    gradient_clip_norm: float | None = Field(gt=0, description="gradients are scaled down to this norm")
    checkpoint_every_n_steps: int | None = Field(
        ge=1, description="steps between two saves of the whole state; null: before each validation alone"
    )
    compile: bool = Field(default=False, description="torch.compile the network")  # older checkpoints lack this key

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile and self.devices * self.num_nodes > 1:
            raise ValueError("trainer.compile=true goes with one device: drop it, or trainer.devices")
        return self


class MetricsConfig(ConfigSection):
    """Metrics measured after each epoch."""

    train: bool = Field(description="also over the training images as they were seen")
    collection: dict[str, Instantiable | None] = Field(description="metrics by name; null drops one")


FLAT_KEYS = ("img_size", "lr", "n_unfreeze", "n_unfreeze_schedule", "batch_size", "max_epochs", "batch_norm")
"""Keys that replace ``phases.<goal>.<key>`` where they are set."""


class TrainConfig(ConfigSection):
    """Keys of ``python train.py``."""

    phase: PhaseName
    chain: list[PhaseName] = Field(min_length=1, description="the phases, in the order in which they follow each other")
    img_size: ImageSize | None
    lr: LearningRate | None
    n_unfreeze: LayerCount | None
    n_unfreeze_schedule: dict[int, LayerCount] | None
    batch_size: BatchSize | None
    max_epochs: Epochs | None
    batch_norm: BatchNormMode | None
    init_from: str | None = Field(
        min_length=1, description="checkpoint that the goal starts from, in place of the phases before"
    )
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
    loss: Instantiable
    augment: AugmentConfig
    sampler: SamplerConfig
    optimizer: Instantiable
    scheduler: Instantiable | None = Field(description="of all phases; settled, each phase has its own")
    phases: Annotated[dict[PhaseName, PhaseConfig], AfterValidator(check_meaning)]
    callbacks: dict[str, Instantiable] = Field(description="callbacks of all phases; settled, each phase has its own")
    trainer: TrainerConfig
    logger: Loggers
    metrics: MetricsConfig
    monitor: str = Field(description="metric by which the best epoch is chosen, such as val/loss")

    @field_validator("loss")
    @classmethod
    def _check_cap(cls, loss: Instantiable) -> Instantiable:
        cap = loss.get("pos_weight_cap")
        if cap is not None and (type(cap) not in (int, float) or not 0 < cap <= 1000):
            raise ValueError(f"loss.pos_weight_cap={cap}: it must be a number above 0, at most 1000, or null")
        return loss

    @field_validator("optimizer")
    @classmethod
    def _check_optimizer(cls, optimizer: Instantiable) -> Instantiable:
        if "lr" in optimizer:
            raise ValueError("optimizer.lr: each phase has its own learning rate: set lr, or phases.<phase>.lr")
        factor = optimizer.get("backbone_lr_factor", 1.0)
        if type(factor) not in (int, float) or not 0 < factor <= 1000:
            raise ValueError(f"optimizer.backbone_lr_factor={factor}: it must be a number above 0, at most 1000")
        if type(optimizer.get("decay_norms", True)) is not bool:
            raise ValueError(f"optimizer.decay_norms={optimizer['decay_norms']}: it must be true or false")
        return optimizer

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if isinstance(self.data, NIHGoogleData):
            raise ValueError("data=nih_google is for evaluation, its images are those of nih: train on data=nih")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.init_from is not None:
            if self.model.weights not in (None, "auto"):
                raise ValueError("init_from and model.weights both say what to start from: drop one of them")
            if self.model.take_head or self.model.weights_labels is not None:
                raise ValueError("model.take_head and model.weights_labels go with model.weights, not with init_from")
        elif self.first_weights is None:
            raise ValueError("model.weights must be imagenet, none, a name or a file, unless init_from is set")
        return self

    @model_validator(mode="after")
    def _check_chain(self) -> Self:
        missing = [name for name in (*self.chain, self.phase) if name not in self.phases]
        if missing:
            raise ValueError(
                f"there is no phase {missing[0]}; there are {', '.join(self.phases)}. "
                f"+phases@phases.{missing[0]}={missing[0]} takes it from a file of conf/phases/ or of --config-dir"
            )
        if len(set(self.chain)) < len(self.chain):
            raise ValueError("chain names each phase once")
        if self.init_from is None and self.phase not in self.list_chain():
            if self.phase == "scratch":
                raise ValueError(
                    "phase=scratch starts from random weights: add model.weights=none, or name another phase"
                )
            raise ValueError(f"phase={self.phase}: chain has {', '.join(self.list_chain())}: set chain to have it")
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
        for name, phase in self.phases.items():
            if phase.batch_size < n_devices:
                raise ValueError(
                    f"phases.{name}.batch_size={phase.batch_size} is shared by {n_devices} devices: set it to "
                    f"{n_devices} or more, or take fewer devices"
                )
        return self

    @property
    def first_weights(self) -> str | None:
        """Starting weights of the chain; None if ``init_from`` gives the checkpoint."""
        weights = self.model.weights
        return (None if self.init_from else self.data.default_weights) if weights == "auto" else weights

    def list_chain(self) -> list[str]:
        """Names of all phases of the chain, first to last.

        With random weights, ``scratch`` comes before a chain whose first phase does not train every layer.
        """
        begins_frozen = self.phases[self.chain[0]].n_unfreeze < N_LAYERS and "scratch" not in self.chain
        return ["scratch", *self.chain] if self.first_weights == "none" and begins_frozen else self.chain

    def list_to_goal(self) -> list[str]:
        """Names of the phases up to the goal, first to last."""
        chain = self.list_chain()
        return [self.phase] if self.init_from is not None else chain[: chain.index(self.phase) + 1]

    def settle(self) -> Self:
        """A copy with ``auto`` weights resolved and flat keys removed."""
        model = self.model.model_copy(update={"weights": self.first_weights})
        return self.model_copy(update={**dict.fromkeys(FLAT_KEYS), "model": model})
