"""Find the intended file if none has the name in the table."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from cxrlit.core.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
"""Endings of image files. Copies of a data set may have another one."""

MAX_FOLDERS = 64
"""Maximum number of folders below the root that are searched for a missing name."""


class Listing(Protocol):
    """Folders by path below a root, with ``/``."""

    def list_folder(self, folder: str) -> list[str]:
        """Sorted names in a folder; empty if there is no such folder."""


class Names(NamedTuple):
    """The names in a folder: as they are, by normalized name, and by normalized name without ending."""

    exact: frozenset[str]
    spelled: dict[str, list[str]]
    stems: dict[str, list[str]]


@cache
def key_name(name: str) -> str:
    """A normalized file name: case-folded, in one Unicode form.

    >>> key_name("Röntgen.PNG") == key_name("ro\\u0308ntgen.png")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def cut_ending(name: str) -> str:
    """A file name without an image ending.

    >>> cut_ending("a.b.png"), cut_ending("1.2.840")
    ('a.b', '1.2.840')
    """
    stem, ending = os.path.splitext(name)  # noqa: PTH122  # hundreds of thousands of names
    return stem if ending.lower() in ENDINGS else name


def vary_ending(file: str) -> Iterator[str]:
    """A path, and the same path with each other image ending.

    >>> list(vary_ending("files/a.jpg"))
    ['files/a.jpg', 'files/a.png', 'files/a.jpeg', 'files/a.dcm', 'files/a.dicom']
    """
    yield file
    stem = cut_ending(file)
    yield from (f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" != file)


class NearFiles:
    """Finds the files with the name nearest to a missing one.

    Args:
        files: The folders to search.
    """

    def __init__(self, files: Listing) -> None:
        self.files = files
        self._names: dict[str, Names] = {}

    def find(self, file: str) -> list[str]:
        """All equally near files. The path itself is tried first, in another case or Unicode form or with another
        ending; then the path without leading folders; then other folders below the root.

        Args:
            file: Missing path below the root.
        """
        parts = file.split("/")
        tails = [parts[first:] for first in range(len(parts))]
        for tail in tails:
            found = self._walk("", tail)
            if found:
                return found
        for tail in tails:
            found = [path for folder in self.folders for path in self._walk(folder, tail)]
            if found:
                return found
        return []

    @cached_property
    def folders(self) -> list[str]:
        """Folders below the root, first level first."""
        found: list[str] = []
        level = [""]
        for _ in range(2):
            level = [path for folder in level for path in self._list_folders(folder)][:MAX_FOLDERS]
            found += level
        return found[:MAX_FOLDERS]

    def _list_folders(self, folder: str) -> list[str]:
        names = sorted(name for name in self._read(folder).exact if cut_ending(name) == name)[:MAX_FOLDERS]
        return [path for name in names if self._read(path := _join(folder, name)).exact]

    def _walk(self, folder: str, parts: Sequence[str]) -> list[str]:
        names, name = self._read(folder), parts[0]
        near = [name] if name in names.exact else names.spelled.get(key_name(name), [])
        if len(parts) > 1:
            return [path for other in near for path in self._walk(_join(folder, other), parts[1:])]
        near = near or names.stems.get(cut_ending(key_name(name)), [])
        return [_join(folder, other) for other in near]

    def _read(self, folder: str) -> Names:
        if folder not in self._names:
            try:
                names = self.files.list_folder(folder or ".")
            except OSError:  # a folder that cannot be read has no near files
                names = []
            spelled: dict[str, list[str]] = {}
            stems: dict[str, list[str]] = {}
            for name in names:
                spelled.setdefault(key_name(name), []).append(name)
                if cut_ending(name) != name:
                    stems.setdefault(cut_ending(key_name(name)), []).append(name)
            self._names[folder] = Names(frozenset(names), spelled, stems)
        return self._names[folder]


def shares_folders(wanted: str, there: str) -> bool:
    """Whether two paths differ at most by leading folders that one of them lacks, not by a folder's name.

    Another folder may be another patient, another part of the split, or masks.

    >>> shares_folders("img/a.png", "data/IMG/a.jpg"), shares_folders("a.png", "p1/a.png")
    (True, True)
    >>> shares_folders("p2/a.png", "p1/a.png")
    False
    """
    folders = [[key_name(name) for name in path.split("/")[-2::-1]] for path in (wanted, there)]
    return all(one == other for one, other in zip(*folders, strict=False))


def describe_difference(wanted: str, there: str) -> str:
    """How a file's path differs from the requested one, in a few words.

    >>> describe_difference("images/a", "a.png")
    'in another folder, with an ending'
    >>> describe_difference("a.PNG", "a.png")
    'in another case'
    """
    (folder, _, name), (other_folder, _, other) = wanted.rpartition("/"), there.rpartition("/")
    differences = []
    if key_name(folder) != key_name(other_folder):
        differences.append("in another folder")
    if key_name(name) != key_name(other):
        differences.append("with an ending" if cut_ending(name) == name else "with another ending")
    if cut_ending(key_name(name)) == cut_ending(key_name(other)):
        forms = [unicodedata.normalize("NFC", text) for text in (wanted, there)]
        if not differences and forms[0] != forms[1]:
            differences.append("in another case")
        elif not differences or unicodedata.is_normalized("NFC", name) != unicodedata.is_normalized("NFC", other):
            differences.append("in another Unicode form")
    return ", ".join(differences)


def describe_tried(path: str) -> str:
    """What exists near a missing file.

    Args:
        path: Absolute path that was tried; empty if the files are not on this disk.

    Returns:
        The path and the nearest existing name; empty if ``path`` is empty.
    """
    if not path:
        return ""
    home = _find_home(Path(path))
    if home == home.parent:
        return f"tried {path}"
    file = os.path.relpath(path, home)
    near = NearFiles(_Folder(home)).find(file)
    if near:
        said = " or ".join(f"{home}/{other} ({describe_difference(file, other)})" for other in near[:2])
        return f"tried {path}; the nearest is {said}"
    missing = "" if home == Path(path).parent else f"; there is no {home}/{file.partition('/')[0]}"
    return f"tried {path}{missing}"


def check_folder(root: Path) -> None:
    """Check that ``data.root`` is a folder.

    Raises:
        DataError: The path is no folder; the message names what exists there.
    """
    if root.is_dir():
        return
    if root.exists():
        raise DataError(f"data.root={root} is a file: name the folder of the images")
    home = _find_home(root)
    hint = ""
    if home != home.parent:
        near = NearFiles(_Folder(home)).find(os.path.relpath(root, home))
        nearest = f"the nearest is {home / near[0]}" if len(near) == 1 else f"{home} is there"
        hint = f"; {nearest}"
    raise DataError(f"data.root={root}: there is no such folder{hint}")


def _find_home(path: Path) -> Path:
    """The nearest existing folder above a path."""
    home = path.parent
    while not home.is_dir() and home != home.parent:
        home = home.parent
    return home


class _Folder:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_folder(self, folder: str) -> list[str]:
        path = self.root / folder
        return sorted(os.listdir(path)) if path.is_dir() else []


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
