"""Limit on the memory of all images that are being read and decoded, for any number of threads.

Each thread first reserves memory for its file, then for decoding, and releases both. A thread with the second
reservation waits for nothing, so that there is no deadlock.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from cxrlit.data.image_io.decode import MAX_FILE_BYTES, describe_image, read_file

BYTES_PER_PIXEL = {"1": 4, "L": 4, "P": 4, "I;16": 6, "DICOM MONOCHROME1": 6, "DICOM MONOCHROME2": 6}
"""Peak memory of decoding per pixel, bytes, by pixel format; measured with PNG, JPEG and DICOM."""

BYTES_PER_COLOUR_PIXEL = 10
"""Peak memory of a progressive JPEG per pixel, bytes; other colour images take 7."""

KEPT_BYTES, KEPT_BY_THREAD, MOST_KEPT = 96 * 2**20, 12 * 2**20, 32 * 2**20
"""Largest blocks that are kept: all threads together; one thread, below Pillow's blocks of 16 MiB; glibc's limit."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Option numbers of mallopt(3)."""


class MemoryBudget:
    """Bytes that threads reserve, at most ``limit`` in total; a larger request is granted when it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._changed = Condition()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Wait until the bytes are available, and release them at the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + n_bytes <= self.limit)
            self.used += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self.used -= n_bytes
                self._changed.notify_all()


@contextmanager
def keep_freed(n_threads: int) -> Iterator[None]:
    """Have glibc keep an image's memory for the next image of the same thread, within a limit for all threads.

    By default the system maps the pages of each image anew, which takes up to a quarter of the time; or, once a
    large image was freed, each thread keeps hundreds of megabytes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # not glibc
        yield
        return
    kept = min(KEPT_BY_THREAD, KEPT_BYTES // n_threads)
    set_option(M_MMAP_THRESHOLD, kept)
    set_option(M_TRIM_THRESHOLD, 2 * kept)
    try:
        yield
    finally:  # limits that glibc reaches by itself
        set_option(M_MMAP_THRESHOLD, MOST_KEPT)
        set_option(M_TRIM_THRESHOLD, 2 * MOST_KEPT)


FILES = MemoryBudget(2 * MAX_FILE_BYTES)
PIXELS = MemoryBudget(384 * 2**20)


@contextmanager
def hold_file(path: Path) -> Iterator[bytes]:
    """The bytes of a file (``read_file``), with memory reserved for them and one copy."""
    try:
        n_bytes = min(os.stat(path).st_size, MAX_FILE_BYTES)
    except OSError:
        n_bytes = 0  # read_file reports the error
    with FILES.hold(2 * n_bytes):
        yield read_file(path)


@contextmanager
def hold_pixels(content: bytes) -> Iterator[None]:
    """Reserve the memory for decoding a file and resizing its image to a square.

    Raises:
        ValueError: The header shows that the file cannot be used; the message says why.
    """
    width, height, mode = describe_image(content)
    name = " ".join(mode.split()[:2]) if mode.startswith("DICOM") else mode.partition(" ")[0]
    per_pixel = BYTES_PER_PIXEL.get(name, BYTES_PER_COLOUR_PIXEL)
    n_bytes = width * height * per_pixel + (0 if width == height else 2 * max(width, height) ** 2)
    with PIXELS.hold(n_bytes):
        yield
