"""The cores of this machine that the process may use."""

import os


def count_cores() -> int:
    """Cores that this process may run on; where the system does not say (macOS), those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
