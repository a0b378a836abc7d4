"""From an exception to one line: what a user can mend is named; all else is the program's own, with its traceback."""

import sys

from cxrlit.core.errors import CXRLitError, first_line
from cxrlit.core.ranks import is_lost_peer, is_said_by_rank_0, rank

FAULT_EXIT_CODE = 2


def stop(error: CXRLitError) -> None:
    """Print a fault as one line, once by all processes, and leave with an exit code that is not 0."""
    line = "".join(character if character.isprintable() else " " for character in str(error))
    if not is_said_by_rank_0(error):
        print(f"error: {' '.join(line.split())[:2000]}", file=sys.stderr)
    raise SystemExit(FAULT_EXIT_CODE)


def name_fault(error: Exception) -> CXRLitError | None:
    """An exception as a fault that the user can mend; None where it is none."""
    if isinstance(error, CXRLitError):
        return error
    if isinstance(error, OSError):  # no space, no permission, no such folder
        return CXRLitError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if isinstance(error, RuntimeError) and is_lost_peer(error):
        return CXRLitError(f"rank {rank()}: another process has ended or cannot be reached; it says why")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return CXRLitError(f"out of memory: take a smaller batch_size or img_size ({first_line(error)})")
    return None
