"""Out-of-distribution check: four numbers of an image, each with a limit.

- Aspect ratio, width / height, with fixed limits: chest radiographs are between half and twice as wide as high.
- Colour: the difference between red, green and blue, averaged over the pixels.
- Grays: the distance of the histogram from the mean histogram of training images (first Wasserstein distance, in
  grays), and the correlation with their mean image (both at 32 x 32 pixels), which is low for a lateral, rotated or
  inverted radiograph. ``SHARE`` of the validation images are beyond their limits.

A warning says that the model was not made for such an image. No warning does not say the opposite.
"""

from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cxrlit.data.image_io.decode import MAX_COLOUR

SIDE = 32
MIN_ASPECT, MAX_ASPECT = 0.5, 2.0
LATERAL_VIEWS = frozenset({"LL", "RL", "LLD", "RLD", "LLO", "RLO"})
"""DICOM's view positions of lateral chest radiographs, PS3.3 C.8.1.1."""
SHARE = 0.005
MAX_IMAGES = 5_000
"""Most training, and most validation, images of the reference, evenly spaced over the table."""

Gray = Annotated[float, Field(ge=0, le=255)]


class Reference(BaseModel):
    """Statistics of the training images.

    Attributes:
        histogram: (256,) share of the pixels at or below each gray, mean over images.
        max_distance: Largest distance from the histogram, grays.
        mean_image: (1024,) grays of the mean image at 32 x 32 pixels, row by row.
        min_correlation: Smallest correlation with the mean image.
        n_train: Number of training images, for the means.
        n_val: Number of validation images, for the limits.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    histogram: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=256, max_length=256)]
    max_distance: Gray
    mean_image: Annotated[list[Gray], Field(min_length=SIDE**2, max_length=SIDE**2)]
    min_correlation: Annotated[float, Field(ge=-1, le=1)]
    n_train: int
    n_val: int


def make_reference(train: NDArray[np.uint8], val: NDArray[np.uint8]) -> Reference:
    """Compute the means of training images, and the limits from validation images.

    Args:
        train: (N, S, S).
        val: (M, S, S).
    """
    histogram = np.mean([accumulate(image) for image in train], axis=0).round(6)
    mean_image = np.mean([shrink(image) for image in train], axis=0).round(2)
    distances = [measure_histogram_distance(image, histogram) for image in val]
    correlations = [correlate(image, mean_image) for image in val]
    return Reference(
        histogram=histogram.tolist(),
        max_distance=round(float(np.quantile(distances, 1 - SHARE, method="higher")), 3),
        mean_image=mean_image.ravel().tolist(),
        min_correlation=round(float(np.quantile(correlations, SHARE, method="lower")), 4),
        n_train=len(train),
        n_val=len(val),
    )


def find_oddities(
    image: NDArray[np.uint8], width: int, height: int, colour: float, view: str, reference: Reference
) -> list[str]:
    """List reasons why an image may not be a frontal chest radiograph like those of the training.

    Args:
        image: (S, S), the network's input.
        width: Width of the image in the file, pixels.
        height: Height of the image in the file, pixels.
        colour: From ``measure_colour``.
        view: From ``read_view``.
        reference: Reference of the bundle.
    """
    found = []
    if not MIN_ASPECT <= width / height <= MAX_ASPECT:
        found.append(f"its aspect is {width / height:.2f}, not {MIN_ASPECT} to {MAX_ASPECT}")
    if colour > MAX_COLOUR:
        found.append(f"it has colour: {colour:.0f} grays between the channels (limit {MAX_COLOUR:.0f})")
    if view in LATERAL_VIEWS:
        found.append(f"its file says that its view is {view}, which is not frontal")
    distance = measure_histogram_distance(image, np.array(reference.histogram))
    if distance > reference.max_distance:
        found.append(f"its histogram is {distance:.0f} grays from the mean one (limit {reference.max_distance:.0f})")
    correlation = correlate(image, np.array(reference.mean_image).reshape(SIDE, SIDE))
    if correlation < reference.min_correlation:
        found.append(
            f"its correlation with the mean training image is {correlation:.2f} (limit {reference.min_correlation:.2f})"
        )
    return found


def accumulate(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute (256,) shares of the pixels at or below each gray."""
    return np.asarray(np.cumsum(np.bincount(image.ravel(), minlength=256)) / image.size)


def measure_histogram_distance(image: NDArray[np.uint8], histogram: NDArray[np.float64]) -> float:
    """Compute the mean change of a pixel, in grays, that would make the histograms equal.

    >>> measure_histogram_distance(np.full((4, 4), 10, np.uint8), accumulate(np.full((4, 4), 14, np.uint8)))
    4.0
    """
    return float(np.abs(accumulate(image) - histogram).sum())


def shrink(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shrink (S, S) to (32, 32) by area."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)


def correlate(image: NDArray[np.uint8], mean_image: NDArray[np.float64]) -> float:
    """Compute Pearson's correlation with the mean image; 0 for an image of a single gray."""
    mine, theirs = shrink(image), mean_image
    mine, theirs = mine - mine.mean(), theirs - theirs.mean()
    scale = float(np.sqrt((mine**2).sum() * (theirs**2).sum()))
    return float((mine * theirs).sum()) / scale if scale else 0.0
