"""A few training images and what augmentation makes of them, as a training would see them."""

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
"""Side of the images, pixels: that of most phases."""

N_ROWS = 5
"""Images that are shown at most."""

N_EPOCHS = 5
"""Augmented versions of each."""


class AugmentedImage(NamedTuple):
    """A training image, each time as a PNG of ``SHEET_PX``.

    Attributes:
        row: Its row of the index.
        original: As it is in the store.
        epochs: As each of the first epochs sees it.
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
    """Augment an image of each of several labels; of the training part, where there is a split.

    Args:
        rows: The index, and the column ``split`` where there is one.
        labels: The labels in use.
        readable: (N,) whether the image is a file.
        augment: The augmentation, for images of ``SHEET_PX``.
        resize: How an image that is not square becomes square.
        seed: Which images, and how they are augmented: as a training with this seed does.
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
    """The image as the store has it; None where it cannot be decoded, which the sample says."""
    try:
        with hold_file(path) as content, hold_pixels(content):
            return resize_square(decode_pixels(content), SHEET_PX, resize)
    except (ValueError, DataError):
        return None


def _encode(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()
