"""Preparing: the same bytes whatever happened before, no shard made twice, nothing stale, a reason for each loss."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import stores
from fuzzing import hash_pixels, write_damaged_images
from PIL import Image
from stores import (
    SIDE,
    SMALL_SHARD,
    check_pixels,
    count_decodes,
    exchange,
    find_folder,
    flip_byte,
    grow,
    grow_at_the_same_time,
    list_stores,
    prepare,
    read_folder,
    read_tree,
    write_images,
)

from cxrlit.core.errors import ConfigError, DataError
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.image_io.decode import decode_image, decode_pixels, resize_square
from cxrlit.data.store import builder as build
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.builder import prepare_stores
from cxrlit.data.store.manifest import read_image_table, read_manifest
from cxrlit.data.store.reader import Store, verify_store


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of a few images; and no waiting for the disk, which only a power cut would show."""
    monkeypatch.setattr(shards, "SHARD_BYTES", SMALL_SHARD)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """36 images in 4 shards, of which the eighth is none."""
    return write_images(tmp_path / "images", 36, bad=(7,))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# The same bytes


def test_every_image_is_there_as_it_is_in_its_file(images: Path, cache: Path) -> None:
    for store in prepare(images, cache, SIDE, 16, 50):
        check_pixels(store, read_folder(images))
        assert store.dropped.to_dict("records") == [
            {
                "source": "small",
                "image": "007.png",
                "path": str(images / "007.png"),
                "reason": "not a PNG, JPEG or DICOM image",
            }
        ]
        assert len(store.paths) > 1


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_number_of_threads_changes_no_byte(images: Path, cache: Path, workers: int) -> None:
    prepare(images, cache / "wanted", SIDE, 16, workers=3)
    prepare(images, cache, SIDE, 16, workers=workers)
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


def test_neither_the_order_of_rows_nor_of_sizes_changes_a_byte(images: Path, cache: Path) -> None:
    index = read_folder(images)
    prepare_stores(index, "small", [SIDE, 16], "pad", cache / "wanted")
    mixed = index.sample(frac=1, random_state=0).reset_index(drop=True)
    stores = [prepare_stores(mixed, "small", [size], "pad", cache)[0] for size in (16, SIDE, 16)]
    assert [store.size for store in stores] == [16, SIDE, 16]
    for store in stores:
        check_pixels(store, mixed)
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


def test_one_decode_serves_all_sizes(images: Path, cache: Path) -> None:
    with count_decodes() as decoded:
        prepare(images, cache, SIDE, 16, 32, SIDE)
    assert len(decoded) == len(set(decoded)) == 36


# History


def add(images: Path) -> None:
    write_images(images, 3, first=40)


def remove_and_add(images: Path) -> None:
    (images / "003.png").unlink()
    (images / "007.png").unlink()
    write_images(images, 1, first=40)


def touch(images: Path) -> None:
    for path in images.iterdir():
        os.utime(path, ns=(1, 1))


def mend(images: Path) -> None:
    write_images(images, 1, first=7)


def spoil(images: Path) -> None:
    (images / "005.png").write_bytes(bytes((images / "005.png").stat().st_size))
    os.utime(images / "005.png", ns=(1, 1))


HISTORIES: dict[str, Callable[[Path], None]] = {
    "images added": add,
    "images removed and added": remove_and_add,
    "an image changed": grow,
    "an image changed, and not its time": grow_at_the_same_time,
    "an image changed, of the same length": exchange,
    "all touched": touch,
    "a bad one mended": mend,
    "a good one spoiled": spoil,
}


@pytest.mark.parametrize("name", HISTORIES)
def test_shards_with_a_change_are_decoded_and_no_others(images: Path, cache: Path, name: str) -> None:
    before = [read_rows(store) for store in prepare(images, cache, SIDE, 16)]
    HISTORIES[name](images)
    with count_decodes() as decoded:
        changed = prepare(images, cache, SIDE, 16)
    after = [read_rows(store) for store in changed]
    pairs = [(old.get(number), rows) for old, new in zip(before, after, strict=True) for number, rows in new.items()]
    assert len(decoded) == len({row for old_rows, rows in pairs if rows != old_rows for row in rows})
    index = read_folder(images)
    with count_decodes() as decoded:
        again = prepare(images, cache, SIDE, 16)
    assert decoded == []
    wanted = prepare(images, cache / "wanted", SIDE, 16)
    for store, same, fresh in zip(changed, again, wanted, strict=True):
        pd.testing.assert_frame_equal(store.dropped, fresh.dropped)
        np.testing.assert_array_equal(store.positions, fresh.positions)
        good = fresh.positions[fresh.positions >= 0]
        np.testing.assert_array_equal(store.take(good), fresh.take(good))
        np.testing.assert_array_equal(same.take(good), fresh.take(good))
        if name != "an image changed, of the same length":
            check_pixels(store, index)
    assert read_tree(find_folder(changed[0])) == read_tree(find_folder(wanted[0]))
    assert [fault for folder in list_stores(cache) for fault in verify_store(folder)] == []


def read_rows(store: Store) -> dict[int, list[str]]:
    """Name and hash of each file of each shard."""
    folder = store.paths[0].parent
    manifest = read_manifest(folder)
    table = read_image_table(folder, manifest)
    rows = iter((table["image"] + table["sha256"]).tolist())
    return {shard.number: list(islice(rows, shard.n_rows)) for shard in manifest.shards}


def test_shards_without_a_change_are_not_even_read(images: Path, cache: Path) -> None:
    [old] = prepare(images, cache)
    first = set(read_order(old)[:10])
    for name in first:
        status = (images / name).stat()
        (images / name).write_bytes(bytes(status.st_size))
        os.utime(images / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    grow(images)
    assert "003.png" not in first
    [store] = prepare(images, cache)
    check_pixels(store, read_folder(images))


def test_a_change_is_seen_at_every_size(images: Path, cache: Path) -> None:
    prepare(images, cache, SIDE, 16)
    exchange(images)
    prepare(images, cache, SIDE)
    [store] = prepare(images, cache, 16)
    row = read_folder(images)["image"].tolist().index("003.png")
    np.testing.assert_array_equal(store.take([store.positions[row]])[0], resize_square(stores.draw_noise(5), 16, "pad"))


def test_another_size_decodes_once_more_and_leaves_the_first_alone(images: Path, cache: Path) -> None:
    prepare(images, cache, SIDE)
    before = {path: path.stat() for path in (list_stores(cache)[0] / str(SIDE)).iterdir()}
    with count_decodes() as decoded:
        prepare(images, cache, SIDE, 16)
    assert len(decoded) == 36
    assert {path: path.stat() for path in (list_stores(cache)[0] / str(SIDE)).iterdir()} == before


def test_images_of_another_shape_are_not_taken_over(images: Path, cache: Path) -> None:
    for number in range(36):
        Image.fromarray(stores.draw_noise(number)[:12]).save(images / f"{number:03d}.png")
    index = read_folder(images)
    for resize in ("stretch", "pad", "crop"):
        with count_decodes() as decoded:
            [store] = prepare_stores(index, "small", [SIDE], resize, cache)  # type: ignore[arg-type]
        assert len(decoded) == 36
        wanted = resize_square(stores.draw_noise(5)[:12], SIDE, resize)  # type: ignore[arg-type]
        np.testing.assert_array_equal(store.take([store.positions[5]])[0], wanted)


def test_files_that_moved_are_not_decoded_again(images: Path, cache: Path) -> None:
    prepare(images, cache)
    moved = read_folder(images).assign(file=lambda index: "elsewhere/" + index["image"])
    with count_decodes() as decoded:
        [store] = prepare_stores(moved, "small", [SIDE], "pad", cache)
    assert decoded == []
    assert len(list_stores(cache)) == 2
    assert "elsewhere/001.png" in (find_folder(store) / "files.csv").read_text()


# Stores of the same data set share files


def test_shards_that_stay_the_same_are_the_same_file(images: Path, cache: Path) -> None:
    [old] = prepare(images, cache)
    write_images(images, 1, first=40)
    [new] = prepare(images, cache)
    shared = {path.name for path in old.paths} & {path.name for path in new.paths}
    assert len(shared) == len(old.paths) - 1 > 0
    for path in new.paths:
        assert path.stat().st_nlink == 1 + (path.name in shared)


def test_a_store_that_comes_back_takes_over_nothing_of_what_is_newer(images: Path, cache: Path) -> None:
    """The files are of their first length again, and one has another content."""
    prepare(images, cache)
    write_images(images, 1, first=40)
    exchange(images)
    [more] = prepare(images, cache)
    (images / "040.png").unlink()
    [store] = prepare(images, cache)
    assert find_folder(store) != find_folder(more)
    [fresh] = prepare(images, cache / "fresh")
    assert read_tree(find_folder(store)) == read_tree(find_folder(fresh))


def test_a_store_outlives_the_one_that_it_came_from(images: Path, cache: Path) -> None:
    [old] = prepare(images, cache)
    write_images(images, 1, first=40)
    [new] = prepare(images, cache)
    shutil.rmtree(find_folder(old))
    assert verify_store(find_folder(new)) == []
    check_pixels(new, read_folder(images))


def test_an_update_in_one_store_does_not_show_in_the_other(images: Path, cache: Path) -> None:
    index = read_folder(images)
    [old] = prepare(images, cache)
    write_images(images, 1, first=40)
    prepare(images, cache)
    before = read_tree(find_folder(old))
    exchange(images)
    [new] = prepare(images, cache)
    assert find_folder(new) != find_folder(old)
    assert read_tree(find_folder(old)) == before
    assert verify_store(find_folder(old)) == verify_store(find_folder(new)) == []
    check_pixels(old, index)


def test_without_hard_links_all_is_decoded_again(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(images, cache)
    write_images(images, 1, first=40)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with count_decodes() as decoded:
        [store] = prepare(images, cache)
    assert len(decoded) == 37
    check_pixels(store, read_folder(images))
    assert {path.stat().st_nlink for path in store.paths} == {1}


def test_damage_is_not_handed_on(images: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [old] = prepare(images, cache)
    assert np.diff(old.starts).tolist() == [10, 6, 10, 9]
    flip_byte(old.paths[2], -5)
    write_images(images, 1, first=40)
    with count_decodes() as decoded:
        [new] = prepare(images, cache)
    assert len(decoded) == 11 + 10  # those that the new one stands among, and the damaged ones
    assert "is damaged: its images are decoded again" in capsys.readouterr().out
    check_pixels(new, read_folder(images))
    assert verify_store(find_folder(new)) == []


# What is left out


def test_all_images_bad(tmp_path: Path, cache: Path) -> None:
    images = write_images(tmp_path / "images", 5, bad=(0, 1, 2, 3, 4))
    for _ in range(2):
        with pytest.raises(DataError, match=r"^small: none of the 5 images can be decoded; 000\.png: not a PNG"):
            prepare(images, cache, SIDE, 16)
    write_images(images, 5)
    [store] = prepare(images, cache)
    check_pixels(store, read_folder(images))


def test_a_shard_without_a_good_image(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    order = read_order(store)
    first = order[: int(store.starts[1]) + 1]
    write_images(images, 36, bad=tuple(int(name[:3]) for name in first))
    [store] = prepare(images, cache)
    assert store.starts[:2].tolist() == [0, 0]
    assert set(first) <= set(store.dropped["image"])
    assert len(store.dropped) == len(first)
    check_pixels(store, read_folder(images))
    assert verify_store(find_folder(store)) == []
    with count_decodes() as decoded:
        prepare(images, cache)
    assert decoded == []


def read_order(store: Any) -> list[str]:
    [table] = store.paths[0].parent.glob("images*.csv")
    return pd.read_csv(table)["image"].tolist()


def test_reasons_of_any_text_are_a_line_each(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ['a, "b", c', "a\nb\r\nc", "\r", "", "Röntgen ☢ ‮x", "a\x1b[31mred\x00", "  ", "NA", "'=1+1"]

    def decode(content: bytes) -> Any:
        pixels = decode_pixels(content)
        number = next(number for number in range(36) if (stores.draw_noise(number) == pixels).all())
        if number < len(reasons):
            raise ValueError(reasons[number])
        return pixels

    write_images(images, 36)
    with monkeypatch.context() as patched:
        patched.setattr(build, "decode_image", lambda content: decode_image(content)._replace(pixels=decode(content)))
        [store] = prepare(images, cache)
    wanted = ['a, "b", c', "a b c", "ValueError", "ValueError", "Röntgen ☢ x", "a [31mred", "ValueError", "NA", "'=1+1"]
    for again in (store, prepare(images, cache)[0]):
        assert again.dropped["reason"].tolist() == wanted
        assert again.dropped["image"].tolist() == [f"{number:03d}.png" for number in range(len(reasons))]
        check_pixels(again, read_folder(images))


ODD_NAMES = ["a,b.png", 'quote".png', "'.png", " .png", "NA", "nan", "None", "Röntgen ☢.png", "=1+1.png", "-1", "1e5",
             "a#b", "*.png", "[0].png", "%41.png", "null", "True", "0001", "1.0", "x" * 240]  # fmt: skip


def test_names_of_any_kind(tmp_path: Path, cache: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(ODD_NAMES):
        Image.fromarray(stores.draw_noise(number)).save(images / name, "PNG")
    index = read_folder(images)
    index["file"] = "a\r,\n\"folder'/" + index["image"]
    for _ in range(2):
        [store] = prepare_stores(index, "small", [SIDE], "pad", cache)
        for position, name in zip(store.positions, index["image"], strict=True):
            np.testing.assert_array_equal(store.take([position])[0], stores.draw_noise(ODD_NAMES.index(name)), name)
    some = index[3:9].reset_index(drop=True)
    [part] = prepare_stores(some, "small", [SIDE], "pad", cache)
    assert find_folder(part) == find_folder(store)
    assert verify_store(find_folder(store)) == []
    with count_decodes() as decoded:
        prepare_stores(index.assign(file="x"), "small", [SIDE], "pad", cache)
    assert decoded == []


# What goes wrong on the way


def test_a_build_that_stopped_goes_on_where_it_was(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(images, cache / "wanted", SIDE, 16)
    decoded: list[bytes] = []

    def stop(content: bytes) -> Any:
        decoded.append(content)
        if len(decoded) == 27:
            raise ConfigError("DICOM images need pip install cxrlit[dicom]")
        return decode_pixels(content)

    with monkeypatch.context() as patched:
        patched.setattr(build, "decode_image", lambda content: decode_image(content)._replace(pixels=stop(content)))
        with pytest.raises(ConfigError, match="DICOM images need"):
            prepare(images, cache, SIDE, 16, workers=1)
    assert not [path for path in cache.rglob(".*") if path.suffix != ".lock"]
    with count_decodes() as again:
        prepare(images, cache, SIDE, 16, workers=1)
    assert len(again) < 27
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


def test_files_that_change_while_a_build_is_interrupted(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(images, 36)
    order = shards.order_files(read_folder(images))[0]["image"].tolist()
    last = decode_pixels((images / order[-1]).read_bytes()).tobytes()

    def stop(content: bytes) -> Any:
        pixels = decode_pixels(content)
        if pixels.tobytes() == last:
            raise ConfigError("stop")
        return pixels

    for name in (order[2], order[20]):
        with monkeypatch.context() as patched:
            patched.setattr(build, "decode_image", lambda content: decode_image(content)._replace(pixels=stop(content)))
            with pytest.raises(ConfigError):
                prepare(images, cache)
        (images / name).write_bytes((images / order[5]).read_bytes())
        os.utime(images / name, ns=(1, 1))
    with count_decodes() as decoded:
        prepare(images, cache)
    assert len(decoded) == 10 + 10  # the last shard, and that of the last change
    prepare(images, cache / "wanted")
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


@pytest.mark.parametrize("what", ["shard", "note"])
def test_damage_while_a_build_is_interrupted(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def stop(content: bytes) -> Any:
        if list(cache.rglob("shard-*.csv")):
            raise ConfigError("stop")
        return decode_pixels(content)

    with monkeypatch.context() as patched:
        patched.setattr(build, "decode_image", lambda content: decode_image(content)._replace(pixels=stop(content)))
        with pytest.raises(ConfigError):
            prepare(images, cache, workers=1)
    suffix = {"shard": "npy", "note": "csv"}[what]
    [damaged] = cache.rglob(f"shard-000-*.{suffix}")
    flip_byte(damaged, -1) if what == "shard" else damaged.write_bytes(b"image,sha256,reason,mtime_ns\nx,y")
    prepare(images, cache)
    prepare(images, cache / "wanted")
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


def test_a_file_that_changes_under_the_index(images: Path, cache: Path) -> None:
    index = read_folder(images)
    grow(images)
    with pytest.raises(DataError, match=r"003\.png: it was written while the images were prepared: start again"):
        prepare_stores(index, "small", [SIDE], "pad", cache)
    [store] = prepare(images, cache)
    check_pixels(store, read_folder(images))


def test_a_file_that_goes_away_under_the_index(images: Path, cache: Path) -> None:
    index = read_folder(images)
    (images / "003.png").unlink()
    with pytest.raises(DataError, match=r"003\.png: cannot be read: No such file"):
        prepare_stores(index, "small", [SIDE], "pad", cache)


def test_what_gets_its_name_is_on_the_disk(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    replace, renamed = os.replace, []

    def rename(old: Path, new: Path) -> None:
        assert str(old) in synced, f"{new} is renamed before its bytes are on the disk"
        if Path(new).suffix == ".csv" and Path(new).name.startswith("shard"):
            assert str(Path(new).with_suffix(".npy")) in renamed, "a note vouches for a shard that has no name yet"
        renamed.append(str(new))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    monkeypatch.setattr(os, "replace", rename)
    [store] = prepare(images, cache)
    assert {str(path) for path in store.paths} <= set(renamed)
    assert Path(renamed[-1]).name == "seen.csv"
    assert str(store.paths[0].parent) in synced


def test_leftovers_of_dead_processes_are_swept(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    folder = find_folder(store)
    before = read_tree(folder)
    for name in (".files-0123abcd.csv", f"{SIDE}/.shard-000.npy", f"{SIDE}/.seen-01.csv"):
        (folder / name).write_bytes(b"left")
    (folder / str(SIDE) / "shard-999-0123456789ab.npy").write_bytes(b"left")
    (folder / str(SIDE) / "shard-001-0123456789ab.csv").write_bytes(b"image,sha256\nleft")
    (folder / str(SIDE) / ".ipynb_checkpoints").mkdir()
    os.utime(images / "003.png", ns=(1, 1))
    prepare(images, cache)
    assert read_tree(folder) == before
    (folder / str(SIDE) / ".ipynb_checkpoints").rmdir()


def test_a_disk_without_the_space(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000})())
    with pytest.raises(DataError, match=r"the store needs 0\.0 GiB more and the disk has 0\.0 GiB left: make room"):
        prepare(images, cache)
    [folder] = list_stores(cache)
    assert not list(folder.rglob("*.npy"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 36 * SIDE**2})())
    prepare(images, cache)


FULL = """
import resource, sys
from pathlib import Path
from stores import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
from cxrlit.core.errors import DataError
try:
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), 256)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_disk_that_fills_up(images: Path, cache: Path, limit: int) -> None:
    """The first limit stops the first table, the second a shard."""
    prepare(images, cache / "wanted", 256)
    done = run_python(FULL, str(images), str(cache), str(limit))
    assert "File too large: make room, or set cache_dir to another disk" in done
    assert not [path for path in cache.rglob(".*") if path.suffix != ".lock" and path.stat().st_size]
    prepare(images, cache, 256)
    assert read_tree(cache / "store") == read_tree(cache / "wanted" / "store")


def run_python(code: str, *arguments: str) -> str:
    """What a script in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_that_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cache"):
        prepare(images, tmp_path / "cache")


def test_decoding_stops_at_the_first_fault(tmp_path: Path, cache: Path) -> None:
    images = write_images(tmp_path / "images", 200)
    index = read_folder(images)
    (images / read_first(index)).unlink()
    before = threading.enumerate()
    with count_decodes() as decoded, pytest.raises(DataError, match="cannot be read"):
        prepare_stores(index, "small", [SIDE], "pad", cache, 2)
    assert len(decoded) < 100
    assert set(threading.enumerate()) <= set(before)


def read_first(index: pd.DataFrame) -> str:
    return str(shards.order_files(index)[0]["image"].iloc[0])


# Large ones


def test_many_shards(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    images = write_images(tmp_path / "images", 600)
    [store] = prepare(images, cache)
    assert 200 < len(store.paths) <= 256
    check_pixels(store, read_folder(images))


def test_shards_are_about_as_large_as_they_should_be() -> None:
    keys = np.sort(np.random.default_rng(0).integers(0, 2**64, 112_120, dtype=np.uint64))
    for size in (16, 224, 320):
        bytes_of = [(rows.stop - rows.start) * size**2 for rows in shards.divide_into_shards(keys, size).values()]
        assert sum(bytes_of) == len(keys) * size**2
        assert max(bytes_of) < 1.3 * SMALL_SHARD or len(bytes_of) == 256
    shards.SHARD_BYTES = 48 * 2**20  # the fixture puts it back
    bytes_of = [(rows.stop - rows.start) * 224**2 for rows in shards.divide_into_shards(keys, 224).values()]
    assert 20 * 2**20 < min(bytes_of) <= max(bytes_of) < 52 * 2**20


MEMORY = """
import sys
from pathlib import Path
from fuzzing import measure_peak
from stores import prepare
before = measure_peak()
prepare(Path(sys.argv[1]), Path(sys.argv[2]), 512, 300)
print(measure_peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, cache: Path) -> None:
    peaks = []
    for n_images in (100, 1500):
        images = write_images(tmp_path / f"images-{n_images}", n_images)
        peaks.append(float(run_python(MEMORY, str(images), str(cache / str(n_images))).splitlines()[-1]))
    assert sum(path.stat().st_size for path in cache.rglob("*.npy")) > 500 * 2**20
    assert peaks[1] < peaks[0] + 50, peaks
    assert peaks[1] < 200, peaks


FUZZ = """
import sys
from pathlib import Path
import pandas as pd
from fuzzing import hash_pixels, measure_peak
from cxrlit.data.store.builder import prepare_stores
index = pd.read_csv(sys.argv[1])
[store] = prepare_stores(index, "fuzz", [64], "pad", Path(sys.argv[2]))
pixels = ["" if position < 0 else hash_pixels(store.take([position])[0]) for position in store.positions]
index.assign(pixels=pixels).to_csv(sys.argv[1], index=False)
store.dropped.to_csv(sys.argv[1] + ".dropped", index=False)
print(measure_peak())
"""


@pytest.mark.slow
def test_1000_damaged_images(tmp_path: Path, cache: Path) -> None:
    damaged = write_damaged_images(tmp_path / "images", 1000, seed=1)
    files, rows = DiskFiles(tmp_path / "images"), []
    for name in damaged["file"]:
        found = files.find(name)
        if not isinstance(found, str):
            path, n_bytes, mtime_ns = found
            rows.append((name, path, name, n_bytes, mtime_ns))
    index = pd.DataFrame(rows, columns=["image", "path", "file", "n_bytes", "mtime_ns"]).assign(source="fuzz")
    assert len(index) > 980
    index.to_csv(tmp_path / "index.csv", index=False)
    peak = float(run_python(FUZZ, str(tmp_path / "index.csv"), str(cache)).splitlines()[-1])
    assert peak < 1024
    outcome = pd.read_csv(tmp_path / "index.csv", keep_default_na=False).merge(
        damaged, left_on="image", right_on="file"
    )
    assert (outcome["good"] == (outcome["pixels"] != "")).all()
    dropped = pd.read_csv(tmp_path / "index.csv.dropped", keep_default_na=False)
    assert set(dropped["image"]) == set(outcome.loc[~outcome["good"], "image"])
    assert dropped["reason"].str.len().gt(4).all()
    for row in outcome[outcome["good"]].sample(50, random_state=0).itertuples():
        pixels = decode_pixels(Path(row.path).read_bytes())
        assert hash_pixels(resize_square(pixels, 64, "pad")) == row.pixels
