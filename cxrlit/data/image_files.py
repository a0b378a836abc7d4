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

FoundFile = tuple[str, int, int]
"""A file that is there: where to read it, its size in bytes, and when it was last changed, nanoseconds since 1970; 0
where that is not known. There are hundreds of thousands: a class of its own takes twice the time."""


class ImageFiles(Protocol):
    """The image files below a data set's root, by their path relative to it (with ``/``)."""

    def find(self, file: str) -> FoundFile | str:
        """The file, or the reason why it cannot be used."""

    def list_folder(self, folder: str) -> list[str]:
        """Names of what lies in a folder, sorted; nothing where there is no such folder."""


@dataclass(frozen=True)
class DiskFiles:
    """Files on disk. A link to a file outside of ``root`` is refused; folders may be links."""

    root: Path

    def find(self, file: str) -> FoundFile | str:
        path = f"{self.root}/{file}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                status = os.stat(path)
                folder = os.path.realpath(os.path.dirname(path))
                target = os.path.realpath(path)
                homes = (os.path.realpath(self.root), folder)
                if not any(target.startswith(f"{home}{os.sep}") for home in homes):
                    return "a link to a file outside of data.root"
        except FileNotFoundError:
            return "a link that leads nowhere" if os.path.islink(path) else NOT_ON_DISK
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


def attach_files(
    table: pd.DataFrame, candidates: Iterable[Sequence[str]], files: ImageFiles
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the file of each row.

    Args:
        table: Rows with a column ``image``.
        candidates: For each row the relative paths where its file may be; the first that can be used counts.
        files: What is there.

    Returns:
        The rows whose file is there, with the columns ``path``, ``file``, ``n_bytes`` and ``mtime_ns``; and the
        others as ``image``, ``path``, ``reason``.
    """
    # Columns and no list of rows: hundreds of thousands of small containers would keep the garbage collector busy.
    paths: list[str] = []
    chosen: list[str] = []
    sizes: list[int] = []
    mtimes: list[int] = []
    missing: list[int] = []
    reasons: list[str] = []
    find = files.find
    for row, names in enumerate(candidates):
        reason = NOT_ON_DISK
        for file in names:
            here = find(file)
            if isinstance(here, str):
                if reason == NOT_ON_DISK:  # the first name that is there and cannot be used says why
                    reason = here
                continue
            path, n_bytes, mtime_ns = here
            paths.append(path)
            chosen.append(file)
            sizes.append(n_bytes)
            mtimes.append(mtime_ns)
            break
        else:
            missing.append(row)
            reasons.append(reason)
    there = np.ones(len(table), dtype=bool)
    there[missing] = False
    found = {
        "path": paths,
        "file": chosen,
        "n_bytes": np.array(sizes, np.int64),
        "mtime_ns": np.array(mtimes, np.int64),
    }
    columns = pd.DataFrame(found, index=table.index[there])
    dropped = pd.DataFrame({"image": table.loc[~there, "image"], "path": "", "reason": reasons})
    return pd.concat([table[there], columns], axis=1), dropped.reset_index(drop=True)
