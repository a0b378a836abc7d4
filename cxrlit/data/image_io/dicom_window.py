"""The window of a DICOM file, and whether it, or a VOI LUT, shows the image at all.

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
"""Share of the pixels that may be nearly black, or nearly white."""
END = 1 / 64
"""What is nearly black, as a share of the range; and what is nearly white, from the other end."""


def apply_window(known: NDArray[Any], center: float, width: float, function: str, photometric: str) -> NDArray[Any]:
    """0 for the lower end of a window, 1 for its upper end.

    Args:
        known: Values, after the modality LUT.
        center: Of the window.
        width: Above 0. A window of LINEAR with a width below 1 is LINEAR_EXACT.
        function: Of ``FUNCTIONS``.
        photometric: Of the image, MONOCHROME1 or MONOCHROME2.
    """
    window = Dataset()  # of the file's values, as numbers, and with ends that are 0 and 65535
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = photometric, 16, 0
    window.VOILUTFunction = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
    window.add_new(header.CENTER, "FD", center)
    window.add_new(header.WIDTH, "FD", width)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.asarray(apply_windowing(known, window) / 65535)


def is_one_gray(shown: NDArray[Any]) -> bool:
    """Whether values of 0 to 1 are one gray of 8 bits.

    >>> is_one_gray(np.array([0.5, 0.501])), is_one_gray(np.array([0.5, 0.51]))
    (True, False)
    """
    return bool(np.ptp(np.rint(np.clip(shown, 0, 1) * 255)) == 0)


def misses_image(shown: NDArray[Any], known: NDArray[Any], counts: NDArray[np.int64]) -> bool:
    """Whether a window or a VOI LUT leaves nearly all pixels at one end, where the range of the values does not.

    Args:
        shown: (N,) what it makes of the values, 0 to 1.
        known: (N,) the values.
        counts: (N,) pixels of each.

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
