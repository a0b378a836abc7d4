"""Measure the colour of an image that is read as gray."""

import numpy as np
from PIL import Image

COLOUR_PX = 256
"""Side of the thumbnail in which colour is measured, pixels."""


def measure_colour(image: Image.Image) -> float:
    """Mean difference between the channels of an image, in gray levels; for a gray image at most rounding errors.

    >>> measure_colour(Image.new("RGB", (8, 8), (10, 30, 20))), measure_colour(Image.new("L", (8, 8)))
    (20.0, 0.0)
    """
    channels = image if image.mode == "RGB" else image.convert("RGB")
    seen = np.asarray(channels.resize((COLOUR_PX, COLOUR_PX), Image.Resampling.BOX), np.int16)
    return float((seen.max(axis=2) - seen.min(axis=2)).mean())
