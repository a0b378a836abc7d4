"""What a bundle says of its networks in int8: the figures of the gate."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Int8Label(_Plain):
    """A label in int8 against fp32, on the validation images.

    Attributes:
        label: Its name.
        positives: Images that have it.
        negatives: Images that do not.
        auroc_fp32: None: undefined, without both.
        auroc_int8: The same in int8.
        mean_change: Mean absolute change of the probability.
        agreement: Share of equal decisions at the threshold; None: it has no threshold.
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
        """AUROC in fp32 less that in int8."""
        if self.auroc_fp32 is None or self.auroc_int8 is None:
            return None
        return self.auroc_fp32 - self.auroc_int8


class Int8Record(_Plain):
    """How the networks in int8 were made, and how they compare with those in fp32.

    Attributes:
        onnxruntime: Version that quantised, and that measured.
        n_calibration: Training images that fixed the ranges.
        n_val: Validation images that the figures are of.
        max_auroc_loss: Most AUROC that a label may lose.
        is_forced: There was no label whose AUROC could be judged, and ``--force`` was given.
        agreement: Share of equal decisions at the fixed thresholds, over all labels that have one; None: none has.
        labels: In the order of the bundle.
    """

    onnxruntime: str
    n_calibration: Count
    n_val: Count
    max_auroc_loss: Rate
    is_forced: bool
    agreement: Rate | None
    labels: list[Int8Label]
