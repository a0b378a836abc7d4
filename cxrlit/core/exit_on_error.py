"""Exceptions as one line where the user can fix them; all others are bugs and keep their traceback."""

import sys

from cxrlit.core.errors import CXRLitError, first_line
from cxrlit.core.ranks import is_lost_peer, is_said_by_rank_0, rank

FAULT_EXIT_CODE = 2


def stop(error: CXRLitError) -> None:
    """Print an error as one line, once for all processes, and exit with a nonzero code."""
    line = "".join(character if character.isprintable() else " " for character in str(error))
    if not is_said_by_rank_0(error):
        print(f"error: {' '.join(line.split())[:2000]}", file=sys.stderr)
    raise SystemExit(FAULT_EXIT_CODE)


def name_fault(error: Exception) -> CXRLitError | None:
    """An exception as an error that the user can fix; None for a bug."""
    if isinstance(error, CXRLitError):
        return error
    if isinstance(error, OSError):  # disk full, permission denied, missing folder
        return CXRLitError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if isinstance(error, RuntimeError) and is_lost_peer(error):
        return CXRLitError(f"rank {rank()}: another process has ended or cannot be reached; it says why")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return CXRLitError(f"out of memory: take a smaller batch_size or img_size ({first_line(error)})")
    return None
