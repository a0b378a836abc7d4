"""Lines, smooth noise and soft edges, from which bodies and findings are drawn."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
"""(S, S), one value per pixel in the body's frame: x in [-0.5, 0.5] from the spine (negative is the patient's right,
which a radiograph shows on the left), y in [0, 1] downwards, with 1 the height of the image."""


def draw_lines(paths: Sequence[tuple[npt.NDArray[np.floating], float, float]], px: int) -> Field:
    """Draw anti-aliased lines; where they cross, the later one is on top.

    Args:
        paths: For each line its points (N, 2) as x, y, its width as a fraction of the image's side, and its
            brightness in [0, 1].
        px: Side of the field, pixels.

    Returns:
        (S, S), in [0, 1], 0 outside the lines.
    """
    canvas = np.zeros((px, px), dtype=np.uint8)
    for points, width, brightness in paths:
        pixels = np.round(((points + (0.5, 0.0)) * px - 0.5) * 16).astype(np.int32)  # 4 fractional bits
        cv2.polylines(canvas, [pixels], False, (255 * brightness,), max(1, round(width * px)), cv2.LINE_AA, 4)
    return as_field(canvas) * np.float32(1 / 255)


def blur(field: Field, width: float) -> Field:
    """Gaussian blur.

    Args:
        field: (S, S).
        width: Standard deviation, as a fraction of the image's side; at least 0.3 pixels.
    """
    return as_field(cv2.GaussianBlur(field, (0, 0), max(0.3, width * field.shape[0])))


def noise(seed: int, cells: int, px: int) -> Field:
    """Smooth noise with a variance of about 1.

    Args:
        seed: Seed of the noise, >= 0.
        cells: Number of bumps along a side.
        px: Side of the field, pixels.
    """
    coarse = np.random.default_rng(seed).standard_normal((cells, cells), dtype=np.float32)
    return as_field(cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC))


def as_field(values: npt.ArrayLike) -> Field:
    """Values as float32.

    Python's own arithmetic can introduce float64; float32 halves memory traffic and time.
    """
    return np.asarray(values, dtype=np.float32)


def ramp(values: Field, threshold: Field | float, width: float) -> Field:
    """1 where ``values`` are above ``threshold``, 0 below, with a linear ramp between.

    Args:
        values: Any shape.
        threshold: Value at which the result is 0.5.
        width: Width of the ramp from 0 to 1, in the unit of ``values``, > 0.

    >>> ramp(np.array([-1, 0, 0.25, 1], dtype=np.float32), 0, 1).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    return as_field(np.clip((values - threshold) / np.float32(width) + np.float32(0.5), 0, 1))
