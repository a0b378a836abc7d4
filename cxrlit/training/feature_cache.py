"""Cache the output of the frozen part of a network, computed once for all epochs and phases that need it.

The layers before the first trained one are constant in a phase: their weights and BatchNorm statistics are frozen.
Their output is kept in a folder named after all that determines it: weights, images, augmentation, size, precision and
batch size. A run with another learning rate reuses it, and so does a later phase that needs the output of fewer units.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrlit.config import Precision, TrainConfig
from cxrlit.config.origin import find_origin
from cxrlit.core.console import format_path, say, track
from cxrlit.core.errors import ConfigError
from cxrlit.core.files import hash_value, hold_lock, replace_file, sweep_staged
from cxrlit.core.ranks import rank_0_first
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION
from cxrlit.data.torch_datasets import Features, pack
from cxrlit.model.densenet import CXRNet
from cxrlit.training.hardware import computing_on
from cxrlit.training.phase_folder import read_versions
from cxrlit.training.plan import TRAINING_VERSION, PlannedPhase


class Pass(NamedTuple):
    """One pass of images through the network.

    Attributes:
        make_loader: Makes the loader of the images.
        n_rows: Number of images.
        paths: The file for the output of the first units, by their number.
    """

    make_loader: Callable[[], Iterable[Any]]
    n_rows: int
    paths: Mapping[int, Path]


@rank_0_first
def open_features(
    network: CXRNet,
    phase: PlannedPhase,
    later: Sequence[PlannedPhase],
    config: TrainConfig,
    precision: Precision,
    datamodule: CXRDataModule,
) -> Features:
    """Open the cached features of a phase, and compute missing ones.

    Args:
        network: The starting network of the phase.
        phase: The planned phase.
        later: Later phases; features they need are cached in the same pass.
        config: The resolved config of the chain.
        precision: bf16, fp16 or fp32.
        datamodule: The images of the phase.

    Raises:
        ConfigError: The disk has no space for them.
    """
    n_units, along = phase.n_cached_units, find_along(phase, later)
    folders = {units: _name_folder(network, units, config, precision, datamodule) for units in {n_units, *along}}
    loaders = {f"train-{view}": partial(datamodule.view_dataloader, view) for view in range(phase.n_views)}
    loaders["val"] = partial(datamodule.plain_dataloader, "val")
    n_rows = {name: len(datamodule.parts[name.partition("-")[0]]) for name in loaders}

    def list_passes() -> list[Pass]:
        passes = []
        for number, (name, make_loader) in enumerate(loaders.items()):
            wanted = [n_units, *(units for units, n_views in along.items() if name == "val" or number < n_views)]
            paths = {units: folders[units] / f"{name}.npy" for units in wanted}
            missing = {units: path for units, path in paths.items() if _open(path, n_rows[name]) is None}
            if n_units in missing:
                passes.append(Pass(make_loader, n_rows[name], missing))
        return passes

    n_missing = 0
    if list_passes():  # complete files need no lock
        with ExitStack() as locks:
            for folder in sorted(folders.values()):  # one order for all processes: no deadlock
                folder.mkdir(parents=True, exist_ok=True)
                waiting = f"waiting for another process that computes {format_path(folder)}"
                locks.enter_context(hold_lock(folder, waiting))
                sweep_staged(folder)
            passes = list_passes()
            n_missing = len(passes)
            if passes:
                _compute(network, passes, datamodule.img_size, config.trainer.accelerator, precision)
    arrays = {}
    for name in loaders:
        found = _open(folders[n_units] / f"{name}.npy", n_rows[name])
        assert found is not None
        arrays[name] = found
    n_bytes = sum(array.nbytes for array in arrays.values())
    views = "1 view" if phase.n_views == 1 else f"{phase.n_views} views"
    say(
        f"Features of the first {n_units} of {len(network.units)} units: {views} of each training image, "
        f"{n_bytes / 2**20:,.0f} MiB in {format_path(folders[n_units])}, {n_missing} of {len(loaders)} files computed"
    )
    return Features(n_units, [arrays[f"train-{view}"] for view in range(phase.n_views)], arrays["val"])


def find_along(phase: PlannedPhase, later: Sequence[PlannedPhase]) -> dict[int, int]:
    """Find units and views of later phases whose features can be cached in the same pass.

    These phases see the same images, and no phase before them trains those units or adapts their BatchNorms.
    """
    along: dict[int, int] = {}
    untouched = phase.n_cached_units
    for other in later:
        if other.freezing.adapts:
            break
        n_units = other.n_cached_units
        same = (phase.config.img_size, phase.config.batch_size) == (other.config.img_size, other.config.batch_size)
        if same and 0 < n_units < untouched:
            along[n_units] = other.n_views
        untouched = min(untouched, n_units)
    return along


def _name_folder(
    network: CXRNet, n_units: int, config: TrainConfig, precision: Precision, datamodule: CXRDataModule
) -> Path:
    data, transforms = datamodule.data, list(config.augment.transforms.values())
    key = hash_value(
        {
            "version": [PREPROCESSING_VERSION, TRAINING_VERSION],
            "units": [n_units, _hash_weights(torch.nn.Sequential(*network.units[:n_units]))],
            "normalize": config.model.normalize,
            "images": [datamodule.store.files_sha256, datamodule.img_size, config.data.resize],
            "parts": {part: data.name_rows(datamodule.parts[part])["image"].tolist() for part in ("train", "val")},
            "augment": [transforms, find_origin(transforms), config.seed],
            "batch_size": datamodule.batch_size,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "versions": read_versions(),
        }
    )
    return Path(config.cache_dir) / "features" / key


def _open(path: Path, n_rows: int) -> NDArray[Any] | None:
    """Memory-map a file; None if it is missing or incomplete."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if len(array) == n_rows and array.dtype in (np.float32, np.int16) else None


@torch.inference_mode()
def _compute(network: CXRNet, passes: Sequence[Pass], img_size: int, accelerator: str, precision: Precision) -> None:
    network.eval()
    with computing_on(network, accelerator, precision) as device:
        _check_room(network, passes, torch.zeros(1, 1, img_size, img_size, dtype=torch.uint8, device=device))
        for one in passes:
            _write(network, one, device)


def _write(network: CXRNet, one: Pass, device: str) -> None:
    """Compute a pass and write its files."""
    arrays: list[np.memmap[Any, Any]] = []
    stops, done = sorted(one.paths), 0
    with ExitStack() as files:
        staged = [files.enter_context(replace_file(one.paths[stop])) for stop in stops]
        for batch in track(one.make_loader(), f"Computing features ({one.paths[stops[-1]].stem})"):
            made = _make(network, batch["image"].to(device), stops)
            if not arrays:
                arrays = [_create(path, one.n_rows, rows) for path, rows in zip(staged, made, strict=True)]
            for array, rows in zip(arrays, made, strict=True):
                array[done : done + len(rows)] = rows
            done += len(made[0])
        assert done == one.n_rows
        for array in arrays:
            array.flush()


def _make(network: CXRNet, images: Tensor, stops: Sequence[int]) -> list[NDArray[Any]]:
    """Compute the features of images at each stop."""
    made = network.forward_frozen(images, stops)
    if stops[-1] == len(network.units):
        made[-1] = network.forward_trainable(made[-1], stops[-1]).mean(dim=(2, 3))
    return [pack(maps) for maps in made]


def _hash_weights(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_room(network: CXRNet, passes: Sequence[Pass], image: Tensor) -> None:
    """Check that the disk has space for all features, before computing any."""
    stops = sorted({stop for one in passes for stop in one.paths})
    row_bytes = {stop: made.nbytes for stop, made in zip(stops, _make(network, image, stops), strict=True)}
    wanted = sum(one.n_rows * row_bytes[stop] for one in passes for stop in one.paths)
    place = next(iter(passes[0].paths.values())).parents[1]
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise ConfigError(
            f"{format_path(place)}: the features that are missing take {wanted / 2**20:,.0f} MiB and "
            f"{free / 2**20:,.0f} are free: set another cache_dir, lower feature_views, or cache_features=false"
        )


def _create(path: Path, n_rows: int, like: NDArray[Any]) -> "np.memmap[Any, Any]":
    """Create a file for the rows and allocate its blocks, since writing a mapped file to a full disk crashes."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=like.dtype, shape=(n_rows, *like.shape[1:]))
    if sys.platform == "linux":
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                error.filename = str(path)
                raise
    return array
