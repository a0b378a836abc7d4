"""A bundle on disk: its files, and the checks before it is used.

A bundle is data from somebody else. Its files are read once, completely, with a size limit, from the folder itself and
not through links; their hashes must match ``SHA256SUMS``; the config is JSON with known keys and types. The sums do not
prove who made them: take them from a source that you trust. Nothing here needs torch.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrlit.config import MAX_MEMBERS
from cxrlit.core.errors import BundleError, DataError, format_count
from cxrlit.core.files import NotAFileError, open_regular
from cxrlit.handoff.bundle_config import BundleConfig, parse_config
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.read_operating_point import parse_operating_point

CONFIG, WEIGHTS, GRAPH, CARD, SUMS = "config.json", "model.safetensors", "model.onnx", "README.md", "SHA256SUMS"
TABLES = ("eval_summary.csv", "eval_per_label_auroc.csv", "confusion_template.csv")
MIB = 2**20
SIZES = {CONFIG: MIB, WEIGHTS: 64 * MIB, GRAPH: 64 * MIB, CARD: MIB, **dict.fromkeys(TABLES, 16 * MIB)}
"""Files of a bundle with one network, besides its sums, and the most bytes of each (7 million weights). For several
networks, ``name_member_files`` names the two files of each; ``name_int8_files`` names those of int8."""

SUM_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes:
        folder: Its folder.
        config: Its config.
        point: Its calibration and thresholds, in the order of its labels.
        contents: The bytes of its files, by name.
        digest: SHA-256 of its sums, which identifies the whole bundle.
    """

    folder: Path
    config: BundleConfig
    point: OperatingPoint
    contents: Mapping[str, bytes]
    digest: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the outputs, in order."""
        return tuple(self.config.labels)

    @property
    def thresholds(self) -> dict[str, float | None]:
        """Thresholds of the calibrated probs by label; None for a label without one."""
        return self.name_values(self.point.thresholds.values)

    def name_values(self, values: NDArray[np.float64]) -> dict[str, float | None]:
        """Name (L,) values by their labels; None replaces NaN."""
        return {
            label: None if np.isnan(value) else value for label, value in zip(self.labels, values.tolist(), strict=True)
        }

    @property
    def member_files(self) -> list[tuple[str, str]]:
        """Names of the weights and the graph of each network."""
        return name_member_files(len(self.config.members))

    @property
    def int8_files(self) -> list[str]:
        """Names of the int8 graphs; empty if the bundle has no int8."""
        return [name for name in name_int8_files(len(self.config.members)) if name in self.contents]


def name_member_files(n_members: int) -> list[tuple[str, str]]:
    """Name the weights and the graph of each of ``n_members`` networks.

    >>> name_member_files(2)
    [('model.safetensors', 'model.onnx'), ('model-2.safetensors', 'model-2.onnx')]
    """
    further = [(f"model-{number}.safetensors", f"model-{number}.onnx") for number in range(2, n_members + 1)]
    return [(WEIGHTS, GRAPH), *further]


def name_int8_files(n_members: int) -> list[str]:
    """Name the int8 graph of each of ``n_members`` networks.

    >>> name_int8_files(2)
    ['model.int8.onnx', 'model-2.int8.onnx']
    """
    return [graph.replace(".onnx", ".int8.onnx") for _, graph in name_member_files(n_members)]


def list_sizes(n_members: int, has_int8: bool = False) -> dict[str, int]:
    """List the files of a bundle with ``n_members`` networks, and the most bytes of each."""
    members = {name: SIZES[WEIGHTS] for names in name_member_files(n_members) for name in names}
    return SIZES | members | (dict.fromkeys(name_int8_files(n_members), SIZES[GRAPH]) if has_int8 else {})


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: A file is missing, changed, too large, or a link; the config is invalid or has another version; or
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
    has_int8 = _has_int8(sums)
    sizes = list_sizes(_count_members(sums), has_int8)
    contents = {name: _read_file(folder / name, limit) for name, limit in sizes.items()}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise BundleError(f"{folder / name}: it is not the file of {SUMS}: it was changed; get the bundle anew")
    config = parse_config(contents[CONFIG], folder / CONFIG)
    named, there = len(config.members), _count_members(sums)
    if named != there:
        raise BundleError(
            f"{folder / CONFIG}: it names {format_count(named, 'member')}, and the bundle has the weights of {there}: "
            "get the bundle anew"
        )
    if has_int8 != (config.int8 is not None):
        what = "says nothing of the int8 that the bundle has" if has_int8 else "names an int8 that the bundle has not"
        raise BundleError(f"{folder / CONFIG}: it {what}: get the bundle anew")
    try:
        point = parse_operating_point(config.operating_point, folder / CONFIG).only(config.labels)
    except DataError as error:
        raise BundleError(str(error)) from None
    digest = hashlib.sha256("".join(sums[name] for name in sorted(sums)).encode()).hexdigest()
    return Bundle(folder, config, point, contents, digest)


def format_sums(contents: Mapping[str, bytes]) -> str:
    """Write ``SHA256SUMS`` in the format of ``sha256sum -c``."""
    return "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents))


def _read_sums(folder: Path) -> dict[str, str]:
    """Read the digest of each file, by name."""
    path = folder / SUMS
    found = [SUM_LINE.fullmatch(line) for line in _read_file(path, MIB).decode("latin-1").splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    n_members = _count_members(sums)
    wanted = list_sizes(n_members, _has_int8(sums)) if n_members <= MAX_MEMBERS else {}
    if not all(found) or len(sums) < len(found) or set(sums) != set(wanted):
        raise BundleError(f"{path}: these are not the sums of {', '.join(SIZES)}: this is no bundle, or a changed one")
    return sums


def _count_members(sums: Mapping[str, str]) -> int:
    return sum(name.endswith(".safetensors") for name in sums)


def _has_int8(sums: Mapping[str, str]) -> bool:
    return any(name.endswith(".int8.onnx") for name in sums)


def _read_file(path: Path, limit: int) -> bytes:
    """Read a regular file in the folder itself, not through a link."""
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
