"""Which of two readings of the same pixels a file means, where its tags contradict them: the smoother one.

Neighbouring pixels of a radiograph differ by little. Bits that are cut off or a sign that is none make neighbours jump
by nearly the whole range, and only along the edges where those bits change. So only neighbours are compared whose
difference is another one in the two readings.

Letters, markers and shutters that are nearly white on nearly black are smoother with a sign, too, though they have
none. So the tags are believed unless the evidence is overwhelming: the other reading is much smoother; its steps there
are about as small as elsewhere in the image; and the pixels that it moves are many and of many gray levels, as those
of an object of few gray levels are not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 128
"""Rows that are looked at, evenly over the image."""
SMOOTHER = 0.25
"""Share of the difference between neighbours that another reading than that of the tags may leave."""
MIN_SHARE = 0.001
"""Share of the neighbours that must differ in the bits in question: letters on an image make fewer."""
MAX_STEP = 3.0
"""Median step of the other reading where the two differ, by the ``LARGE_STEPS`` quantile of the steps elsewhere."""
LARGE_STEPS = 0.9
MIN_MOVED = 0.05
"""Share of the pixels that the other reading must move against the rest."""
MIN_LEVELS = 0.07
"""Range of the moved pixels (10th to 90th percentile) by that of the image (5th to 95th): shutters have less."""
MIN_STEPS = 4.0
"""The same by a large step elsewhere: the noise of one gray level has less."""
GRAY_DIFFERENCE = 2.0
"""Mean difference between the channels of a gray image, of 255: JPEG's rounding makes less."""


def choose_bits(stored: NDArray[Any], n_bits: int, all_bits: int, signed: bool) -> int:
    """How many bits a value has: those that the file says, or all in use, where those above are no overlay.

    Args:
        stored: (H, W) unsigned, with all bits.
        n_bits: Bits that the file says.
        all_bits: Bits that there is room for, more than ``n_bits``.
        signed: Whether the file says that the highest of them is a sign.
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
    """How many bits a value has, and whether the highest of them is a sign.

    Args:
        stored: (H, W) unsigned, of ``n_bits``.
        n_bits: Bits of a value that the file says; fewer are in use where the values need no more.
        signed: Whether the file says that there is a sign.

    Returns:
        The bits, whether there is a sign, and whether that is doubtful: the image is much smoother otherwise, but the
        evidence is not enough to contradict the file.
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
    """Values of codes of some bits.

    >>> read_sign(np.array([0, 7, 8, 15]), 4, True).tolist()
    [0, 7, -8, -1]
    """
    values = codes.astype(np.int32)
    return np.where(values >= 2 ** (n_bits - 1), values - 2**n_bits, values) if signed else values


def merge_channels(channels: NDArray[Any], n_bits: int, is_ybr: bool, block_rows: int) -> NDArray[Any]:
    """The gray values of an image in three channels that has no colour.

    Args:
        channels: (H, W, 3): red, green and blue, or luminance and two of colour.
        n_bits: Bits of a value.
        is_ybr: Whether the file says that it is the latter; three channels that are the same are gray in any case.
        block_rows: Rows that are looked at at once, for the memory that it takes.

    Raises:
        ValueError: It has colour.
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
    """Whether another reading than that of the tags is much smoother where the two differ.

    Args:
        other: (H, W) values.
        said: (H, W) values, as the tags have it.
        scale: Range of the other by that of the tags' own.

    Returns:
        None where it is, but may be so by objects that are nearly white.
    """
    steps, steps_said = (np.abs(values[:, 1:] - values[:, :-1]) for values in (other, said))
    is_end = (said == said.min()) | (said == said.max())  # black beside white is an edge in any reading
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
