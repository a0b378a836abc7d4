"""How files come in: each in memory alone, so many at once, so large, in so much time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MIB = 2**20
CONTENT_TYPES = ("application/octet-stream", "application/dicom", "image/png", "image/jpeg")
"""A browser lets no other site send one of these without asking first, and the service does not answer that."""


class Limits(NamedTuple):
    """What is taken.

    Attributes:
        file_bytes: Of one file.
        all_bytes: Of all files together that are in memory.
        n_files: That come in or wait for their prediction.
        seconds: In which a file has to be here.
    """

    file_bytes: int = 64 * MIB
    all_bytes: int = 512 * MIB
    n_files: int = 32
    seconds: float = 300


class Intake:
    """The files that are in memory.

    Args:
        limits: For them.

    Attributes:
        n_files: That there are.
        n_bytes: That they take.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_files = self.n_bytes = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as in memory until the end of the block.

        Raises:
            HTTPException: It is not taken.
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
