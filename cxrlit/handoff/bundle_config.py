"""Read, check and write ``config.json`` of a bundle.

Format 2 is for one network on each image, with the member's fields at the top level. Format 3 is for the mean over
several networks or several views of an image. Both are read into the same structure.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrlit.config import MAX_MEMBERS, TTA, Average, BatchNormMode, Normalization
from cxrlit.core.errors import BundleError, first_line
from cxrlit.core.labels import NAME_LENGTH, NAME_PATTERN
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize
from cxrlit.data.tta import choose_side, describe_mean
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.handoff.ood_check import Reference
from cxrlit.metrics.read_operating_point import KeyTwiceError, refuse_twice

FORMAT, MEAN_FORMAT = 2, 3

LabelName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
ShortText = Annotated[str, Field(min_length=1, max_length=200)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Preprocessing(_Plain):
    """Preprocessing from a file to the network's input: (1, S, S) uint8.

    Attributes:
        version: Version of ``cxrlit.data.image_io.decode``.
        img_size: S, pixels.
        resize: How images are made square.
        normalize: Mean and standard deviation that the network itself applies.
    """

    version: int
    img_size: Annotated[int, Field(ge=32, le=2048)]
    resize: Resize
    normalize: Normalization


class PhaseSettings(_Plain):
    """Settings of a phase."""

    img_size: int
    batch_size: int
    lr: float
    n_unfreeze: int
    batch_norm: BatchNormMode
    max_epochs: int


class PhaseRecord(_Plain):
    """A phase of the training that led to the weights.

    Attributes:
        phase: Its name.
        id: Its id.
        settings: Its settings; None for a phase of an earlier chain, which ``init_from`` continued.
    """

    phase: ShortText
    id: ShortText
    settings: PhaseSettings | None


class MemberRecord(_Plain):
    """A network and its training.

    Attributes:
        name: Phase, id and file of the checkpoint.
        phases: The training, first to last.
        epoch: Epoch of the last phase, from 1; 0: its starting weights.
        monitor: Name of the validation metric that chose the epoch.
        score: Value of the metric after the epoch.
    """

    name: ShortText
    phases: Annotated[list[PhaseRecord], Field(min_length=1)]
    epoch: Annotated[int, Field(ge=0)]
    monitor: str
    score: float


class PartCounts(_Plain):
    """Counts of a part of the data."""

    images: Annotated[int, Field(ge=0)]
    patients: Annotated[int, Field(ge=0)]


class DataRecord(_Plain):
    """The data of the training.

    Attributes:
        name: Name of the data set.
        fingerprint: Hash of every image's name, file, patient and targets.
        split_name: Name of the split.
        split_hash: Hash of the split.
        parts: Counts by part.
    """

    name: ShortText
    fingerprint: ShortText
    split_name: ShortText
    split_hash: ShortText
    parts: dict[str, PartCounts]


class StartRecord(_Plain):
    """The starting weights of the training.

    Attributes:
        weights: Name or file; for several members, all of them.
        saw: Data sets that they were trained on, by their names in ``data=``; None: unknown.
        caveats: Caveats that must accompany every number of the bundle.
    """

    weights: ShortText
    saw: list[ShortText] | None
    caveats: list[Annotated[str, Field(min_length=1, max_length=1000)]]


class BundleConfig(_Plain):
    """Content of ``config.json``.

    Attributes:
        format: Version of the bundle format.
        name: Phase, id and file of the checkpoint; for several ``ensemble-<id>``.
        architecture: Architecture of the networks.
        labels: Labels of the outputs, in order.
        preprocessing: From a file to the network's input.
        precision: Precision in which the networks were evaluated and the operating point was fitted.
        batch_size: Batch size of the evaluation.
        operating_point: Calibration and thresholds (``cxrlit.metrics.operating_point``).
        input_check: Reference of the out-of-distribution check.
        members: The networks, with the same labels, input size and normalization.
        tta: Views of an image that each network sees.
        average: What is averaged over networks and views: logits or probs.
        data: The data of the training.
        versions: Versions of the packages that made the bundle, by package.
        start: Starting weights of the training; None in a bundle of an older version.
        int8: Figures of int8; None: the bundle has no int8 networks.
    """

    format: int
    name: ShortText
    architecture: Literal["densenet121"]
    labels: Annotated[list[LabelName], Field(min_length=1, max_length=1000)]
    preprocessing: Preprocessing
    precision: Literal["bf16", "fp32"]
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    operating_point: dict[str, Any]
    input_check: Reference
    members: Annotated[list[MemberRecord], Field(min_length=1, max_length=MAX_MEMBERS)]
    tta: TTA
    average: Average
    data: DataRecord
    versions: dict[str, str]
    start: StartRecord | None = None
    int8: Int8Record | None = None

    @property
    def side(self) -> int:
        """Side of the opened image from which the views are cut, pixels."""
        return choose_side(self.preprocessing.img_size, self.tta)

    @property
    def is_mean(self) -> bool:
        """Whether a prob is the mean over several networks or views."""
        return len(self.members) > 1 or self.tta != "none"

    @property
    def predicted(self) -> str:
        """How probs are computed, in words."""
        return describe_mean(len(self.members), self.tta, self.average)

    @property
    def title(self) -> str:
        """The name and, unless one network predicts each image once, how probs are computed."""
        return f"{self.name} ({self.predicted})" if self.is_mean else self.name


def parse_config(content: bytes, path: Path) -> BundleConfig:
    """Parse the config of a bundle.

    Args:
        content: The bytes of ``config.json``.
        path: Path of the file, for messages.

    Raises:
        BundleError: It is not JSON, has another version, or has invalid keys or values.
    """
    try:
        plain = json.loads(content.decode("utf-8"), object_pairs_hook=refuse_twice)
    except KeyTwiceError as error:
        raise BundleError(f"{path}: the key {error} is there twice") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {first_line(error, 160)}") from None
    version = plain.get("format") if isinstance(plain, dict) else None
    if version not in (FORMAT, MEAN_FORMAT) or not isinstance(version, int):
        raise BundleError(
            f"{path}: a bundle of format {str(version)[:40]}; this version of cxrlit reads {FORMAT} and {MEAN_FORMAT}"
        )
    try:
        config = BundleConfig.model_validate(_lift(plain, path) if version == FORMAT else plain)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part)[:80] for part in fault["loc"])
        raise BundleError(f"{path}: {key}: {fault['msg']}") from None
    if len(set(config.labels)) < len(config.labels):
        raise BundleError(f"{path}: labels: one of them is there twice")
    if config.preprocessing.version != PREPROCESSING_VERSION:
        raise BundleError(
            f"{path}: preprocessing of version {config.preprocessing.version}; this cxrlit has "
            f"{PREPROCESSING_VERSION}: the same file would give other pixels"
        )
    return config


def write_config(config: BundleConfig) -> bytes:
    """Make the bytes of ``config.json``."""
    plain = config.model_dump(exclude={"int8"} if config.int8 is None else None)
    if config.format == FORMAT:
        [own] = plain.pop("members")
        plain = {key: value for key, value in plain.items() if key not in ("tta", "average")} | own
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def _lift(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    """Convert a config of format 2 to the keys of format 3."""
    own = {key: plain[key] for key in MemberRecord.model_fields if key in plain}
    added = {"members": [own], "tta": "none", "average": "probs"}
    if both := added.keys() & plain.keys():
        raise BundleError(f"{path}: {min(both)}: no bundle of format {FORMAT} has it")
    return {key: value for key, value in plain.items() if key not in own or key == "name"} | added
