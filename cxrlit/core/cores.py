"""CPU cores that this process may use, and thread pools on them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def count_cores() -> int:
    """Cores that this process may run on; all cores where the system does not say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_pool(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that cancels queued work at the first error or interrupt, instead of finishing it."""
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
