"""A bundle on disk: its files, its config, and all that is checked before anything of it is used.

A bundle is data from somebody else. Its files are read once, whole and bounded, from the folder itself and through no
link; their hashes are those of ``SHA256SUMS``; the config is JSON of known keys and types. What the sums cannot say is
who made them: take them from a source that you trust. Nothing here needs torch.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrlit.config import BatchNormMode
from cxrlit.core.errors import BundleError, DataError
from cxrlit.core.files import NotAFileError, open_regular
from cxrlit.core.labels import NAME_LENGTH, NAME_PATTERN
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION, Resize
from cxrlit.handoff.ood_check import Reference
from cxrlit.metrics.operating_point import KeyTwiceError, OperatingPoint, parse_operating_point, refuse_twice

FORMAT = 2
CONFIG, WEIGHTS, GRAPH, CARD, SUMS = "config.json", "model.safetensors", "model.onnx", "README.md", "SHA256SUMS"
TABLES = ("eval_summary.csv", "eval_per_label_auroc.csv", "confusion_template.csv")
MIB = 2**20
SIZES = {CONFIG: MIB, WEIGHTS: 64 * MIB, GRAPH: 64 * MIB, CARD: MIB, **dict.fromkeys(TABLES, 16 * MIB)}
"""The files that a bundle has beside its sums, and the most bytes of each. The network has 7 million weights."""

SUM_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")

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
    normalize: Literal["imagenet", "unit"]


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


class BundleConfig(_Plain):
    """What ``config.json`` holds.

    Attributes:
        format: Of bundles.
        name: Phase, id and file of the checkpoint.
        architecture: Of the network.
        labels: Of its outputs, in order.
        preprocessing: From a file to the network's input.
        precision: In which the network was evaluated, and its operating point was fitted.
        batch_size: With which it was evaluated.
        operating_point: Calibration and thresholds (``cxrlit.metrics.operating_point``).
        input_check: What a radiograph like those of the training looks like.
        phases: The training, first to last.
        epoch: Of the last phase, from 1; 0: the weights that it started from.
        monitor: Name of the validation metric that chose the epoch.
        score: Its value after it.
        data: The data of the training.
        versions: Of what made the bundle, by package.
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
    phases: Annotated[list[PhaseRecord], Field(min_length=1)]
    epoch: Annotated[int, Field(ge=0)]
    monitor: str
    score: float
    data: DataRecord
    versions: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes:
        folder: Where it is.
        config: What it says of itself.
        point: Its calibration and thresholds, of its labels in their order.
        contents: The bytes of its files, by name.
        digest: SHA-256 of its sums, and so of all of it.
    """

    folder: Path
    config: BundleConfig
    point: OperatingPoint
    contents: Mapping[str, bytes]
    digest: str

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config.labels)


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: A file is missing, changed, too large, or a link; the config is of another version or none; its
            labels, thresholds and sizes contradict each other.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        what = "a file, not a bundle" if folder.exists() else "there is no such bundle"
        raise BundleError(f"{folder}: {what}: name the folder that cxrlit export wrote")
    if not (folder / SUMS).exists() and (folder / "phase.json").exists():
        raise BundleError(f"{folder}: a phase folder, not a bundle: cxrlit export {folder} --out DIR makes one")
    if not (folder / SUMS).exists() and not (folder / CONFIG).exists():
        raise BundleError(f"{folder}: no bundle: it has no {SUMS}; name the folder that cxrlit export wrote")
    sums = _read_sums(folder)
    contents = {name: _read_file(folder / name, limit) for name, limit in SIZES.items()}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise BundleError(f"{folder / name}: it is not the file of {SUMS}: it was changed; get the bundle anew")
    config = parse_config(contents[CONFIG], folder / CONFIG)
    try:
        point = parse_operating_point(config.operating_point, folder / CONFIG).only(config.labels)
    except DataError as error:
        raise BundleError(str(error)) from None
    digest = hashlib.sha256("".join(sums[name] for name in sorted(sums)).encode()).hexdigest()
    return Bundle(folder, config, point, contents, digest)


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
        raise BundleError(f"{path}: not JSON: {str(error)[:160]}") from None
    version = plain.get("format") if isinstance(plain, dict) else None
    if version != FORMAT or not isinstance(version, int):
        raise BundleError(f"{path}: a bundle of format {str(version)[:40]}; this version of cxrlit reads {FORMAT}")
    try:
        config = BundleConfig.model_validate(plain)
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


def format_sums(contents: Mapping[str, bytes]) -> str:
    """``SHA256SUMS`` as ``sha256sum -c`` reads it."""
    return "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents))


def _read_sums(folder: Path) -> dict[str, str]:
    """The digest of each file, by name."""
    path = folder / SUMS
    found = [SUM_LINE.fullmatch(line) for line in _read_file(path, MIB).decode("latin-1").splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    if not all(found) or len(sums) < len(found) or set(sums) != set(SIZES):
        raise BundleError(f"{path}: these are not the sums of {', '.join(SIZES)}: this is no bundle, or a changed one")
    return sums


def _read_file(path: Path, limit: int) -> bytes:
    """The bytes of a regular file that lies in the folder itself."""
    try:
        with open_regular(path, os.O_NOFOLLOW) as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise BundleError(f"{path}: larger than {limit // MIB} MiB: no bundle has such a file")
            return file.read(limit)
    except NotAFileError:
        raise BundleError(f"{path}: not a file") from None
    except OSError as error:
        if path.is_symlink():
            raise BundleError(f"{path}: a link, and not a file: copy the bundle with cp -rL") from None
        raise BundleError(f"{path}: {error.strerror}: the bundle is not whole") from None
