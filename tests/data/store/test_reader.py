"""A store that is open: the right pixels at the right place, shared by processes; damage is noticed, and mended."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from PIL import Image
from stores import (
    SIDE,
    SMALL_SHARD,
    check_pixels,
    count_decodes,
    find_folder,
    flip_byte,
    prepare,
    read_folder,
    read_tree,
    write_images,
)

from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.builder import prepare_stores
from cxrlit.data.store.reader import Store, join_stores, verify_store

Damage = Callable[[Store], object]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of a few images; and no waiting for the disk, which only a power cut would show."""
    monkeypatch.setattr(shards, "SHARD_BYTES", SMALL_SHARD)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images, of which the eighth is none, and ``cache`` with their store in 4 shards; not to be changed."""
    folder = tmp_path_factory.mktemp("pristine")
    write_images(folder / "images", 36, bad=(7,))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "SHARD_BYTES", SMALL_SHARD)
        prepare(folder / "images", folder / "cache", SIDE, 16)
    return folder


@pytest.fixture
def images(pristine: Path) -> Path:
    return pristine / "images"


@pytest.fixture
def cache(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(pristine / "cache", tmp_path / "cache")
    return tmp_path / "cache"


# Reading


def test_read_and_take(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    index = read_folder(images)
    check_pixels(store, index)
    good = store.positions[store.positions >= 0]
    batch = store.take(good[::-1])
    assert (batch.shape, batch.dtype) == ((35, SIDE, SIDE), np.uint8)
    for image, position in zip(batch, good[::-1], strict=True):
        np.testing.assert_array_equal(image, store.take([position])[0])
    assert store.take([]).shape == (0, SIDE, SIDE)
    assert batch.flags.writeable


@pytest.mark.parametrize("position", [-1, 35, -36, 10**9])
def test_there_is_no_image_outside(images: Path, cache: Path, position: int) -> None:
    [store] = prepare(images, cache)
    with pytest.raises(IndexError, match="there is no image at"):
        store.take([0, position])


def test_a_store_cannot_be_changed_by_its_readers(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    store.take(range(35))[:] = 0
    check_pixels(store, read_folder(images))


def test_any_numpy_reads_a_shard(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    joined = np.concatenate([np.load(path) for path in store.paths])
    np.testing.assert_array_equal(joined, store.take(range(35)))


def read_elsewhere(store: Store) -> Any:
    return store.take(range(35))


def test_it_goes_to_another_process_as_paths(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    wanted = store.take(range(35))
    assert len(pickle.dumps(store)) < 10_000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(read_elsewhere, store).result(), wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).take(range(35)), wanted)


def test_several_stores_as_one(images: Path, cache: Path, tmp_path: Path) -> None:
    others = write_images(tmp_path / "others", 20, first=100, bad=(103, 119))
    one, two = prepare(images, cache)[0], prepare(others, cache)[0]
    places = np.random.default_rng(0).permutation(56)
    both = join_stores([one, two], [np.sort(places[:36]), np.sort(places[36:])])
    rows = dict(zip(np.sort(places[:36]), read_folder(images)["image"], strict=True))
    rows |= dict(zip(np.sort(places[36:]), read_folder(others)["image"], strict=True))
    bad = [rows[row] for row in range(56) if both.positions[row] < 0]
    assert set(both.dropped["image"]) == set(bad) == {"007.png", "103.png", "119.png"}
    for row in range(56):
        if both.positions[row] >= 0:
            drawn = stores.draw_noise(int(rows[row][:3]))
            np.testing.assert_array_equal(both.take([both.positions[row]])[0], drawn, rows[row])
    assert len(np.unique(both.positions[both.positions >= 0])) == 53
    assert len(both.list_shards()) == len(one.paths) + len(two.paths)
    assert both.take([both.starts[-1] - 1]).shape == (1, SIDE, SIDE)


def test_it_knows_the_bytes_of_the_files_of_its_index(tmp_path: Path) -> None:
    images, cache = write_images(tmp_path / "images", 12), tmp_path / "cache"
    [store] = prepare(images, cache)
    path = images / "003.png"
    content = path.read_bytes()
    path.write_bytes((images / "005.png").read_bytes())  # of the same size
    [changed] = prepare(images, cache)
    assert changed.files_sha256 != store.files_sha256
    path.write_bytes(content)
    for folder in (cache, tmp_path / "another cache"):
        assert prepare(images, folder)[0].files_sha256 == store.files_sha256
    path.unlink()
    assert prepare(images, cache)[0].files_sha256 not in {store.files_sha256, changed.files_sha256}


def test_which_shards_some_images_need(images: Path, cache: Path) -> None:
    [whole] = prepare(images, cache)
    index = read_folder(images)
    in_second = (whole.positions >= whole.starts[1]) & (whole.positions < whole.starts[2])
    rows = index[in_second | (index["image"] == "007.png")].reset_index(drop=True)
    [part] = prepare_stores(rows, "small", [SIDE], "pad", cache)
    assert part.list_shards() == [1]
    for path in (*whole.paths[:1], *whole.paths[2:]):
        path.unlink()
    [part] = prepare_stores(rows, "small", [SIDE], "pad", cache)
    check_pixels(part, rows)


DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
import numpy as np
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.reader import join_stores
from stores import draw_noise, prepare, read_folder
shards.SHARD_BYTES = 1
images, cache = Path(sys.argv[1]), Path(sys.argv[2])
[store] = prepare(images, cache)
index = read_folder(images)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
places = np.arange(5 * len(index)).reshape(5, -1)
many = join_stores([store] * 5, list(places))
assert len(many.paths) > 1000
for position, image in zip(many.positions, [*index["image"]] * 5):
    assert (many.take([position])[0] == draw_noise(int(image[:3]))).all()
print(len(os.listdir("/proc/self/fd")))
"""


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 600)
    done = subprocess.run(
        [sys.executable, "-c", DESCRIPTORS, str(images), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": f"{Path(stores.__file__).parent}:{Path(stores.__file__).parents[2]}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 500


def test_a_shard_that_goes_away_while_it_is_used(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache)
    store.paths[1].unlink()
    store.take([0])
    with pytest.raises(DataError, match=r"shard-001-\w+\.npy: No such file .* Start again"):
        store.take([0, store.starts[1]])
    store.take(range(store.starts[2], store.starts[3]))
    os.truncate(store.paths[2], store.paths[2].stat().st_size - 1)
    with pytest.raises(DataError, match=r"shard-002-\w+\.npy: it is too short: .* Start again"):
        store.take([store.starts[3] - 1])


def test_threads_share_a_store(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While each closes shards that the others read from."""
    monkeypatch.setattr("cxrlit.data.store.reader.MAX_OPEN", 2)
    [store] = prepare(images, cache)
    wanted = store.take(range(35))
    orders = [np.random.default_rng(seed).permutation(35) for seed in range(200)]
    with ThreadPoolExecutor(2) as pool:
        for order, taken in zip(orders, pool.map(store.take, orders), strict=True):
            np.testing.assert_array_equal(taken, wanted[order])


# Damage


def cut(store: Store) -> None:
    os.truncate(store.paths[1], store.paths[1].stat().st_size - 1)


def lengthen(store: Store) -> None:
    with store.paths[1].open("ab") as file:
        file.write(b"\0")


def replace_by_floats(store: Store) -> None:
    """The same number of bytes, of another type."""
    n_bytes = store.paths[1].stat().st_size
    np.save(store.paths[1], np.zeros((n_bytes - 128) // 4, np.float32))
    assert store.paths[1].stat().st_size == n_bytes


def replace_by_another_shape(store: Store) -> None:
    images = np.load(store.paths[1])
    np.save(store.paths[1], images.reshape(len(images), SIDE // 2, SIDE * 2))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def find_table(store: Store) -> Path:
    [table] = store.paths[0].parent.glob("images*.csv")
    return table


def find_manifest(store: Store) -> Path:
    return store.paths[0].parent / "manifest.json"


def swap_lines(store: Store) -> None:
    header, *lines = find_table(store).read_text().splitlines()
    find_table(store).write_text("\n".join([header, *reversed(lines)]) + "\n")


def exchange_shards(store: Store) -> None:
    """Two shards of the same length under each other's names."""
    assert store.paths[0].stat().st_size == store.paths[2].stat().st_size
    os.rename(store.paths[0], store.paths[0].parent / "aside")
    os.rename(store.paths[2], store.paths[0])
    os.rename(store.paths[0].parent / "aside", store.paths[2])


def fill_json(store: Store) -> None:
    find_manifest(store).write_text(json.dumps({"version": ["x" * 1000] * 10_000}))


NOTICED: dict[str, tuple[Damage, str]] = {
    "shard cut": (cut, r"shard-001-\w+.npy is damaged"),
    "shard empty": (lambda store: store.paths[1].write_bytes(b""), r"shard-001-\w+.npy is damaged"),
    "shard longer": (lengthen, r"shard-001-\w+.npy is damaged"),
    "shard missing": (lambda store: store.paths[1].unlink(), r"shard-001-\w+.npy is missing"),
    "shard of floats": (replace_by_floats, r"shard-001-\w+.npy is damaged"),
    "shard of another shape": (replace_by_another_shape, r"shard-001-\w+.npy is damaged"),
    "table of images in another order": (swap_lines, r"images-\w+.csv is damaged"),
    "table of images missing": (lambda store: find_table(store).unlink(), r"images-\w+.csv is missing"),
    "table of images empty": (lambda store: find_table(store).write_text(""), r"images-\w+.csv is damaged"),
    "manifest cut": (lambda store: find_manifest(store).write_text("{"), "manifest.json is damaged"),
    "manifest of another kind": (lambda store: find_manifest(store).write_text("[]"), "manifest.json is damaged"),
    "manifest deep": (lambda store: find_manifest(store).write_text("[" * 100_000), "manifest.json is damaged"),
    "manifest huge": (fill_json, "manifest.json is larger than 1 MiB"),
    "manifest of another version": (lambda store: edit_json(find_manifest(store), version=1), "is of version 1, this"),
    "manifest of another size": (lambda store: edit_json(find_manifest(store), size=16), "is of other images"),
    "manifest of other data": (lambda store: edit_json(find_manifest(store), source="x"), "is of other images"),
    "manifest without shards": (
        lambda store: edit_json(find_manifest(store), shards=[], n_images=0, n_dropped=0),
        "images-.* is damaged",
    ),
    "files missing": (lambda store: (find_folder(store) / "files.csv").unlink(), "files.csv is missing"),
    "store.json missing": (lambda store: (find_folder(store) / "store.json").unlink(), "store.json is missing"),
    "store.json of other data": (
        lambda store: edit_json(find_folder(store) / "store.json", source="other"),
        "store.json is damaged",
    ),
}


@pytest.mark.parametrize("name", NOTICED)
def test_what_opening_notices_is_said_and_mended(
    images: Path, cache: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = NOTICED[name]
    [store] = prepare(images, cache, SIDE)
    before = read_tree(find_folder(store))
    damage(store)
    with count_decodes() as decoded:
        [mended] = prepare(images, cache, SIDE)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(message, said), said
    assert "prepared anew" in said
    assert read_tree(find_folder(mended)) == before
    check_pixels(mended, read_folder(images))
    assert len(decoded) <= (6 if name.startswith("shard") else 36)


@pytest.mark.parametrize("name", ["shard-001-*", "images-*", "manifest.json", "../files.csv", "../store.json"])
@pytest.mark.parametrize("what", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_at_once(images: Path, cache: Path, name: str, what: Callable[[Path], None]) -> None:
    [store] = prepare(images, cache, SIDE)
    [path] = (find_folder(store) / str(SIDE)).glob(name)
    path.unlink()
    what(path)
    with pytest.raises(DataError, match=rf"{re.escape(path.name)}: cannot be read: not a file$"):
        prepare(images, cache, SIDE)


SILENT: dict[str, Damage] = {
    "pixel": lambda store: flip_byte(store.paths[2], -100),
    "first pixel": lambda store: flip_byte(store.paths[2], 128),
    "hash of a shard": lambda store: change_hash(store),
    "two shards exchanged": exchange_shards,
}


def change_hash(store: Store) -> None:
    """The last digit, which is not in the shard's name."""
    shards = json.loads(find_manifest(store).read_text())["shards"]
    digest = shards[2]["sha256"]
    shards[2]["sha256"] = digest[:-1] + ("1" if digest[-1] == "0" else "0")
    edit_json(find_manifest(store), shards=shards)


@pytest.mark.parametrize("name", SILENT)
def test_what_only_verifying_finds_is_removed_and_mended(images: Path, cache: Path, name: str) -> None:
    [store] = prepare(images, cache, SIDE)
    before = read_tree(find_folder(store))
    SILENT[name](store)
    faults = verify_store(find_folder(store))
    n_shards = 2 if name == "two shards exchanged" else 1
    assert len(faults) == n_shards
    assert all(fault.endswith(".npy is damaged, and was removed") for fault in faults), faults
    assert len(verify_store(find_folder(store))) == n_shards  # they are missing now
    with count_decodes() as decoded:
        [mended] = prepare(images, cache, SIDE)
    assert len(decoded) == 10 * n_shards
    check_pixels(mended, read_folder(images))
    assert verify_store(find_folder(store)) == []
    assert read_tree(find_folder(store)) == before


@pytest.mark.parametrize("kind", ["shard", "images", "manifest.json", "store.json", "files.csv", "seen.csv"])
def test_no_flipped_byte_is_ever_read(images: Path, cache: Path, kind: str, tmp_path: Path) -> None:
    """After a verification and another run every byte is as it was; without a verification it is an image's own."""
    [store] = prepare(images, cache, SIDE)
    index, wanted = read_folder(images), read_tree(find_folder(store))
    rng = np.random.default_rng(0)
    for number in range(12):
        damaged = tmp_path / f"damaged-{number}"
        shutil.copytree(cache, damaged)
        folder = damaged / "store" / find_folder(store).name
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name.startswith(kind)]
        path = paths[rng.integers(len(paths))]
        flip_byte(path, int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8)))
        if kind != "shard":
            for again in prepare_stores(index, "small", [SIDE, 16], "pad", damaged):
                check_pixels(again, index)
        if kind != "seen.csv":
            verify_store(folder)
        prepare_stores(index, "small", [SIDE, 16], "pad", damaged)
        assert verify_store(folder) == []
        assert read_tree(folder) == wanted, path
        shutil.rmtree(damaged)


def test_a_whole_store_has_no_fault(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache, SIDE)
    assert verify_store(find_folder(store)) == []


def test_verifying_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no prepared store in it"):
        verify_store(tmp_path)


def test_verifying_checks_every_size_and_every_file(images: Path, cache: Path) -> None:
    one, two = prepare(images, cache, SIDE, 16)
    flip_byte(one.paths[0], -1)
    flip_byte(two.paths[1], -1)
    flip_byte(find_folder(one) / "files.csv", 30)
    assert len(verify_store(find_folder(one))) == 3


def test_times_are_not_part_of_a_store(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache, SIDE)
    (find_folder(store) / str(SIDE) / "seen.csv").unlink()
    assert verify_store(find_folder(store)) == []
    with count_decodes() as decoded:
        prepare(images, cache, SIDE)
    assert decoded == []


def test_a_size_that_is_interrupted_hides_no_other(images: Path, cache: Path) -> None:
    [store] = prepare(images, cache, SIDE)
    shutil.rmtree(find_folder(store) / "16")
    (find_folder(store) / "16").mkdir()
    check_pixels(prepare(images, cache, SIDE)[0], read_folder(images))
    assert len(verify_store(find_folder(store))) == 1
    check_pixels(prepare(images, cache, 16)[0], read_folder(images))
    assert verify_store(find_folder(store)) == []


@pytest.mark.slow
def test_the_real_sample_decodes(nih_sample: Path, tmp_path: Path) -> None:
    index = read_nih(nih_sample, DiskFiles(nih_sample), LABELS).index
    [store] = prepare_stores(index, "nih", [64], "pad", tmp_path)
    assert store.dropped.empty
    images = store.take(store.positions)
    assert images.reshape(len(index), -1).std(axis=1).min() > 5
    for row in range(0, len(index), 100):
        with Image.open(index["path"][row]) as original:
            gray = np.asarray(original.convert("RGB"))[..., 0].astype(float)
        scale = len(gray) // 64
        wanted = gray.reshape(64, scale, 64, scale).mean(axis=(1, 3))
        np.testing.assert_allclose(images[row], wanted, atol=0.51)
