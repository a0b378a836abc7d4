"""Which store serves: that of the same files as they are now, or one of more of them, and none that is of others."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stores import (
    SIDE,
    SMALL_SHARD,
    check_pixels,
    count_decodes,
    exchange,
    find_folder,
    grow,
    grow_at_the_same_time,
    list_stores,
    prepare,
    read_folder,
    read_tree,
    write_images,
)

from cxrlit.core import files
from cxrlit.core.files import open_descriptor
from cxrlit.data.store import builder as build
from cxrlit.data.store import find_store as serve
from cxrlit.data.store import manifest as records
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.builder import prepare_stores


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


def test_an_open_store_reads_no_image(images: Path, cache: Path) -> None:
    index = read_folder(images)
    prepare_stores(index, "small", [SIDE], "pad", cache)
    shutil.rmtree(images)
    [store] = prepare_stores(index, "small", [SIDE], "pad", cache)
    check_pixels(store, index)


def test_other_pixels_have_another_folder(images: Path, cache: Path) -> None:
    index = read_folder(images)
    folders = {
        find_folder(prepare_stores(index, source, [SIDE], resize, cache)[0])  # type: ignore[arg-type]
        for source, resize in (("small", "pad"), ("small", "crop"), ("small", "stretch"), ("other", "pad"))
    }
    assert len(folders) == 4


def test_another_version_builds_beside(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = prepare(images, cache)
    before = read_tree(find_folder(old))
    for module in (build, serve, records, shards):
        monkeypatch.setattr(module, "PREPROCESSING_VERSION", 99)
    with count_decodes() as decoded:
        [new] = prepare(images, cache)
    assert len(decoded) == 36
    assert find_folder(new) != find_folder(old)
    assert read_tree(find_folder(old)) == before


def test_some_of_the_images_are_read_from_the_store_of_all(images: Path, cache: Path) -> None:
    [whole] = prepare(images, cache)
    index = read_folder(images)[::-3].reset_index(drop=True)
    with count_decodes() as decoded:
        [part] = prepare_stores(index, "small", [SIDE], "pad", cache)
    assert decoded == []
    assert list_stores(cache) == [find_folder(whole)] == [find_folder(part)]
    assert len(part.positions) == len(index)
    check_pixels(part, index)
    assert serve.list_stores(index, "small", "pad", cache) == [(find_folder(whole), [SIDE])]


def test_a_size_that_the_store_of_all_does_not_have_is_made_of_some(images: Path, cache: Path) -> None:
    [whole] = prepare(images, cache, SIDE)
    index = read_folder(images)[:10]
    with count_decodes() as decoded:
        part, other = prepare_stores(index, "small", [SIDE, 16], "pad", cache)
    assert len(decoded) == 10
    assert find_folder(part) == find_folder(whole) != find_folder(other)
    for store in (part, other):
        check_pixels(store, index)
    assert serve.list_stores(index, "small", "pad", cache) == [
        (find_folder(other), [16]),
        (find_folder(whole), [SIDE]),
    ]


@pytest.mark.parametrize("change", [exchange, grow, grow_at_the_same_time])
def test_the_store_of_all_does_not_serve_files_that_changed(
    images: Path, cache: Path, change: Callable[[Path], None]
) -> None:
    [whole] = prepare(images, cache)
    change(images)
    index = read_folder(images)[:10]
    [part] = prepare_stores(index, "small", [SIDE], "pad", cache)
    assert find_folder(part) != find_folder(whole)
    [fresh] = prepare_stores(index, "small", [SIDE], "pad", cache / "fresh")
    pd.testing.assert_frame_equal(part.dropped, fresh.dropped)
    good = fresh.positions[fresh.positions >= 0]
    np.testing.assert_array_equal(part.take(good), fresh.take(good))


def test_a_damaged_store_is_mended_also_where_another_could_serve(images: Path, cache: Path) -> None:
    index = read_folder(images)[:20]
    [part] = prepare_stores(index, "small", [SIDE], "pad", cache)
    prepare(images, cache)
    before = read_tree(find_folder(part))
    os.truncate(part.paths[0], 200)
    [mended] = prepare_stores(index, "small", [SIDE], "pad", cache)
    assert mended.paths == part.paths
    assert read_tree(find_folder(part)) == before


@pytest.mark.parametrize("n_images", [36, 20])
def test_files_are_compared_once_for_all_sizes(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, n_images: int
) -> None:
    """In a store of their own, and in one of more files."""
    prepare(images, cache, SIDE, 16, 32)
    read = []
    monkeypatch.setattr(
        files, "open_descriptor", lambda path, flags=0: read.append(path) or open_descriptor(path, flags)
    )
    found = prepare_stores(read_folder(images)[:n_images], "small", [SIDE, 16, 32], "pad", cache)
    assert [store.size for store in found] == [SIDE, 16, 32]
    assert [path.name for path in read].count("files.csv") == 1
