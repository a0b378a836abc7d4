"""Batches that are made ahead of the step that wants them: by a thread of this process, or by others."""

import atexit
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader

from cxrlit.core.errors import DataError

T = TypeVar("T", covariant=True)

N_AHEAD = 4
"""Batches that a thread has read or is to read, at most."""


class AheadLoader(DataLoader[T]):
    """A loader without processes whose batches a thread reads ahead, for images that are not changed on the way.

    Those are copied at the speed of memory, or wait for a disk; handing them on from another process takes longer.
    Order and content are those of a loader without a thread. An error is raised where its batch would have come. The
    thread ends with it, with the last batch, or where the iteration is given up.
    """

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        batches = super().__iter__()
        ahead: deque[Future[list[T]]] = deque()
        device = torch.accelerator.current_device_index() if self.pin_memory else None
        pool = ThreadPoolExecutor(1)
        try:
            for _ in range(len(self)):
                ahead.append(pool.submit(_read_next, batches, device))
                if len(ahead) == N_AHEAD:
                    yield from ahead.popleft().result()
            pool.shutdown(wait=False)  # Lightning stops at the last batch and does not ask for the end
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class ProcessLoader(DataLoader[T]):
    """A loader with processes. What stops one of them stops the iteration with the line that it says there."""

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        try:
            batches: Any = super().__iter__()
            _STARTED.add(batches)
            yield from batches
        except DataError as error:  # whose text torch has put behind a traceback
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None


_STARTED: WeakSet[Any] = WeakSet()
"""Iterations of loaders with processes."""


# A program that ends asks its processes to end by SIGTERM and waits for them, for ever where they are deaf to it.
@atexit.register
def _end_processes() -> None:
    for batches in _STARTED:
        batches._shutdown_workers()


def _read_next(batches: Iterator[T], device: int | None) -> list[T]:
    """The next batch; nothing after the last, which comes early in an epoch that goes on in its middle."""
    if device is not None:
        torch.accelerator.set_device_index(device)  # a thread begins on the first; memory is pinned for this one
    return list(islice(batches, 1))
