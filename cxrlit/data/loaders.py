"""Loaders that prepare batches ahead of the step, in a thread or in worker processes."""

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
"""The system's message if a lock in shared memory cannot be created."""

N_AHEAD = 4
"""Maximum number of batches read ahead by a thread."""


class AheadLoader(DataLoader[T]):
    """A loader without processes whose batches a thread reads ahead, for images without augmentation.

    Such images are copied at memory speed, or wait for a disk; passing them from another process takes longer.
    Order and content equal those of a loader without a thread. An error is raised in place of its batch. The thread
    ends with an error, after the last batch, or when the iteration is abandoned.
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
            pool.shutdown(wait=False)  # Lightning stops at the last batch without exhausting the iterator
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class ProcessLoader(DataLoader[T]):
    """A loader with worker processes. An error in a worker ends the iteration with the worker's message.

    Batches come through pipes; the processes need only a few pages of shared memory, for their locks.

    Raises:
        ConfigError: ``/dev/shm`` has no room for the locks.
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
        except DataError as error:  # torch has put its text behind a traceback
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None


_STARTED: WeakSet[Any] = WeakSet()
"""Active iterations of loaders with processes."""


# At exit Python sends its processes SIGTERM and waits for them, for ever if they ignore it.
@atexit.register
def _end_processes() -> None:
    for batches in _STARTED:
        batches._shutdown_workers()


def _read_next(batches: Iterator[T], device: int | None) -> list[T]:
    """The next batch; empty after the last, which comes early in a resumed epoch."""
    if device is not None:
        torch.accelerator.set_device_index(device)  # a thread starts on the first device; memory is pinned for this one
    return list(islice(batches, 1))


class _ByValue:
    """A tensor that a loader process sends through the pipe; it arrives as a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.array = tensor.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self.array,)


def send(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Wrap a batch in a loader process for sending.

    torch would put each tensor into its own shared memory, of which a container has 64 MB, and which is created,
    mapped and faulted in for every batch.
    """
    return {name: _ByValue(tensor) for name, tensor in batch.items()}


def choose_num_workers() -> int:
    """``num_workers`` for this machine: none beside a computing CPU, up to 8 per GPU."""
    return min(8, max((os.cpu_count() or 1) // n_node_ranks() - 1, 0)) if torch.cuda.is_available() else 0


def start_worker(_: int) -> None:
    """Initialize a loader process: one thread, and ignore the signals that stop a training."""
    cv2.setNumThreads(0)
    # A scheduler and Ctrl-C signal every process; the trainer handles the signal, and needs its batches to do so.
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


PROCESS_OPTIONS: dict[str, Any] = {
    "collate_fn": send,
    "worker_init_fn": start_worker,
    "persistent_workers": True,
}
"""Options of a loader with processes."""
