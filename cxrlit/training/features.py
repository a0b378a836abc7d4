"""Computes what the frozen part of a network makes of the images, once for all epochs and phases that want it.

What comes before the first trained layer is constant in a phase: frozen weights, BatchNorms that keep their
statistics. Its output is kept in files whose folder is named after all that determines it: the weights of that part,
the images, the augmentation, size, precision and batch size. Another learning rate finds it there.
"""

import hashlib
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from cxrlit.config import PhaseConfig, Precision, TrainConfig
from cxrlit.console import say, show_path
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.decode import PREPROCESSING_VERSION
from cxrlit.data.features import Features, pack
from cxrlit.errors import ConfigError
from cxrlit.files import hash_value, hold_lock, replace_file, sweep_staged
from cxrlit.model.densenet import CXRNet, count_frozen_units, list_trainable
from cxrlit.training.folder import read_versions
from cxrlit.training.machine import choose_device


def open_features(
    network: CXRNet,
    phase: PhaseConfig,
    config: TrainConfig,
    precision: Precision,
    datamodule: CXRDataModule,
    n_views: int,
) -> Features:
    """The features of a phase, computed where they are not there yet.

    Args:
        network: As the phase starts from it.
        phase: Its settings.
        config: The resolved config of the chain.
        precision: bf16 or fp32.
        datamodule: The images of the phase.
        n_views: Augmented views of each training image.

    Raises:
        ConfigError: The disk has no room for them.
    """
    trained = set(list_trainable(network, phase.n_unfreeze, phase.freeze_bn))
    n_units = count_frozen_units(network.units, trained)
    key = hash_value(
        {
            "version": PREPROCESSING_VERSION,
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
    folder = Path(config.cache_dir) / "features" / key
    folder.mkdir(parents=True, exist_ok=True)
    loaders = {f"train-{view}": partial(datamodule.view_dataloader, view) for view in range(n_views)}
    loaders["val"] = partial(datamodule.plain_dataloader, "val")
    with hold_lock(folder, f"waiting for another process that computes {show_path(folder)}"):
        sweep_staged(folder)
        arrays, n_missing = {}, 0
        for name, make_loader in loaders.items():
            path, n_rows = folder / f"{name}.npy", len(datamodule.parts[name.partition("-")[0]])
            found = _open(path, n_rows)
            if found is None:
                n_missing += 1
                _compute(network, n_units, make_loader(), n_rows, path, config.trainer.accelerator, precision)
                found = _open(path, n_rows)
            assert found is not None
            arrays[name] = found
    n_bytes = sum(array.nbytes for array in arrays.values())
    views = "1 view" if n_views == 1 else f"{n_views} views"
    say(
        f"Features of the first {n_units} of {len(network.units)} units: {views} of each training image, "
        f"{n_bytes / 2**20:,.0f} MiB in {show_path(folder)}, {n_missing} of {len(loaders)} files computed"
    )
    return Features(n_units, [arrays[f"train-{view}"] for view in range(n_views)], arrays["val"])


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
    n_units: int,
    loader: Iterable[Any],
    n_rows: int,
    path: Path,
    accelerator: str,
    precision: Precision,
) -> None:
    device = choose_device(accelerator)
    home = network.head.weight.device
    network.to(device).eval()
    array: NDArray[Any] | None = None
    done = 0
    with replace_file(path) as staged, torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        for batch in track(loader, f"Computing features ({path.stem})"):
            made = network.begin(batch["image"].to(device), n_units)
            if n_units == len(network.units):
                made = network.finish(made, n_units).mean(dim=(2, 3))
            packed = pack(made)
            if array is None:
                array = _create(staged, path, (n_rows, *packed.shape[1:]), packed.dtype)
            array[done : done + len(packed)] = packed
            done += len(packed)
        assert array is not None
        assert done == n_rows
        array.flush()  # type: ignore[attr-defined]  # it is a memmap
    network.to(home)


def _hash_weights(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _create(staged: Path, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A file of that shape, to be filled. The disk is asked first: a mapped file that does not fit is a crash."""
    wanted, free = int(np.prod(shape)) * dtype.itemsize, shutil.disk_usage(path.parent).free
    if wanted > free:
        raise ConfigError(
            f"{path}: features of {shape[0]:,} images take {wanted / 2**30:,.1f} GiB and {free / 2**30:,.1f} are free: "
            "lower feature_views, set another cache_dir, or cache_features=false"
        )
    return np.lib.format.open_memmap(staged, mode="w+", dtype=dtype, shape=shape)
