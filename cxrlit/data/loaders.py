"""Batches that are made ahead of the step that wants them: by a thread of this process, or by others."""

import atexit
import errno
import os
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar
from weakref import WeakSet

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.ranks import n_node_ranks
from cxrlit.core.signals import SIGNALS

T = TypeVar("T", covariant=True)

NO_SHARED_MEMORY = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT}
"""What the system says where a lock in shared memory cannot be made."""

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
    """A loader with processes. What stops one of them stops the iteration with the line that it says there.

    Batches come through pipes; of shared memory the processes need a few pages for their locks.

    Raises:
        ConfigError: ``/dev/shm`` has no room for those.
    """

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        try:
            batches: Any = super().__iter__()
        except OSError as error:
            if error.errno not in NO_SHARED_MEMORY:
                raise
            raise ConfigError(
                f"loader processes need a little shared memory, and /dev/shm has none ({error.strerror}): say "
                "trainer.num_workers=0, or give the container some, as docker run --shm-size=64m does"
            ) from None
        try:
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


class _ByValue:
    """A tensor on its way from a loader process: it goes through the pipe, and arrives as a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.array = tensor.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self.array,)


def send(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Called in a loader process: the batch as it is sent from there.

    torch would put each tensor into shared memory of its own, of which a container has 64 MB, and which is made, mapped
    and faulted in anew for every batch.
    """
    return {name: _ByValue(tensor) for name, tensor in batch.items()}


def choose_num_workers() -> int:
    """``num_workers`` for this machine: none beside a CPU that computes, up to 8 beside each GPU."""
    return min(8, max((os.cpu_count() or 1) // n_node_ranks() - 1, 0)) if torch.cuda.is_available() else 0


def start_worker(_: int) -> None:
    """What a loader process does first: one thread, deaf to the signals that ask a training to stop."""
    cv2.setNumThreads(0)
    # A scheduler and Ctrl-C signal every process; the one that trains answers, and still needs its batches to do so.
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


PROCESS_OPTIONS: dict[str, Any] = {
    "collate_fn": send,
    "worker_init_fn": start_worker,
    "persistent_workers": True,
}
"""Options of a loader with processes."""
