"""Choose between two readings of the same pixels where the tags of a file contradict them: the smoother one wins.

Neighbouring pixels of a radiograph differ little. With bits cut off or a wrong sign, neighbours differ by nearly the
whole range, but only along the edges where those bits change. So only neighbours whose difference depends on the
reading are compared.

Letters, markers and shutters that are nearly white on nearly black are smoother with a sign too, although they have
none. So the tags hold unless the evidence is overwhelming: the other reading is much smoother; its steps there are
about as small as elsewhere in the image; and the pixels that it moves are many and have many gray levels, unlike those
of an object of few gray levels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 128
"""Number of rows examined, spread evenly over the image."""
SMOOTHER = 0.25
"""Maximum ratio of the neighbours' mean difference in the other reading to that in the tags' reading."""
MIN_SHARE = 0.001
"""Minimum share of neighbours that differ in the bits in question: letters on an image change fewer."""
MAX_STEP = 3.0
"""Maximum median step of the other reading where the readings differ, relative to ``LARGE_STEPS`` elsewhere."""
LARGE_STEPS = 0.9
MIN_MOVED = 0.05
"""Minimum share of pixels that the other reading moves relative to the rest."""
MIN_LEVELS = 0.07
"""Minimum range of the moved pixels (10th to 90th percentile) by the image's (5th to 95th): shutters have less."""
MIN_STEPS = 4.0
"""Minimum range of the moved pixels by a large step elsewhere: the noise of one gray level has less."""
GRAY_DIFFERENCE = 2.0
"""Mean difference between the channels of a gray image, of 255: JPEG's rounding makes less."""


def choose_bits(stored: NDArray[Any], n_bits: int, all_bits: int, signed: bool) -> int:
    """The number of bits of a value: the file's number, or all bits in use if the upper ones are no overlay.

    Args:
        stored: (H, W) unsigned, with all bits.
        n_bits: Bits according to the file.
        all_bits: Bits of storage, more than ``n_bits``.
        signed: Whether the highest bit is a sign according to the file.
    """
    rows = _pick_rows(stored)
    said = read_sign(rows & (2**n_bits - 1), n_bits, signed)
    used = min(int(stored.max()).bit_length(), all_bits)
    for bits, sign in ((all_bits, False), (all_bits, True), (used, True)):
        whole = read_sign(rows, bits, sign)
        if _is_smoother(whole, said, max(int(np.ptp(whole)), 1) / 2**n_bits):
            return bits
    return n_bits


def choose_sign(stored: NDArray[Any], n_bits: int, signed: bool) -> tuple[int, bool, bool]:
    """The number of bits of a value, and whether the highest is a sign.

    Args:
        stored: (H, W) unsigned, of ``n_bits``.
        n_bits: Bits of a value according to the file; smaller values use fewer.
        signed: Whether there is a sign according to the file.

    Returns:
        The bits, whether there is a sign, and whether that is doubtful: the image is much smoother otherwise, but the
        evidence does not suffice to contradict the file.
    """
    used = min(int(stored.max()).bit_length(), n_bits)
    if used < 2:
        return n_bits, signed, False
    rows = _pick_rows(stored)
    said_signed = signed and used == n_bits
    said, other = (read_sign(rows, used, sign) for sign in (said_signed, not said_signed))
    is_smoother = _is_smoother(other, said, 1.0)
    return (used, not said_signed, False) if is_smoother else (n_bits, signed, is_smoother is None)


def read_sign(codes: NDArray[Any], n_bits: int, signed: bool) -> NDArray[np.int32]:
    """Convert codes of ``n_bits`` bits to values.

    >>> read_sign(np.array([0, 7, 8, 15]), 4, True).tolist()
    [0, 7, -8, -1]
    """
    values = codes.astype(np.int32)
    return np.where(values >= 2 ** (n_bits - 1), values - 2**n_bits, values) if signed else values


def merge_channels(channels: NDArray[Any], n_bits: int, is_ybr: bool, block_rows: int) -> NDArray[Any]:
    """The gray values of a three-channel image without colour.

    Args:
        channels: (H, W, 3): red, green and blue, or luminance and two of chrominance.
        n_bits: Bits of a value.
        is_ybr: Whether the file says luminance and chrominance; three equal channels are gray in any case.
        block_rows: Rows processed at once, to limit memory.

    Raises:
        ValueError: The image has colour.
    """
    grays = np.empty_like(channels, shape=channels.shape[:2])
    neutral = 2 ** (n_bits - 1)
    spread = chroma = 0.0
    for top in range(0, len(channels), block_rows):
        red, green, blue = np.moveaxis(channels[top : top + block_rows].astype(np.int32), 2, 0)
        spread += float((np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).sum())
        chroma += float((np.abs(green - neutral) + np.abs(blue - neutral)).sum())
        grays[top : top + block_rows] = (299 * red + 587 * green + 114 * blue + 500) // 1000
    limit = GRAY_DIFFERENCE * (2**n_bits - 1) / 255 * grays.size
    if spread <= limit:
        return grays
    if is_ybr and chroma <= limit:
        return channels[..., 0].copy()
    raise ValueError("DICOM in colour is not supported")


def _pick_rows(stored: NDArray[Any]) -> NDArray[Any]:
    picked: NDArray[Any] = stored[:: max(len(stored) // ROWS, 1)]
    return picked


def _is_smoother(other: NDArray[np.int32], said: NDArray[np.int32], scale: float) -> bool | None:
    """Whether another reading than the tags' is much smoother where the two differ.

    Args:
        other: (H, W) values in the other reading.
        said: (H, W) values in the tags' reading.
        scale: Range of the other reading relative to that of the tags' reading.

    Returns:
        None if it is smoother, but objects that are nearly white may be the cause.
    """
    steps, steps_said = (np.abs(values[:, 1:] - values[:, :-1]) for values in (other, said))
    is_end = (said == said.min()) | (said == said.max())  # black beside white is an edge in either reading
    differ = steps != steps_said
    judged = differ & ~(is_end[:, 1:] | is_end[:, :-1])
    shift = other - said
    moved = other[shift != np.median(shift)]
    if np.count_nonzero(judged) <= MIN_SHARE * judged.size or len(moved) < MIN_MOVED * other.size:
        return False
    if steps[judged].mean() / scale >= SMOOTHER * steps_said[judged].mean():
        return False
    elsewhere = steps[~differ] if np.count_nonzero(differ) < differ.size / 2 else steps
    large = max(float(np.quantile(elsewhere, LARGE_STEPS)), 1.0)
    low, high = np.quantile(moved, [0.1, 0.9])
    first, last = np.quantile(other, [0.05, 0.95])
    has_levels = high - low >= max(MIN_LEVELS * (last - first), MIN_STEPS * large)
    return True if has_levels and np.median(steps[judged]) <= MAX_STEP * large else None
