"""Computes what the frozen part of a network makes of the images, once for all epochs and phases that want it.

What comes before the first trained layer is constant in a phase: frozen weights, BatchNorms that keep their
statistics. Its output is kept in files whose folder is named after all that determines it: the weights of that part,
the images, the augmentation, size, precision and batch size. Another learning rate finds it there, and so does a later
phase whose own input lies on the way.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from cxrlit.config import Precision, TrainConfig
from cxrlit.console import say, show_path
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.decode import PREPROCESSING_VERSION
from cxrlit.data.features import Features, pack
from cxrlit.errors import ConfigError
from cxrlit.files import hash_value, hold_lock, replace_file, sweep_staged
from cxrlit.model.densenet import CXRNet, count_frozen_units, list_trainable
from cxrlit.training.folder import read_versions
from cxrlit.training.machine import choose_device
from cxrlit.training.plan import TRAINING_VERSION, PlannedPhase


def open_features(
    network: CXRNet,
    phase: PlannedPhase,
    later: Sequence[PlannedPhase],
    config: TrainConfig,
    precision: Precision,
    datamodule: CXRDataModule,
) -> Features:
    """The features of a phase, computed where they are not there yet.

    Args:
        network: As the phase starts from it.
        phase: What they are for.
        later: The phases after it that are to be trained: what lies on the way of these features is kept for them.
        config: The resolved config of the chain.
        precision: bf16 or fp32.
        datamodule: The images of the phase.

    Raises:
        ConfigError: The disk has no room for them.
    """
    n_units, along = _count_units(network, phase), _find_along(network, phase, later)
    folders = {units: _name_folder(network, units, config, precision, datamodule) for units in {n_units, *along}}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    loaders = {f"train-{view}": partial(datamodule.view_dataloader, view) for view in range(phase.n_views)}
    loaders["val"] = partial(datamodule.plain_dataloader, "val")
    arrays, n_missing = {}, 0
    with ExitStack() as locks:
        for folder in sorted(folders.values()):  # in one order: no two processes wait for each other
            waiting = f"waiting for another process that computes {show_path(folder)}"
            locks.enter_context(hold_lock(folder, waiting))
            sweep_staged(folder)
        for number, (name, make_loader) in enumerate(loaders.items()):
            path, n_rows = folders[n_units] / f"{name}.npy", len(datamodule.parts[name.partition("-")[0]])
            found = _open(path, n_rows)
            if found is None:
                n_missing += 1
                paths = {n_units: path}
                for units, n_views in along.items():
                    other = folders[units] / path.name
                    if (name == "val" or number < n_views) and _open(other, n_rows) is None:
                        paths[units] = other
                _compute(network, make_loader(), n_rows, paths, config.trainer.accelerator, precision)
                found = _open(path, n_rows)
            assert found is not None
            arrays[name] = found
    n_bytes = sum(array.nbytes for array in arrays.values())
    views = "1 view" if phase.n_views == 1 else f"{phase.n_views} views"
    say(
        f"Features of the first {n_units} of {len(network.units)} units: {views} of each training image, "
        f"{n_bytes / 2**20:,.0f} MiB in {show_path(folders[n_units])}, {n_missing} of {len(loaders)} files computed"
    )
    return Features(n_units, [arrays[f"train-{view}"] for view in range(phase.n_views)], arrays["val"])


def _count_units(network: CXRNet, phase: PlannedPhase) -> int:
    """The first units, those without anything that a phase trains."""
    trained = list_trainable(network, phase.config.n_unfreeze, phase.config.freeze_bn)
    return count_frozen_units(network.units, set(trained))


def _find_along(network: CXRNet, phase: PlannedPhase, later: Sequence[PlannedPhase]) -> dict[int, int]:
    """Units and views of later phases whose features come about on the way: they see the same images, and no phase
    before them trains what they take as it is.
    """
    along: dict[int, int] = {}
    untouched = _count_units(network, phase)
    for other in later:
        n_units = _count_units(network, other)
        same = (phase.config.img_size, phase.config.batch_size) == (other.config.img_size, other.config.batch_size)
        if other.n_views and same and n_units < untouched:
            along[n_units] = other.n_views
        untouched = min(untouched, n_units)
    return along


def _name_folder(
    network: CXRNet, n_units: int, config: TrainConfig, precision: Precision, datamodule: CXRDataModule
) -> Path:
    key = hash_value(
        {
            "version": [PREPROCESSING_VERSION, TRAINING_VERSION],
            "units": [n_units, _hash_weights(torch.nn.Sequential(*network.units[:n_units]))],
            "normalize": config.model.normalize,
            "images": [datamodule.store.files_sha256, datamodule.img_size, config.data.resize],
            "parts": {part: datamodule.parts[part]["image"].tolist() for part in ("train", "val")},
            "augment": [config.augment.model_dump(), config.seed],
            "batch_size": datamodule.batch_size,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "versions": read_versions(),
        }
    )
    return Path(config.cache_dir) / "features" / key


def _open(path: Path, n_rows: int) -> NDArray[Any] | None:
    """A file, mapped; None where there is none that is whole."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if len(array) == n_rows and array.dtype in (np.float32, np.int16) else None


@torch.inference_mode()
def _compute(
    network: CXRNet,
    loader: Iterable[Any],
    n_rows: int,
    paths: Mapping[int, Path],
    accelerator: str,
    precision: Precision,
) -> None:
    """Write what numbers of units make of the images of a loader, each into its file, in one pass."""
    device = choose_device(accelerator)
    home = network.head.weight.device
    network.to(device).eval()
    stops = sorted(paths)
    arrays: list[NDArray[Any]] = []
    done = 0
    with ExitStack() as files, torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        staged = [files.enter_context(replace_file(paths[stop])) for stop in stops]
        for batch in track(loader, f"Computing features ({paths[stops[-1]].stem})"):
            made = network.begin_with_stops(batch["image"].to(device), stops)
            if stops[-1] == len(network.units):
                made[-1] = network.finish(made[-1], stops[-1]).mean(dim=(2, 3))
            packed = [pack(maps) for maps in made]
            if not arrays:
                _check_room(paths[stops[-1]], n_rows, sum(rows[0].nbytes for rows in packed))
                arrays = [_create(file, n_rows, rows) for file, rows in zip(staged, packed, strict=True)]
            for array, rows in zip(arrays, packed, strict=True):
                array[done : done + len(rows)] = rows
            done += len(packed[0])
        assert done == n_rows
        for array in arrays:
            array.flush()  # type: ignore[attr-defined]  # it is a memmap
    network.to(home)


def _hash_weights(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_room(path: Path, n_rows: int, row_bytes: int) -> None:
    """The disk is asked first: a mapped file that does not fit is a crash."""
    wanted, free = n_rows * row_bytes, shutil.disk_usage(path.parent).free
    if wanted > free:
        raise ConfigError(
            f"{path}: features of {n_rows:,} images take {wanted / 2**30:,.1f} GiB and {free / 2**30:,.1f} are free: "
            "lower feature_views, set another cache_dir, or cache_features=false"
        )


def _create(path: Path, n_rows: int, like: NDArray[Any]) -> NDArray[Any]:
    """A file for so many rows, to be filled."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=like.dtype, shape=(n_rows, *like.shape[1:]))
