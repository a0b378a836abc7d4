"""``config.json`` of a bundle: what it holds, read and checked, and written.

Format 2 is of one network on each image, and says at the top what a member says of itself. Format 3 is of the mean over
several networks or over several views of an image. What is read becomes the same for both.
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
    """From a file to what the network is given: (1, S, S) uint8.

    Attributes:
        version: Of ``cxrlit.data.image_io.decode``.
        img_size: S, pixels.
        resize: How an image that is not square becomes square.
        normalize: Mean and standard deviation that the network applies itself.
    """

    version: int
    img_size: Annotated[int, Field(ge=32, le=2048)]
    resize: Resize
    normalize: Normalization


class PhaseSettings(_Plain):
    """What a phase did."""

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
        settings: None where it was of another chain, from which ``init_from`` went on.
    """

    phase: ShortText
    id: ShortText
    settings: PhaseSettings | None


class MemberRecord(_Plain):
    """A network and its training.

    Attributes:
        name: Phase, id and file of the checkpoint.
        phases: The training, first to last.
        epoch: Of the last phase, from 1; 0: the weights that it started from.
        monitor: Name of the validation metric that chose the epoch.
        score: Its value after it.
    """

    name: ShortText
    phases: Annotated[list[PhaseRecord], Field(min_length=1)]
    epoch: Annotated[int, Field(ge=0)]
    monitor: str
    score: float


class PartCounts(_Plain):
    """What a part of the data held."""

    images: Annotated[int, Field(ge=0)]
    patients: Annotated[int, Field(ge=0)]


class DataRecord(_Plain):
    """The data of the training.

    Attributes:
        name: Of the data set.
        fingerprint: Hash of every image's name, file, patient and targets.
        split_name: How they were divided.
        split_hash: Of that split.
        parts: What each part held, by part.
    """

    name: ShortText
    fingerprint: ShortText
    split_name: ShortText
    split_hash: ShortText
    parts: dict[str, PartCounts]


class StartRecord(_Plain):
    """What the training started from.

    Attributes:
        weights: Name or file; of several members, all that there are.
        saw: Data sets that they were trained on, by their names in ``data=``; None: not known.
        caveats: What must stand beside every number of the bundle.
    """

    weights: ShortText
    saw: list[ShortText] | None
    caveats: list[Annotated[str, Field(min_length=1, max_length=1000)]]


class BundleConfig(_Plain):
    """What ``config.json`` holds.

    Attributes:
        format: Of bundles.
        name: Phase, id and file of the checkpoint; of several ``ensemble-<id>``.
        architecture: Of the network.
        labels: Of its outputs, in order.
        preprocessing: From a file to the network's input.
        precision: In which the networks were evaluated, and the operating point was fitted.
        batch_size: With which it was evaluated.
        operating_point: Calibration and thresholds (``cxrlit.metrics.operating_point``).
        input_check: What a radiograph like those of the training looks like.
        members: The networks, each of the same labels, input size and normalisation.
        tta: Views of an image that each of them sees.
        average: What the mean over networks and views is of.
        data: The data of the training.
        versions: Of what made the bundle, by package.
        start: What the training started from; None where an older version exported the bundle.
        int8: What int8 changes; None: the bundle has no networks in int8.
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
        """Side at which an image is opened, from which the views are cut, pixels."""
        return choose_side(self.preprocessing.img_size, self.tta)

    @property
    def is_mean(self) -> bool:
        """Whether a prob is the mean over several networks or views."""
        return len(self.members) > 1 or self.tta != "none"

    @property
    def predicted(self) -> str:
        """How probs come about, in words."""
        return describe_mean(len(self.members), self.tta, self.average)

    @property
    def title(self) -> str:
        """The name, and how probs come about where that is not by one network on each image."""
        return f"{self.name} ({self.predicted})" if self.is_mean else self.name


def parse_config(content: bytes, path: Path) -> BundleConfig:
    """The config of a bundle.

    Args:
        content: The bytes of ``config.json``.
        path: Where they are from, for messages.

    Raises:
        BundleError: It is not JSON, of another version, or holds what no config does.
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
    """The bytes of ``config.json``."""
    plain = config.model_dump(exclude={"int8"} if config.int8 is None else None)
    if config.format == FORMAT:
        [own] = plain.pop("members")
        plain = {key: value for key, value in plain.items() if key not in ("tta", "average")} | own
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def _lift(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    """A config of format 2 with the keys of format 3."""
    own = {key: plain[key] for key in MemberRecord.model_fields if key in plain}
    added = {"members": [own], "tta": "none", "average": "probs"}
    if both := added.keys() & plain.keys():
        raise BundleError(f"{path}: {min(both)}: no bundle of format {FORMAT} has it")
    return {key: value for key, value in plain.items() if key not in own or key == "name"} | added
