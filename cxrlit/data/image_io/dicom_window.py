"""The window of a DICOM file, and a check whether it, or a VOI LUT, shows the image at all.

Source: DICOM PS3.3, C.11.2.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from cxrlit.data.image_io import dicom_header as header

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
MAX_AT_END = 0.9
"""Maximum share of pixels that may be nearly black, or nearly white."""
END = 1 / 64
"""Limit of nearly black, as a fraction of the range; nearly white is as close to the other end."""


def apply_window(known: NDArray[Any], center: float, width: float, function: str, photometric: str) -> NDArray[Any]:
    """Map values to 0 at the lower end of a window and 1 at its upper end.

    Args:
        known: Values after the modality LUT.
        center: Centre of the window.
        width: Width of the window, > 0. A LINEAR window with a width below 1 is LINEAR_EXACT.
        function: One of ``FUNCTIONS``.
        photometric: Photometric interpretation of the image, MONOCHROME1 or MONOCHROME2.
    """
    window = Dataset()  # carries the file's values as numbers, with output ends 0 and 65535
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = photometric, 16, 0
    window.VOILUTFunction = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
    window.add_new(header.CENTER, "FD", center)
    window.add_new(header.WIDTH, "FD", width)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.asarray(apply_windowing(known, window) / 65535)


def is_one_gray(shown: NDArray[Any]) -> bool:
    """Whether values from 0 to 1 are a single 8-bit gray.

    >>> is_one_gray(np.array([0.5, 0.501])), is_one_gray(np.array([0.5, 0.51]))
    (True, False)
    """
    return bool(np.ptp(np.rint(np.clip(shown, 0, 1) * 255)) == 0)


def misses_image(shown: NDArray[Any], known: NDArray[Any], counts: NDArray[np.int64]) -> bool:
    """Whether a window or VOI LUT puts nearly all pixels at one end, while the range of the values does not.

    Args:
        shown: (N,) output for each value, 0 to 1.
        known: (N,) the values.
        counts: (N,) number of pixels with each value.

    >>> values, counts = np.arange(101), np.full(101, 7)
    >>> [misses_image(values / end, values, counts) for end in (5, 50)]
    [True, False]
    """
    if is_one_gray(shown):
        return True
    spread = (known - known.min()) / ((known.max() - known.min()) or 1)
    return any(
        _share(view <= END, counts) > MAX_AT_END >= _share(plain <= END, counts)
        for view, plain in ((shown, spread), (1 - shown, 1 - spread))
    )


def _share(chosen: NDArray[np.bool_], counts: NDArray[np.int64]) -> float:
    return float(counts[chosen].sum() / counts.sum())
