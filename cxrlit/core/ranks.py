"""Which of several processes this one is. Rank 0 decides, writes and speaks; the others follow it."""

import os

from cxrlit.core.errors import CXRLitError, DivergenceError


class RankZeroError(CXRLitError):
    """Rank 0 has failed at what the others wait for, and says why."""


class _Joined:
    """What ``set_ranks`` has set."""

    rank: int | None = None
    n_ranks = 1
    n_node_ranks = 1


def set_ranks(rank: int, n_ranks: int, n_node_ranks: int) -> None:
    """Say which process this is, once it has met the others."""
    _Joined.rank, _Joined.n_ranks, _Joined.n_node_ranks = rank, n_ranks, n_node_ranks


def rank() -> int:
    """Number of this process, from 0."""
    return _Joined.rank or 0


def n_ranks() -> int:
    """Number of processes that compute together."""
    return _Joined.n_ranks


def n_node_ranks() -> int:
    """How many of them share this machine."""
    return _Joined.n_node_ranks


def is_said_by_rank_0(error: CXRLitError) -> bool:
    """Whether rank 0 comes upon the same fault and says it, so that this process need not."""
    if _Joined.rank is None:  # all are doing the same: torchrun's number is known from the start
        return os.environ.get("RANK", "0") != "0"
    return rank() > 0 and isinstance(error, (RankZeroError, DivergenceError))


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether a process that this one waits for has ended."""
    return n_ranks() > 1 and any(name in str(error) for name in ("gloo", "NCCL", "Connection closed by peer"))
