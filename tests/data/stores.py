"""What the tests of stores share: small images, an index of a folder, and what a store's folder holds.

``python stores.py FOLDER STEP`` prepares it again and again, killed at every so many operations on files.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxrlit.data.image_io.decode import resize_square
from cxrlit.data.store import builder as build
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.builder import prepare_stores
from cxrlit.data.store.reader import Store

SIDE = 24
SMALL_SHARD = 10 * SIDE**2
"""So that a few dozen images make several shards."""


def draw_noise(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def write_images(folder: Path, n_images: int = 40, first: int = 0, bad: tuple[int, ...] = ()) -> Path:
    """Noise of ``SIDE`` pixels, an image a seed; files of the numbers in ``bad`` are no images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + n_images):
        path = folder / f"{number:03d}.png"
        if number in bad:
            path.write_text(f"no image {number}")
        else:
            Image.fromarray(draw_noise(number)).save(path, compress_level=0)  # all of one size
    return folder


def grow(images: Path) -> None:
    """The same image with a chunk more."""
    Image.fromarray(draw_noise(3)).save(images / "003.png", dpi=(72, 72))


def exchange(images: Path) -> None:
    """Another image of the same length."""
    (images / "003.png").write_bytes((images / "005.png").read_bytes())
    os.utime(images / "003.png", ns=(1, 1))


def grow_at_the_same_time(images: Path) -> None:
    """Of another length, and the file's time is as it was."""
    status = (images / "003.png").stat()
    grow(images)
    os.utime(images / "003.png", ns=(status.st_atime_ns, status.st_mtime_ns))


def read_folder(folder: Path) -> pd.DataFrame:
    """The columns of an index that a store looks at."""
    rows = [(path.name, str(path), f"images/{path.name}", *_stat(path)) for path in sorted(folder.iterdir())]
    return pd.DataFrame(rows, columns=["image", "path", "file", "n_bytes", "mtime_ns"]).assign(source="small")


def _stat(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def prepare(images: Path, cache: Path, *sizes: int, **options: Any) -> list[Store]:
    """Stores of what is in a folder now."""
    return prepare_stores(read_folder(images), "small", sizes or (SIDE,), "pad", cache, options.pop("workers", 2))


def find_folder(store: Store) -> Path:
    """The store's own folder."""
    return store.paths[0].parents[1]


def list_stores(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "store").glob("small-*") if path.is_dir())


def read_tree(folder: Path) -> dict[str, str]:
    """A hash of every file of a store that is of the images alone."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "seen.csv"
    }


def check_pixels(store: Store, index: pd.DataFrame) -> None:
    """Every image of an index of noise is in the store, as it was drawn."""
    assert len(store.positions) == len(index)
    for position, image in zip(store.positions, index["image"], strict=True):
        if position < 0:
            assert image in set(store.dropped["image"])
        else:
            drawn = resize_square(draw_noise(int(image.split(".")[0])), store.size, "pad")
            np.testing.assert_array_equal(store.take([position])[0], drawn, image)


@contextmanager
def count_decodes() -> Iterator[list[bytes]]:
    """The contents that are decoded inside the block, those that their header keeps from it included."""
    decoded: list[bytes] = []

    def hold(content: bytes) -> Any:
        decoded.append(content)
        return original(content)

    original: Callable[[bytes], Any] = build.hold_pixels
    with patch.object(build, "hold_pixels", hold):
        yield decoded


def flip_byte(path: Path, place: int, mask: int = 1) -> None:
    """Change a byte in place; the file keeps its size."""
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ mask]))


def die_at(cache: Path, number: int) -> list[int]:
    """Kill this process at the n-th operation on a file below a folder; the list counts them."""
    count = [0]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and str(arguments[0]).startswith(f"{cache}/"):
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return count


WATCHED = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}


def run_in_fork(work: Callable[[], object]) -> int:
    """Exit status of a process like this one that does the work; negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_everywhere(folder: Path, step: int) -> None:
    """Prepare with a kill at every ``step``-th operation, finish it, and compare with an undisturbed build.

    Prints how many kills there were. ``folder`` holds ``images``.
    """
    shards.SHARD_BYTES = SMALL_SHARD
    os.fsync = lambda handle: None  # type: ignore[assignment]  # a kill loses nothing that was written
    images, sizes = folder / "images", (SIDE, 16)
    prepare(images, folder / "wanted", *sizes)
    changed = images / "003.png"
    histories: dict[str, Callable[[Path], object]] = {
        "from nothing": lambda cache: None,
        "after a change": lambda cache: _prepare_before(changed, images, cache, sizes),
    }
    wanted, n_kills = read_tree(list_stores(folder / "wanted")[0]), 0
    for name, begin in histories.items():
        n_decoded: list[int] = []
        for number in range(1, 10_000, step):
            cache = folder / f"{name}-{number}"
            run_in_fork(lambda cache=cache, begin=begin: begin(cache))

            def work(cache: Path = cache, number: int = number) -> None:
                die_at(cache, number)
                prepare(images, cache, *sizes)

            status = run_in_fork(work)
            if status == 0:
                break
            assert status == -signal.SIGKILL, (name, number, status)
            n_kills += 1
            with count_decodes() as decoded:
                finished = prepare(images, cache, *sizes)
            n_decoded.append(len(decoded))
            for store in finished:
                check_pixels(store, read_folder(images))
            assert read_tree(list_stores(cache)[0]) == wanted, (name, number)
        assert n_decoded == sorted(n_decoded, reverse=True), n_decoded  # the later the kill, the less is left
        assert n_decoded[-1] == 0
    print(f"kills: {n_kills}")


def _prepare_before(changed: Path, images: Path, cache: Path, sizes: tuple[int, ...]) -> None:
    """What was prepared while one file was another one of the same size."""
    content, status = changed.read_bytes(), changed.stat()
    changed.write_bytes((images / "005.png").read_bytes())
    os.utime(changed, ns=(0, 0))
    prepare(images, cache, *sizes)
    changed.write_bytes(content)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))


if __name__ == "__main__":
    kill_everywhere(Path(sys.argv[1]), int(sys.argv[2]))
