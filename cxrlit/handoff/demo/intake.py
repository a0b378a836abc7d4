"""Receive uploads in memory, with limits on number, size and time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MIB = 2**20
CONTENT_TYPES = ("application/octet-stream", "application/dicom", "image/png", "image/jpeg")
"""Accepted types. A browser asks the service before another site may send one, and the service does not answer."""


class Limits(NamedTuple):
    """Limits of uploads.

    Attributes:
        file_bytes: Bytes of one file.
        all_bytes: Bytes of all files in memory.
        n_files: Files that are being received or wait for their prediction.
        seconds: Time to receive a file.
    """

    file_bytes: int = 64 * MIB
    all_bytes: int = 512 * MIB
    n_files: int = 32
    seconds: float = 300


class Intake:
    """The files in memory.

    Args:
        limits: Limits of uploads.

    Attributes:
        n_files: Number of files.
        n_bytes: Their bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_files = self.n_bytes = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """Receive the body of a request; it counts as in memory until the block ends.

        Raises:
            HTTPException: The file exceeds a limit, or its type is not accepted.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in CONTENT_TYPES:
            raise HTTPException(415, f"send the file itself as the body, with Content-Type: {CONTENT_TYPES[0]}")
        self._check_size(int(request.headers.get("content-length", "0")))
        if self.n_files >= self.limits.n_files:
            raise _make_busy()
        self.n_files += 1
        n_bytes = 0
        try:
            body = bytearray()
            try:
                async with asyncio.timeout(self.limits.seconds):
                    async for part in request.stream():
                        self._check_size(n_bytes + len(part))
                        if self.n_bytes + len(part) > self.limits.all_bytes:
                            raise _make_busy()
                        body += part
                        n_bytes += len(part)
                        self.n_bytes += len(part)
            except (TimeoutError, ClientDisconnect):
                raise HTTPException(408, "the file did not come whole") from None
            content = bytes(body)
            del body
            yield content
        finally:
            self.n_files -= 1
            self.n_bytes -= n_bytes

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self.limits.file_bytes:
            raise HTTPException(413, f"larger than {self.limits.file_bytes // MIB} MiB")


def _make_busy() -> HTTPException:
    return HTTPException(503, "too many files wait: try again in a moment", {"Retry-After": "5"})
