"""The cores of this machine that the process may use, and threads on them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def count_cores() -> int:
    """Cores that this process may run on; where the system does not say (macOS), those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_pool(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that stop at the first fault or interrupt, and not when all is done."""
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
