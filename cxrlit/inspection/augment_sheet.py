"""A few training images and their augmented versions, as in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.errors import DataError
from cxrlit.data.augment import Augment, key_names, seed_of
from cxrlit.data.image_io.decode import Resize, decode_pixels, resize_square
from cxrlit.data.image_io.memory_budget import hold_file, hold_pixels
from cxrlit.inspection.sample import choose_sample_images, key_images

SHEET_PX = 224
"""Side of the images, pixels; equal to that of most phases."""

N_ROWS = 5
"""Maximum number of images shown."""

N_EPOCHS = 5
"""Augmented versions of each image."""


class AugmentedImage(NamedTuple):
    """A training image and its augmented versions, each a PNG of ``SHEET_PX``.

    Attributes:
        row: Row of the image in the index.
        original: The image as stored.
        epochs: The image as each of the first epochs sees it.
    """

    row: int
    original: bytes
    epochs: list[bytes]


def draw_augment_sheet(
    rows: pd.DataFrame,
    labels: Sequence[str],
    readable: NDArray[np.bool_],
    augment: Augment,
    resize: Resize,
    seed: int,
) -> list[AugmentedImage]:
    """Augment one image for each of several labels, from the training part if there is a split.

    Args:
        rows: The index, with the column ``split`` if there is a split.
        labels: The labels in use.
        readable: (N,) whether the image is a file on disk.
        augment: The augmentation, for images of ``SHEET_PX``.
        resize: How to make a rectangular image square.
        seed: Seed of the choice of images and of their augmentation, which equals that of a training with this seed.
    """
    usable = readable & (rows["split"] == "train").to_numpy() if "split" in rows else readable
    order = key_images(rows["image"], seed).argsort(kind="stable")
    paths, keys = rows["path"].tolist(), key_names(rows["image"]).tolist()
    sheet: list[AugmentedImage] = []
    for chosen in choose_sample_images(rows, labels, order[usable[order]]).values():
        if len(sheet) == N_ROWS:
            break
        shown = {image.row for image in sheet}
        for row in (row for row in chosen if row not in shown):
            pixels = _read_square(Path(paths[row]), resize)
            if pixels is not None:
                epochs = [augment(pixels, seed_of(seed, epoch, keys[row])) for epoch in range(N_EPOCHS)]
                sheet.append(AugmentedImage(row, _encode(pixels), [_encode(image) for image in epochs]))
                break
    return sheet


def _read_square(path: Path, resize: Resize) -> NDArray[np.uint8] | None:
    """The image as stored; None if it cannot be decoded, which the sample reports."""
    try:
        with hold_file(path) as content, hold_pixels(content):
            return resize_square(decode_pixels(content), SHEET_PX, resize)
    except (ValueError, DataError):
        return None


def _encode(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()
