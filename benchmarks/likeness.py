"""What the check of inputs finds: shares of images that are warned of, as they are and made into what is no radiograph.

python benchmarks/likeness.py --bundle BUNDLE --images FOLDER
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from figures import add_options, report
from numpy.typing import NDArray

from cxrlit.handoff.bundle import read_bundle
from cxrlit.handoff.ood_check import find_oddities
from cxrlit.handoff.read_inputs import list_files, read_inputs

Change = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[Any]]

CHANGES: dict[str, tuple[Change, str]] = {
    "as they are": (lambda image, _: image, "about 0.01"),
    "inverted": (lambda image, _: 255 - image, ""),
    "upside down": (lambda image, _: image[::-1], ""),
    "rotated by 90 degrees": (lambda image, _: np.rot90(image), ""),
    "half as bright": (lambda image, _: image // 2, ""),
    "the left half, stretched": (lambda image, _: cv2.resize(image[:, : len(image) // 2], image.shape), ""),
    "the middle quarter, enlarged": (lambda image, _: cv2.resize(_cut_middle(image), image.shape), ""),
    "a page of text": (lambda image, rng: _write_page(len(image), rng), ""),
    "noise": (lambda image, rng: rng.integers(0, 256, image.shape), ""),
    "black": (lambda image, _: np.zeros_like(image), ""),
}
"""What is made of an image, and what is wanted of the share that is warned of."""


def main() -> None:
    """Measure each change, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="radiographs like those of the bundle's training")
    parser.add_argument("--n-images", type=int, default=300)
    add_options(parser)
    arguments = parser.parse_args()
    config = read_bundle(arguments.bundle).config
    files = [file for file in list_files([arguments.images]) if file.path.endswith(".png")]
    step = max(1, len(files) // arguments.n_images)
    images = [seen.image for seen in read_inputs(files[::step], config, 64) if seen.image is not None]
    rng, rows = np.random.default_rng(0), []
    for name, (change, wanted) in CHANGES.items():
        changed = [np.ascontiguousarray(change(image, rng), np.uint8) for image in images]
        warned = [bool(find_oddities(image, 1, 1, 0.0, "", config.input_check)) for image in changed]
        rows.append({"what": f"share warned of: {name}", "ours": float(np.mean(warned)), "wanted": wanted})
    report("likeness", "python benchmarks/likeness.py --bundle BUNDLE --images FOLDER", rows, arguments.keep)


def _cut_middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    quarter = len(image) // 4
    return image[quarter:-quarter, quarter:-quarter]


def _write_page(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    page = np.full((side, side), 245, np.uint8)
    for top in range(8, side - 8, 6):
        page[top : top + 2, 8 : rng.integers(side // 2, side - 8)] = 40
    return page


if __name__ == "__main__":
    main()
