"""The uploads: how many there may be, how long one is kept, and which may be asked about."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MAX_UPLOADS = 32
"""So many may come in or wait for the network."""

UNASKED_SECONDS = 60
"""A page asks about its upload at once: one that nobody asks about goes after this."""

ASKED_SECONDS = 600
"""One whose page was closed before the network came to it goes after this."""


class Uploads:
    """A folder of uploads, each a file of its own with a name that says nothing.

    ``keep`` is for any thread, the rest for that of the event loop.

    Args:
        folder: Where they go; nothing else is in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._n_coming = 0
        self._unasked: dict[str, asyncio.TimerHandle] = {}

    @contextmanager
    def hold_place(self) -> Iterator[bool]:
        """A place for an upload that comes in; false where there is none left."""
        is_free = self._n_coming + len(os.listdir(self.folder)) < MAX_UPLOADS
        self._n_coming += is_free
        try:
            yield is_free
        finally:
            self._n_coming -= is_free

    def keep(self, file: BinaryIO) -> Path:
        """Write an upload.

        Raises:
            OSError: The disk has no room for it; nothing of it is left.
        """
        path = self.folder / secrets.token_hex(16)
        try:
            with path.open("xb") as kept:
                shutil.copyfileobj(file, kept)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def await_asking(self, path: Path) -> None:
        """From now on an upload can be asked about, for a while."""
        self._unasked[str(path)] = asyncio.get_running_loop().call_later(UNASKED_SECONDS, self.forget, str(path))

    def is_unasked(self, path: object) -> bool:
        """Whether a path is that of an upload, letter by letter, which nobody has asked about."""
        return isinstance(path, str) and path in self._unasked

    def ask(self, path: str) -> None:
        """An upload is asked about, and cannot be again."""
        self._unasked.pop(path).cancel()
        asyncio.get_running_loop().call_later(ASKED_SECONDS, self.forget, path)

    def forget(self, path: str) -> None:
        """Delete an upload, where it is still there."""
        self._unasked.pop(path, None)
        Path(path).unlink(missing_ok=True)
