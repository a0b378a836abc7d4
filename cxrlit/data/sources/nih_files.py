"""Locations of the images, and forms of the official lists, in copies of NIH ChestX-ray14.

NIH's own archives, Kaggle's sample and its copies at 224 pixels, and JPEG copies differ in folders, endings and
list names; the name of an image without its ending is the same in all.
"""

import os
import re
from collections.abc import Container, Sequence
from pathlib import Path

import pandas as pd

from cxrlit.core.console import say
from cxrlit.core.errors import DataError, format_count, name_some
from cxrlit.data.image_files import ImageFiles
from cxrlit.data.near_files import NearFiles, cut_ending
from cxrlit.data.tables.text_table import clip

TRAIN_VAL_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
LIST_NAMES = {"train_val": (TRAIN_VAL_LIST, "train_val_list_NIH.txt"), "test": (TEST_LIST, "test_list_NIH.txt")}
"""Names of each official list; the first existing one counts."""

FOLDER = re.compile(r"images(_\d{3})?")
"""Folders of NIH's own archives."""

OTHER_PICTURES = re.compile(r"mask|thumb|segment|heat_?map|overlay|preview", re.IGNORECASE)
"""Folders of derived images, which have the same names."""

LIST_LIKE = re.compile(r"\w*(train|val|test)\w*\.(txt|csv)", re.IGNORECASE)
NAME = re.compile(r"\d{8}_\d{3}", re.ASCII)
"""Name of an NIH image without its ending."""


def locate_images(files: ImageFiles, images: Sequence[str]) -> list[str]:
    """Path of each image below the root; empty if it is missing.

    The folders of NIH's archives are used if they contain images. Otherwise it is the root, its folders or theirs,
    whichever level has most of these images, and a message says so. Images may have another ending.

    Args:
        files: The existing files.
        images: Names of the images in the table.

    Raises:
        DataError: Two files may be the same image, or two folders have a file of the same name.
    """
    top = [name for name in files.list_folder(".") if FOLDER.fullmatch(name)]
    places = _list_images(files, [inner for folder in top for inner in (folder, f"{folder}/images")])
    if not places:
        stems = {cut_ending(image) for image in images}
        folders = [folder for folder in NearFiles(files).folders if not OTHER_PICTURES.search(folder)]
        for depth in range(3):
            level = [folder for folder in folders if folder.count("/") == depth - 1] if depth else ["."]
            here = _list_images(files, level, stems)
            if len({cut_ending(name) for name in here}) > len({cut_ending(name) for name in places}):
                places = here
            if len(here) >= len(stems):
                break
        homes = {path.rpartition("/")[0] for path in places.values()} - {""}
        if homes:
            say(f"the images are read from {name_some(sorted(homes))} below data.root")
    found = [places.get(image, "") for image in images]
    if all(found) or not places:
        return found
    by_stem: dict[str, list[str]] = {}
    for name in places:
        by_stem.setdefault(cut_ending(name), []).append(name)
    for row, image in enumerate(images):
        if not found[row]:
            names = by_stem.get(cut_ending(image), [])
            if len(names) > 1:
                raise DataError(f"{places[names[0]]} and {places[names[1]]} may both be {image}: keep one of them")
            found[row] = places[names[0]] if names else ""
    return found


def _list_images(files: ImageFiles, folders: Sequence[str], stems: Container[str] | None = None) -> dict[str, str]:
    """Path below the root of every image file in some folders, by file name.

    Args:
        files: The existing files.
        folders: The folders.
        stems: Names of the wanted images without ending; None: all images.

    Raises:
        DataError: Two folders have a file of the same name.
    """
    places: dict[str, str] = {}
    for folder in folders:
        for name in files.list_folder(folder):
            stem = cut_ending(name)
            if stem == name or (stems is not None and stem not in stems):
                continue
            if name in places:
                raise DataError(f"{folder}/{name} and {places[name]} have the same name: keep one of them")
            places[name] = name if folder == "." else f"{folder}/{name}"
    return places


def read_official_lists(root: Path) -> dict[str, str] | None:
    """``train_val`` or ``test`` by image name, without folders; None if neither list exists.

    A name may be followed by labels, and the first line may be a header.

    Raises:
        DataError: Only one of the two lists exists, one cannot be read, or an image is in both.
    """
    there = {part: [root / name for name in names if (root / name).is_file()] for part, names in LIST_NAMES.items()}
    paths = {part: found[0] for part, found in there.items() if found}
    used = {path.name for path in paths.values()}
    others = sorted(name for name in os.listdir(root) if LIST_LIKE.fullmatch(name) and name not in used)
    if len(paths) == 1:
        absent = TEST_LIST if "train_val" in paths else TRAIN_VAL_LIST
        beside = f" (what is there: {name_some(others)})" if others else ""
        raise DataError(
            f"{root}: {next(iter(used))} is there and {absent} is not{beside}: add it, or remove both for a split of "
            "our own"
        )
    if others:
        say(
            f"{root}: {name_some(others)} {'is' if len(others) == 1 else 'are'} there and not used: the official split "
            f"is read from {TRAIN_VAL_LIST} and {TEST_LIST}"
        )
    if not paths:
        return None
    names = {part: _read_list(path) for part, path in paths.items()}
    tests = {cut_ending(name) for name in names["test"]}
    both = sorted({name for name in names["train_val"] if cut_ending(name) in tests})
    if both:
        raise DataError(
            f"{root}: {format_count(len(both), 'image stands', 'images stand')} in both official lists: "
            f"{name_some(both)}"
        )
    return {image: part for part, images in names.items() for image in images}


def match_lists(images: pd.Series, lists: dict[str, str], root: Path) -> pd.Series:
    """The part of each image; missing if neither list names it, with any ending.

    Args:
        images: Names of the images in the table.
        lists: Result of ``read_official_lists``.
        root: Folder of the lists, for messages.

    Raises:
        DataError: No image is in either list.
    """
    parts = images.map(lists)
    if parts.notna().all():
        return parts
    by_stem = {cut_ending(name): part for name, part in lists.items()}
    others = images[parts.isna()].map(cut_ending).map(by_stem).dropna()
    if len(others):
        parts[others.index] = others
        image = images[others.index[0]]
        listed = next(name for name in lists if cut_ending(name) == cut_ending(image))
        say(f"{root}: {format_count(len(others), 'image has', 'images have')} another ending in the official lists: "
            f"{image} is {listed} there")  # fmt: skip
    if parts.isna().all():
        shown = clip(next(iter(lists), "nothing"))
        raise DataError(
            f"{root}: the official lists name none of the table's {len(images)} images: the lists have {shown}, the "
            f"table has {clip(images.iloc[0])}: take the lists of these images, or remove both for a split of our own"
        )
    return parts


def _read_list(path: Path) -> list[str]:
    """Image names of a list, without folders.

    Raises:
        DataError: The file is no text, or a line after the first names no image.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: an official list cannot be read as text: {error}") from None
    names = text.split()
    if all(name.endswith(".png") for name in names) and not any(mark in text for mark in "/\\,;|\"'"):
        return names
    names = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = [word.strip("\"'") for word in re.split(r"[\s,;|]+", line)]
        files = [re.split(r"[/\\]", word)[-1] for word in words if word]
        named = [file for file in files if cut_ending(file) != file] or files[:1]
        if named and cut_ending(named[0]) == named[0] and not NAME.fullmatch(named[0]):
            if number > 1:
                raise DataError(f"{path}, line {number}: {clip(line)!r} names no image: correct the list")
            continue  # a header
        names += named
    return names
