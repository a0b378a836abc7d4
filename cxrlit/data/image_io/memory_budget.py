"""How much memory the images that are being read and decoded take together, whatever the number of threads.

Each thread holds first what its file takes, then what decoding it takes, and gives back both: who holds the second
waits for nothing, so that there is no deadlock.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from cxrlit.data.image_io.decode import MAX_FILE_BYTES, describe_image, read_file

BYTES_PER_PIXEL = {"1": 4, "L": 4, "P": 4, "I;16": 6, "DICOM MONOCHROME1": 6, "DICOM MONOCHROME2": 6}
"""What decoding takes at most at a time, by the mode of the image; measured with PNG, JPEG and DICOM."""

BYTES_PER_COLOUR_PIXEL = 10
"""What a progressive JPEG takes; others take 7."""

KEPT_BYTES, KEPT_BY_THREAD, MOST_KEPT = 96 * 2**20, 12 * 2**20, 32 * 2**20
"""Largest block that is kept: of all threads together; of one, below Pillow's blocks of 16 MiB; and by glibc's rule."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""


class MemoryBudget:
    """Bytes that threads hold together, at most ``limit``; one that wants more gets them where it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._changed = Condition()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Wait until the bytes are there, and give them back at the end of the block."""
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
    """Have glibc keep the memory of an image for the next one of the same thread, as far as all threads can.

    Left as it is, the pages of each image are asked for anew, which takes up to a quarter of the time; or, once a large
    one was freed, each thread keeps hundreds of megabytes.
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
    finally:  # as far as glibc goes by itself
        set_option(M_MMAP_THRESHOLD, MOST_KEPT)
        set_option(M_TRIM_THRESHOLD, 2 * MOST_KEPT)


FILES = MemoryBudget(2 * MAX_FILE_BYTES)
PIXELS = MemoryBudget(384 * 2**20)


@contextmanager
def hold_file(path: Path) -> Iterator[bytes]:
    """The bytes of a file, as ``read_file`` reads them, and the memory for them and for one copy."""
    try:
        n_bytes = min(os.stat(path).st_size, MAX_FILE_BYTES)
    except OSError:
        n_bytes = 0  # the reading says why
    with FILES.hold(2 * n_bytes):
        yield read_file(path)


@contextmanager
def hold_pixels(content: bytes) -> Iterator[None]:
    """The memory that decoding a file takes, and resizing its image to a square.

    Raises:
        ValueError: Its header says that it cannot be used, and why.
    """
    width, height, mode = describe_image(content)
    name = " ".join(mode.split()[:2]) if mode.startswith("DICOM") else mode.partition(" ")[0]
    per_pixel = BYTES_PER_PIXEL.get(name, BYTES_PER_COLOUR_PIXEL)
    n_bytes = width * height * per_pixel + (0 if width == height else 2 * max(width, height) ** 2)
    with PIXELS.hold(n_bytes):
        yield
