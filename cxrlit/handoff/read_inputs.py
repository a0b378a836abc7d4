"""List the files of a command line and decode them on several threads; errors become reasons."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.core.cores import count_cores, open_pool
from cxrlit.core.errors import CXRLitError, DataError
from cxrlit.data.image_io.decode import decode_image, read_view, resize_square
from cxrlit.data.image_io.memory_budget import hold_file, hold_pixels
from cxrlit.handoff.bundle_config import BundleConfig
from cxrlit.handoff.ood_check import find_oddities

UNUSABLE = (ValueError, CXRLitError, MemoryError)
"""Errors of a file that cannot be read."""


class Seen(NamedTuple):
    """A decoded file.

    Attributes:
        path: The file.
        image: (S, S) uint8; None if it cannot be used.
        opened: (H, H) uint8 from which the views are cut: ``image``, unless ``tta`` needs a larger one.
        reason: Why it cannot be used, else empty.
        warnings: Warnings of the out-of-distribution check.
    """

    path: str
    image: NDArray[np.uint8] | None
    opened: NDArray[np.uint8] | None
    reason: str
    warnings: tuple[str, ...]


class Listed(NamedTuple):
    """A file to predict, with the reason if it is refused unread."""

    path: str
    reason: str


def list_files(paths: Sequence[Path]) -> list[Listed]:
    """List the named files, and all files below named folders, in the order of their names; each once.

    Hidden files and folders are skipped. A link in a folder to a file outside it is refused, since it would let the
    folder's author choose which files of this machine are read.

    Raises:
        DataError: A name is neither a file nor a folder.
    """
    listed: dict[str, Listed] = {}
    for path in paths:
        path = path.expanduser()
        if path.is_dir():
            for found in _walk(path):
                listed.setdefault(found.path, found)
        elif os.path.lexists(path):
            listed.setdefault(str(path), Listed(str(path), ""))
        else:
            raise DataError(f"{path}: there is no such file or folder")
    return list(listed.values())


def _walk(root: Path) -> Iterator[Listed]:
    home = root.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if Path(folder, name).is_symlink()]  # os.walk does not follow them
        for name in sorted(links + [name for name in names if not name.startswith(".")]):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                yield Listed(str(path), "a link to what lies outside of the folder")
            elif name not in links:
                yield Listed(str(path), "")


def read_input(path: str, config: BundleConfig) -> Seen:
    """Read one file like a training image, and run the out-of-distribution check."""
    try:
        with hold_file(Path(path)) as content:
            return read_content(content, config, path)
    except UNUSABLE as error:
        return _refuse(path, error)


def read_content(content: bytes, config: BundleConfig, path: str = "") -> Seen:
    """Do the same as ``read_input`` for a file in memory.

    Args:
        content: Its bytes.
        config: Config of the bundle.
        path: Its name, if any.
    """
    preprocessing = config.preprocessing
    try:
        with hold_pixels(content):
            pixels, colour, read_otherwise = decode_image(content)
            image = resize_square(pixels, preprocessing.img_size, preprocessing.resize)
            opened = image
            if config.side != preprocessing.img_size:
                opened = resize_square(pixels, config.side, preprocessing.resize)
            height, width = pixels.shape
            del pixels
            view = read_view(content)
    except UNUSABLE as error:
        return _refuse(path, error)
    odd = find_oddities(image, width, height, colour, view, config.input_check)
    return Seen(path, image, opened, "", (*odd, *read_otherwise))


def _refuse(path: str, error: Exception) -> Seen:
    text = "not enough memory to decode it" if isinstance(error, MemoryError) else str(error)
    return Seen(path, None, None, " ".join(text.removeprefix(f"{path}: ").split())[:300], ())


def read_inputs(
    files: Sequence[Listed],
    config: BundleConfig,
    n_at_once: int,
    reads_ahead: bool = False,
    n_threads: int | None = None,
) -> Iterator[Seen]:
    """Read files on several threads, in their order.

    Args:
        files: From ``list_files``.
        config: Config of the bundle.
        n_at_once: Images per batch.
        reads_ahead: Read the next two batches while one is computed. Else a batch is read on request: beside a network
            that uses all cores for each batch, reading threads slow both down many times.
        n_threads: Threads that read; None: one per core.
    """
    cv2.setNumThreads(0)
    waiting: deque[Future[Seen]] = deque()
    with open_pool(n_threads or count_cores()) as pool:
        for number, file in enumerate(files):
            waiting.append(pool.submit(_read_listed, file, config))
            if reads_ahead and len(waiting) > 2 * n_at_once:
                yield waiting.popleft().result()
            elif not reads_ahead and (number + 1) % n_at_once == 0:
                while waiting:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_listed(file: Listed, config: BundleConfig) -> Seen:
    return Seen(file.path, None, None, file.reason, ()) if file.reason else read_input(file.path, config)
