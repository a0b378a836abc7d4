"""Look-up tables of a DICOM file. Where a descriptor contradicts the entries, the entries count.

Source: DICOM PS3.3, C.11.1 and C.11.2; C.7.6.3.1.5 (palettes).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def parse_lookup(
    descriptor: bytes, data: bytes, values: NDArray[Any], signed: bool, is_little_endian: bool
) -> tuple[int, NDArray[np.float64]]:
    """Parse a table: its first input value, and its entries.

    Args:
        descriptor: Three words: number of entries, first value, bits of an entry.
        data: The entries, words or bytes.
        values: Input values. The first input value is signed where only that puts some of them inside the table.
        signed: Whether the first input value is signed according to the file.
        is_little_endian: Whether the byte order is little-endian.

    Raises:
        ValueError: The table has no entries or no size.
    """
    if len(descriptor) != 6 or len(data) < 2:
        raise ValueError("damaged: a look-up table without entries or size")
    order = "<" if is_little_endian else ">"
    n_entries = int(np.frombuffer(descriptor, f"{order}u2")[0]) or 2**16
    # Entries of 8 bits may be packed two per word, with padding after an odd number.
    is_packed = len(data) in {n_entries, n_entries + n_entries % 2}
    n_bytes = n_entries if is_packed else len(data) // 2 * 2
    entries = np.frombuffer(data[:n_bytes], "u1" if is_packed else f"{order}u2")
    firsts = [int(np.frombuffer(descriptor, f"{order}{'i' if sign else 'u'}2")[1]) for sign in (signed, not signed)]
    hits = [np.count_nonzero((values >= first) & (values < first + len(entries))) for first in firsts]
    return firsts[0 if hits[0] or not hits[1] else 1], entries.astype(np.float64)


def look_up(values: NDArray[Any], first: int, entries: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entry of each value; values below ``first`` get the first entry, values past the end the last."""
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1)
    found: NDArray[np.float64] = entries[places.astype(np.intp)]
    return found
