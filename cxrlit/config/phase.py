"""Keys of one phase of the chain."""

from typing import Self

from pydantic import Field, model_validator

from cxrlit.config.types import (
    N_LAYERS,
    BatchNormMode,
    BatchSize,
    ConfigSection,
    Epochs,
    ImageSize,
    Instantiable,
    LayerCount,
    LearningRate,
)


class PhaseConfig(ConfigSection):
    """One phase: one trainer, one optimizer, one scheduler."""

    img_size: ImageSize
    batch_size: BatchSize
    n_unfreeze: LayerCount
    n_unfreeze_schedule: dict[int, LayerCount] | None = Field(description="{epoch: n_unfreeze}, from epoch 1 on")
    batch_norm: BatchNormMode = Field(
        description="frozen: no BatchNorm changes (statistics, weight, bias); affine: weight and bias of layers that "
        "train do, statistics stay; adapt: statistics are estimated anew on the training images before the first step, "
        "then all is frozen; train: all of layers that train changes"
    )
    lr: LearningRate
    max_epochs: Epochs
    scheduler: Instantiable | None
    require_improvement: bool = Field(
        description="hand on the checkpoint of the phase before, at its own img_size, where no epoch has a better "
        "monitored value than that has"
    )
    callbacks: dict[str, Instantiable] = Field(description="callbacks of this phase over those of all phases")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        schedule = self.n_unfreeze_schedule
        if schedule is None:
            return self
        if 0 in schedule:
            ours = ",".join(f"{epoch + 1}:{layers}" for epoch, layers in schedule.items())
            raise ValueError(f"n_unfreeze_schedule: epochs count from 1: write {{{ours}}}")
        if not schedule or min(schedule) != 1:
            raise ValueError("n_unfreeze_schedule must say what trains from epoch 1 on")
        if max(schedule) > self.max_epochs:
            raise ValueError(f"n_unfreeze_schedule names epoch {max(schedule)}, the last is {self.max_epochs}")
        if max(schedule.values()) != self.n_unfreeze:
            raise ValueError(
                f"n_unfreeze_schedule unfreezes {max(schedule.values())} layers at most, n_unfreeze says "
                f"{self.n_unfreeze}: set both to the same number"
            )
        return self


def check_meaning(phases: dict[str, PhaseConfig]) -> dict[str, PhaseConfig]:
    """Return the phases if ``scratch`` and ``frozen`` train what their names say.

    Raises:
        ValueError: One of them does not.
    """
    scratch, frozen = phases.get("scratch"), phases.get("frozen")
    if scratch and (scratch.n_unfreeze != N_LAYERS or scratch.n_unfreeze_schedule or scratch.batch_norm != "train"):
        raise ValueError(
            "the scratch phase trains everything: it takes no n_unfreeze and no batch_norm; "
            "name the phase that you mean (phase=finetune, phase=highres)"
        )
    if frozen and (frozen.n_unfreeze != 0 or frozen.n_unfreeze_schedule):
        raise ValueError("the frozen phase trains the head alone: it takes no n_unfreeze; phase=finetune does")
    if frozen and frozen.batch_norm not in ("frozen", "adapt"):
        raise ValueError("the frozen phase trains the head alone: batch_norm may be frozen or adapt there")
    return phases
