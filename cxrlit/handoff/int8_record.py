"""Figures of the int8 gate in a bundle's config."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Int8Label(_Plain):
    """A label in int8 against fp32, on the validation images.

    Attributes:
        label: Name of the label.
        positives: Number of images with the label.
        negatives: Number of images without it.
        auroc_fp32: AUROC in fp32; None without both classes.
        auroc_int8: AUROC in int8; None without both classes.
        mean_change: Mean absolute change of the probability.
        agreement: Share of equal decisions at the threshold; None without a threshold.
    """

    label: str
    positives: Count
    negatives: Count
    auroc_fp32: Rate | None
    auroc_int8: Rate | None
    mean_change: Rate
    agreement: Rate | None

    @property
    def auroc_loss(self) -> float | None:
        """AUROC in fp32 minus AUROC in int8."""
        if self.auroc_fp32 is None or self.auroc_int8 is None:
            return None
        return self.auroc_fp32 - self.auroc_int8


class Int8Record(_Plain):
    """How the networks in int8 were made, and how they compare with those in fp32.

    Attributes:
        onnxruntime: Version that quantised and measured.
        n_calibration: Number of training images that fixed the ranges.
        n_val: Number of validation images of the figures.
        max_auroc_loss: Largest AUROC that a label may lose.
        is_forced: Whether ``--force`` was given and no label's AUROC could be judged.
        agreement: Share of equal decisions over all labels with a threshold; None without one.
        labels: Figures of the labels, in the order of the bundle.
    """

    onnxruntime: str
    n_calibration: Count
    n_val: Count
    max_auroc_loss: Rate
    is_forced: bool
    agreement: Rate | None
    labels: list[Int8Label]
