"""The store: the images of an index at one size, decoded and resized once, memory-mapped afterwards.

A folder ``<cache_dir>/store/<source>-<size>px-<key>/`` with ``images.npy``, uint8 (N, S, S); ``images.csv``, the
name of each of its N images; ``dropped.csv``, the images that could not be decoded, with the reason; and
``manifest.json``. The key is a hash of all that determines the pixels, so that a store is never misread as
another: other data, another size or another version has another folder.
"""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from cxrlit.errors import DataError
from cxrlit.files import hash_value, replace_folder, write_csv, write_json

PREPROCESSING_VERSION = 1
"""Part of every store's key and of every phase's id. Rises when the same file would give other pixels."""

MAX_SIDE = 8192
"""Pixels. A larger image is refused unread, and so is a thin one, which padding would make a square of that side."""

Resize = Literal["pad", "crop", "stretch"]


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        images: (N, S, S) uint8, memory-mapped.
        rows: Row of each image in ``images``, by image name.
        dropped: Images of the index that are not in it: ``image``, ``path``, ``reason``.
    """

    images: NDArray[np.uint8]
    rows: pd.Series
    dropped: pd.DataFrame


def open_store(
    index: pd.DataFrame, source: str, size: int, resize: Resize, cache_dir: Path, workers: int | None = None
) -> Store:
    """Open the store of an index at a size; build it first where it is not there.

    Args:
        index: The index.
        source: The data set's name, for the folder and the messages.
        size: Side of the square images, pixels.
        resize: How an image that is not square becomes square.
        cache_dir: Folder of all stores.
        workers: Threads that decode; None: one for each core.

    Raises:
        DataError: Not a single image could be decoded, the disk has not the space, or the store is damaged.
    """
    key = hash_value([PREPROCESSING_VERSION, size, resize, index["image"].tolist(), index["n_bytes"].tolist()])
    folder = cache_dir / "store" / f"{source}-{size}px-{key}"
    if not folder.is_dir():
        _build_store(folder, index, source, size, resize, workers or os.cpu_count() or 1)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        names = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)["image"]
        dropped = pd.read_csv(folder / "dropped.csv", dtype=str, keep_default_na=False)[["image", "path", "reason"]]
        counts = (manifest["images"], manifest["dropped"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: it is damaged ({error}): remove the folder, it is built anew") from None
    if images.shape != (len(names), size, size) or images.dtype != np.uint8 or counts != (len(names), len(dropped)):
        raise DataError(f"{folder}: its files do not belong together: remove the folder, it is built anew")
    usable = index.loc[~index["image"].isin(dropped["image"]), "image"]
    if names.tolist() != usable.tolist():
        raise DataError(f"{folder}: its images are not those of the index: remove the folder, it is built anew")
    return Store(images=images, rows=pd.Series(np.arange(len(names)), index=names), dropped=dropped)


def decode_image(path: Path, size: int, resize: Resize) -> NDArray[np.uint8]:
    """Read a PNG whole, verify it, and make it a square of gray values.

    Colour becomes luminance, transparency is ignored, 16 bits become 8 by their full range.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: It is no image, damaged, too large, or of a kind that is not supported; says which.
        DataError: The file is there and cannot be read, which may pass: nothing is concluded from it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; mend that and start again") from None
    if not content:
        raise ValueError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.verify()  # checksums, without decoding
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            pixels = _to_gray(image)
    except UnidentifiedImageError:
        raise ValueError("not a PNG image") from None
    except Image.DecompressionBombError:
        raise ValueError("too many pixels") from None
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # a damaged chunk can raise nearly anything in Pillow
        raise ValueError(f"damaged: {error}") from None
    return resize_square(pixels, size, resize)


def _to_gray(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode.startswith("I"):  # 16 bits, in 16 or in 32
        return np.asarray(image).astype(np.uint16)
    if image.mode not in {"L", "LA", "RGB", "RGBA", "P", "1"}:
        raise ValueError(f"pixels of mode {image.mode} are not supported")
    image.info.pop("transparency", None)  # Pillow would warn of what is ignored here
    return np.asarray(image.convert("L"))


def resize_square(pixels: NDArray[np.uint8] | NDArray[np.uint16], size: int, resize: Resize) -> NDArray[np.uint8]:
    """Resize to a square with area interpolation, then to 8 bits.

    Args:
        pixels: (H, W) uint8 or uint16.
        size: Side of the result, pixels.
        resize: ``pad`` puts black beside the image, ``crop`` keeps its centre, ``stretch`` changes its aspect.

    Returns:
        (size, size) uint8.
    """
    height, width = pixels.shape
    if resize == "crop" and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif resize == "pad" and height != width:
        side = max(height, width)
        square = np.zeros((side, side), pixels.dtype)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = pixels
        pixels = square
    scaled = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    if scaled.dtype == np.uint16:
        scaled = np.round(scaled / 257.0)
    return scaled.astype(np.uint8)


def _build_store(folder: Path, index: pd.DataFrame, source: str, size: int, resize: Resize, workers: int) -> None:
    paths = [Path(path) for path in index["path"]]
    reasons: dict[int, str] = {}
    cv2.setNumThreads(0)  # the threads below are the parallelism

    with replace_folder(folder) as staged:
        images = _create_images(staged / "images.npy", len(index), size)

        def decode(row: int) -> None:
            try:
                images[row] = decode_image(paths[row], size, resize)
            except ValueError as error:
                reasons[row] = str(error)

        with ThreadPoolExecutor(workers) as pool:
            done = pool.map(decode, range(len(index)))
            for _ in track(done, f"Decoding {source} to {size} px", total=len(index)):
                pass

        bad = np.zeros(len(index), dtype=bool)
        bad[list(reasons)] = True
        if bad.all():
            first = next(iter(reasons.values()))
            raise DataError(f"{source}: none of the {len(index)} images can be decoded; {paths[0].name}: {first}")
        images.flush()
        if bad.any():
            good = _create_images(staged / "good.npy", int((~bad).sum()), size)
            for target, row in enumerate(np.flatnonzero(~bad)):
                good[target] = images[row]
            good.flush()
            os.replace(staged / "good.npy", staged / "images.npy")
        dropped = index.loc[bad, ["image", "path"]].assign(reason=[reasons[row] for row in sorted(reasons)])
        write_csv(staged / "images.csv", index.loc[~bad, ["image"]])
        write_csv(staged / "dropped.csv", dropped)
        write_json(
            staged / "manifest.json",
            {
                "version": PREPROCESSING_VERSION,
                "source": source,
                "size": size,
                "resize": resize,
                "images": int((~bad).sum()),
                "dropped": int(bad.sum()),
            },
        )


def _create_images(path: Path, n_images: int, size: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new file of images, open for writing. Its space is taken now: a disk that is full later kills the process."""
    try:
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_images, size, size))
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; the store needs {n_images * size**2 / 2**20:.0f} MiB") from None
    return images
