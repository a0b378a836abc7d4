"""The ranks of a distributed run. Rank 0 decides, writes and prints; the others follow it. Imports no torch."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from cxrlit.core.errors import CXRLitError, DivergenceError

P = ParamSpec("P")
T = TypeVar("T")


class RankZeroError(CXRLitError):
    """Rank 0 has failed at what the others wait for, and says why."""


class _Joined:
    """What ``set_ranks`` has set, and whether this process is inside a function of rank 0 or in turn."""

    rank: int | None = None
    n_ranks = 1
    n_node_ranks = 1
    broadcast: Callable[[Callable[[], Any]], Any] | None = None
    in_turn = False


def set_ranks(
    rank: int, n_ranks: int, n_node_ranks: int, broadcast: Callable[[Callable[[], Any]], Any] | None = None
) -> None:
    """Say which process this is, once it has met the others.

    Args:
        rank: Number of this process.
        n_ranks: Number of processes.
        n_node_ranks: Number of those on this machine.
        broadcast: Calls a function on rank 0 and returns its result on all ranks; None: there is one process.
    """
    _Joined.rank, _Joined.n_ranks, _Joined.n_node_ranks = rank, n_ranks, n_node_ranks
    _Joined.broadcast = staticmethod(broadcast) if broadcast else None


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


def on_rank_0(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that all ranks call: rank 0 alone runs it, and all get what it returns, plain data.

    Raises:
        RankZeroError: On the others, where it raises on rank 0.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if _Joined.broadcast is None or _Joined.in_turn:
            return function(*args, **kwargs)
        result: T = _Joined.broadcast(lambda: _take_turn(function, *args, **kwargs))
        return result

    return call


def rank_0_first(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that all ranks call: rank 0 runs it first, and the others find what it wrote to the disk.

    Raises:
        RankZeroError: On the others, where it raises on rank 0.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        made: list[T] = []
        on_rank_0(lambda: made.append(function(*args, **kwargs)))()
        return made[0] if made else _take_turn(function, *args, **kwargs)

    return call


def _take_turn(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function inside which no rank waits for another."""
    _Joined.in_turn = True
    try:
        return function(*args, **kwargs)
    finally:
        _Joined.in_turn = False
