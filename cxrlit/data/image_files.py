"""Where the image files of a data set are: on disk, or in a prepared store that stands in for them."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from cxrlit.core.console import say
from cxrlit.core.errors import DataError, format_count
from cxrlit.data.near_files import NearFiles, describe_difference, describe_tried, shares_folders
from cxrlit.data.tables.text_table import clip

FoundFile = tuple[str, int, int]
"""A file that is there: where to read it, its size in bytes, and when it was last changed, nanoseconds since 1970; 0
where that is not known. There are hundreds of thousands: a class of its own takes twice the time."""


class ImageFiles(Protocol):
    """The image files below a data set's root, by their path relative to it (with ``/``)."""

    def find(self, file: str) -> FoundFile | str:
        """The file, or the reason why it cannot be used."""

    def list_folder(self, folder: str) -> list[str]:
        """Names of what lies in a folder, sorted; nothing where there is no such folder."""

    def locate(self, file: str) -> str:
        """Absolute path where a file is looked for; empty where that is not on this disk."""


@dataclass(frozen=True)
class DiskFiles:
    """Files on disk; folders may be links.

    Attributes:
        root: The data set's folder.
        follow_links: Read links to files outside of ``root``, as a cache beside it has them; else they are refused.
        key: The key of the config that says so, for the reason.
    """

    root: Path
    follow_links: bool = False
    key: str = "data.follow_links"

    def find(self, file: str) -> FoundFile | str:
        path = self.locate(file)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                status = os.stat(path)
                if not self.follow_links and not self._is_inside(path):
                    return f"a link to a file outside of data.root, which {self.key}=true reads"
        except FileNotFoundError:
            return DANGLING if os.path.islink(path) else NOT_ON_DISK
        except NotADirectoryError:
            return NOT_ON_DISK
        except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
            return f"cannot be read: {getattr(error, 'strerror', error)}"
        if not stat.S_ISREG(status.st_mode):
            return "not a file"
        if not os.access(path, os.R_OK):
            return "cannot be read: Permission denied"
        return (path, status.st_size, status.st_mtime_ns)

    def list_folder(self, folder: str) -> list[str]:
        path = self.root / folder
        return sorted(os.listdir(path)) if path.is_dir() else []

    def locate(self, file: str) -> str:
        return f"{self._prefix}{file}"

    @cached_property
    def _prefix(self) -> str:
        return f"{str(self.root).rstrip('/')}/"

    def _is_inside(self, path: str) -> bool:
        """Whether a link leads to a file below the root, or below the link's own folder."""
        target = os.path.realpath(path)
        homes = (os.path.realpath(self.root), os.path.realpath(os.path.dirname(path)))
        return any(target.startswith(f"{home.rstrip(os.sep)}{os.sep}") for home in homes)


@dataclass(frozen=True)
class StoredFiles:
    """The files that a prepared store was made of.

    Attributes:
        address: Address of the store, for ``path``.
        sizes: Size in bytes of each file, by its path relative to the data set's root.
    """

    address: str
    sizes: Mapping[str, int]

    def find(self, file: str) -> FoundFile | str:
        size = self.sizes.get(file)
        return NOT_IN_STORE if size is None else (f"{self.address}!{file}", size, 0)

    def list_folder(self, folder: str) -> list[str]:
        return sorted(self._folders.get("" if folder == "." else folder, ()))

    def locate(self, file: str) -> str:
        return ""

    @cached_property
    def _folders(self) -> dict[str, dict[str, None]]:
        """What lies in each folder."""
        folders: dict[str, dict[str, None]] = {}
        for file in self.sizes:
            folder, _, name = file.rpartition("/")
            new = folder not in folders
            folders.setdefault(folder, {})[name] = None
            while new and folder:
                folder, _, name = folder.rpartition("/")
                new = folder not in folders
                folders.setdefault(folder, {})[name] = None
        return folders


NOT_ON_DISK = "not on disk"
NOT_IN_STORE = "not in the store"
DANGLING = "a link that leads nowhere: fetch what it stands for"


def attach_files(
    table: pd.DataFrame, candidates: Iterable[Iterable[str]], files: ImageFiles
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the file of each row.

    Where the names of the table are not those of the files, but exactly one file is near each name that is not there,
    those files are taken, and that is said.

    Args:
        table: Rows with a column ``image``.
        candidates: For each row the relative paths where its file may be; the first that can be used counts.
        files: What is there.

    Returns:
        The rows whose file is there, with the columns ``path``, ``file``, ``n_bytes`` and ``mtime_ns``; and the
        others as ``image``, ``path`` (where it was looked for), ``reason``.
    """
    # Columns and no list of rows: hundreds of thousands of small containers would keep the garbage collector busy.
    n_rows = len(table)
    paths, chosen = [""] * n_rows, [""] * n_rows
    sizes, mtimes = [0] * n_rows, [0] * n_rows
    missing: dict[int, tuple[str, str]] = {}  # the file that was looked for first, and why it cannot be used
    find = files.find
    for row, names in enumerate(candidates):
        first, reason = "", NOT_ON_DISK
        for file in names:
            here = find(file)
            first = first or file
            if isinstance(here, str):
                if reason == NOT_ON_DISK:  # the first name that is there and cannot be used says why
                    reason = here
                continue
            paths[row], sizes[row], mtimes[row] = here
            chosen[row] = file
            break
        else:
            missing[row] = (first, reason)
    for row, (file, (path, n_bytes, mtime_ns)) in _find_meant(missing, chosen, files).items():
        paths[row], chosen[row], sizes[row], mtimes[row] = path, file, n_bytes, mtime_ns
        del missing[row]
    there = np.ones(n_rows, dtype=bool)
    there[list(missing)] = False
    found = pd.DataFrame(
        {
            "path": paths,
            "file": chosen,
            "n_bytes": np.array(sizes, np.int64),
            "mtime_ns": np.array(mtimes, np.int64),
        },
        index=table.index,
    )
    dropped = pd.DataFrame(
        {
            "image": table.loc[~there, "image"],
            "path": [files.locate(file) if file else "" for file, _ in missing.values()],
            "reason": [reason for _, reason in missing.values()],
        }
    )
    return pd.concat([table, found], axis=1)[there], dropped.reset_index(drop=True)


def _find_meant(
    missing: Mapping[int, tuple[str, str]], chosen: Sequence[str], files: ImageFiles
) -> dict[int, tuple[str, FoundFile]]:
    """The file that was meant, for each row without one; nothing unless there is exactly one for each of them.

    Args:
        missing: For each such row the path that was looked for, and why it cannot be used.
        chosen: The files of the other rows.
        files: What is there.
    """
    near, taken = NearFiles(files), set(chosen) if missing else set()
    meant: dict[int, tuple[str, FoundFile]] = {}
    for row, (file, reason) in missing.items():
        names = near.find(file) if file and reason in {NOT_ON_DISK, NOT_IN_STORE} else []
        is_clear = len(names) == 1 and names[0] not in taken and shares_folders(file, names[0])
        here = files.find(names[0]) if is_clear else ""
        if isinstance(here, str):
            return {}
        taken.add(names[0])
        meant[row] = (names[0], here)
    if meant:
        row, (there, _) = next(iter(meant.items()))
        wanted = missing[row][0]
        say(
            f"{format_count(len(meant), 'image is', 'images are')} not where the table says, and exactly one file is "
            f"near each name: {clip(wanted)} is read from {clip(there)} ({describe_difference(wanted, there)})"
        )
    return meant


def refuse_all(where: str, n_images: int, dropped: pd.DataFrame) -> DataError:
    """The error that none of the images of a data set can be used: why, and where the last one was looked for.

    Args:
        where: Where the images are from, as the message begins.
        n_images: How many there are.
        dropped: ``path`` and ``reason`` of each.
    """
    last = dropped.iloc[-1]
    tried = describe_tried(last["path"]) if last["reason"] == NOT_ON_DISK else ""
    return DataError(
        f"{where}: none of its {n_images} images can be used: {last['reason']}{f' ({tried})' if tried else ''}"
    )


def say_endings(index: pd.DataFrame, source: str) -> None:
    """Say how many images of an index are read from files with another ending than their names."""
    images, files = index["image"].tolist(), index["file"].tolist()
    pairs = enumerate(zip(images, files, strict=True))
    others = [row for row, (image, file) in pairs if image.rpartition(".")[2] != file.rpartition(".")[2]]
    if others:
        n_others, row = format_count(len(others), "image has", "images have"), others[0]
        say(f"{source}: {n_others} another ending than in the table: {images[row]} is read from {files[row]}")
