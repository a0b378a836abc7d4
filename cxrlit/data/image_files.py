"""Locations of a data set's image files: on disk, or in a prepared store that replaces them."""

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
"""An existing file: path, size in bytes, and time of the last change in nanoseconds since 1970, 0 if unknown. A tuple,
because there are hundreds of thousands: a class takes twice the time."""


class ImageFiles(Protocol):
    """The image files below a data set's root, by path relative to it (with ``/``)."""

    def find(self, file: str) -> FoundFile | str:
        """The file, or the reason why it cannot be used."""

    def list_folder(self, folder: str) -> list[str]:
        """Sorted names in a folder; empty if there is no such folder."""

    def locate(self, file: str) -> str:
        """Absolute path at which a file is expected; empty if it is not on this disk."""


@dataclass(frozen=True)
class DiskFiles:
    """Files on disk; folders may be links.

    Attributes:
        root: The data set's folder.
        follow_links: Follow links to files outside ``root``, as in a cache beside it; otherwise they are refused.
        key: Config key of ``follow_links``, for the reason.
    """

    root: Path
    follow_links: bool = False
    key: str = "data.follow_links"

    def find(self, file: str) -> FoundFile | str:
        """The file, or the reason why it cannot be used: missing, an outside link, not a file, unreadable."""
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
        except (OSError, ValueError) as error:  # an invalid file name raises ValueError
            return f"cannot be read: {getattr(error, 'strerror', error)}"
        if not stat.S_ISREG(status.st_mode):
            return "not a file"
        if not os.access(path, os.R_OK):
            return "cannot be read: Permission denied"
        return (path, status.st_size, status.st_mtime_ns)

    def list_folder(self, folder: str) -> list[str]:
        """Sorted names in a folder below the root; empty if there is no such folder."""
        path = self.root / folder
        return sorted(os.listdir(path)) if path.is_dir() else []

    def locate(self, file: str) -> str:
        """Absolute path of a file below the root, whether it exists or not."""
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
    """The source files of a prepared store.

    Attributes:
        address: Address of the store, for the column ``path``.
        sizes: Size of each file in bytes, by path relative to the data set's root.
    """

    address: str
    sizes: Mapping[str, int]

    def find(self, file: str) -> FoundFile | str:
        """The file as ``address!file`` with its size and time 0, or the reason why it is missing."""
        size = self.sizes.get(file)
        return NOT_IN_STORE if size is None else (f"{self.address}!{file}", size, 0)

    def list_folder(self, folder: str) -> list[str]:
        """Sorted names in a folder of the original tree; empty if there is no such folder."""
        return sorted(self._folders.get("" if folder == "." else folder, ()))

    def locate(self, file: str) -> str:
        """Empty: the files are not on this disk."""
        return ""

    @cached_property
    def _folders(self) -> dict[str, dict[str, None]]:
        """Names in each folder."""
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

    If the names in the table are not file names, but each missing name has exactly one similar file, those files
    are used, and a message says so.

    Args:
        table: Rows with a column ``image``.
        candidates: Relative paths where each row's file may be; the first usable one counts.
        files: The existing files.

    Returns:
        The rows with a file, with columns ``path``, ``file``, ``n_bytes`` and ``mtime_ns``; and the other rows as
        ``image``, ``path`` (the first path tried), ``reason``.
    """
    # Columns instead of a list of rows: hundreds of thousands of small containers would slow the garbage collector.
    n_rows = len(table)
    paths, chosen = [""] * n_rows, [""] * n_rows
    sizes, mtimes = [0] * n_rows, [0] * n_rows
    missing: dict[int, tuple[str, str]] = {}  # first path tried, and why it cannot be used
    find = files.find
    for row, names in enumerate(candidates):
        first, reason = "", NOT_ON_DISK
        for file in names:
            here = find(file)
            first = first or file
            if isinstance(here, str):
                if reason == NOT_ON_DISK:  # the first existing but unusable path gives the reason
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
    """The intended file of each row without one; empty unless every such row has exactly one candidate.

    Args:
        missing: First path tried and the reason, by row.
        chosen: Files of the other rows.
        files: The existing files.
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
    """The error if none of a data set's images can be used: the reason, and where the last one was expected.

    Args:
        where: Beginning of the message: the source of the images.
        n_images: Number of images.
        dropped: ``path`` and ``reason`` of each image.
    """
    last = dropped.iloc[-1]
    tried = describe_tried(last["path"]) if last["reason"] == NOT_ON_DISK else ""
    return DataError(
        f"{where}: none of its {n_images} images can be used: {last['reason']}{f' ({tried})' if tried else ''}"
    )


def say_endings(index: pd.DataFrame, source: str) -> None:
    """Print how many images are read from files with another ending than in the table."""
    images, files = index["image"].tolist(), index["file"].tolist()
    pairs = enumerate(zip(images, files, strict=True))
    others = [row for row, (image, file) in pairs if image.rpartition(".")[2] != file.rpartition(".")[2]]
    if others:
        n_others, row = format_count(len(others), "image has", "images have"), others[0]
        say(f"{source}: {n_others} another ending than in the table: {images[row]} is read from {files[row]}")
