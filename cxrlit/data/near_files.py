"""The file that was meant where none has the name that a table gives it."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from cxrlit.core.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
"""Of image files. Other copies of a data set have another one of them."""

MAX_FOLDERS = 64
"""Folders below the root that are looked into for a name that is not where it should be."""


class Listing(Protocol):
    """Folders by their path below a root, with ``/``."""

    def list_folder(self, folder: str) -> list[str]:
        """Names of what lies in a folder, sorted; nothing where there is no such folder."""


class Names(NamedTuple):
    """The names in a folder: as they are, by what spellings of one name share, and that without the ending."""

    exact: frozenset[str]
    spelled: dict[str, list[str]]
    stems: dict[str, list[str]]


@cache
def key_name(name: str) -> str:
    """What spellings of one file name share: letters without case, in one Unicode form.

    >>> key_name("Röntgen.PNG") == key_name("ro\\u0308ntgen.png")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def cut_ending(name: str) -> str:
    """A file name without the ending of an image.

    >>> cut_ending("a.b.png"), cut_ending("1.2.840")
    ('a.b', '1.2.840')
    """
    stem, ending = os.path.splitext(name)  # noqa: PTH122  # hundreds of thousands of names
    return stem if ending.lower() in ENDINGS else name


def vary_ending(file: str) -> Iterator[str]:
    """A path, and the same with each other ending of an image.

    >>> list(vary_ending("files/a.jpg"))
    ['files/a.jpg', 'files/a.png', 'files/a.jpeg', 'files/a.dcm', 'files/a.dicom']
    """
    yield file
    stem = cut_ending(file)
    yield from (f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" != file)


class NearFiles:
    """Finds the files whose name is nearest to one that is not there.

    Args:
        files: The folders that are looked into.
    """

    def __init__(self, files: Listing) -> None:
        self.files = files
        self._names: dict[str, Names] = {}

    def find(self, file: str) -> list[str]:
        """All files that are as near as the nearest: first at the path itself, in another case or Unicode form or with
        another ending; then without folders at its beginning; then in other folders below the root.

        Args:
            file: Path below the root that is not there.
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
        """Folders below the root, those of the first level first."""
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
            except OSError:  # nothing is near in what cannot be looked into
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
    """Whether two paths differ at most by folders that one of them lacks in front, not by the name of a folder.

    Another folder may be another patient, another part of the split, or masks.

    >>> shares_folders("img/a.png", "data/IMG/a.jpg"), shares_folders("a.png", "p1/a.png")
    (True, True)
    >>> shares_folders("p2/a.png", "p1/a.png")
    False
    """
    folders = [[key_name(name) for name in path.split("/")[-2::-1]] for path in (wanted, there)]
    return all(one == other for one, other in zip(*folders, strict=False))


def describe_difference(wanted: str, there: str) -> str:
    """How the path of a file differs from the one that was wanted, in a few words.

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
    """What is there in place of a file that is not.

    Args:
        path: The absolute path that was tried; empty where the files are not on this disk.

    Returns:
        The path, and what is nearest to it; empty where the path is.
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
    """``data.root`` is a folder.

    Raises:
        DataError: It is not; the message names what is there.
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
    """The nearest folder above a path that is there."""
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
