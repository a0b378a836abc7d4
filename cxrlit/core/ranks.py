"""Ranks of a distributed run: rank 0 decides, writes and prints; the others follow. Imports no torch."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from cxrlit.core.errors import CXRLitError, DivergenceError

P = ParamSpec("P")
T = TypeVar("T")


class RankZeroError(CXRLitError):
    """Rank 0 failed while the others waited for its result; rank 0 prints the reason."""


class _Joined:
    """State that ``set_ranks`` has set, and whether this process is inside a function of ``on_rank_0`` or in turn."""

    rank: int | None = None
    n_ranks = 1
    n_node_ranks = 1
    broadcast: Callable[[Callable[[], Any]], Any] | None = None
    in_turn = False


def set_ranks(
    rank: int, n_ranks: int, n_node_ranks: int, broadcast: Callable[[Callable[[], Any]], Any] | None = None
) -> None:
    """Record the rank of this process after it joined the others.

    Args:
        rank: Rank of this process.
        n_ranks: Number of processes.
        n_node_ranks: Number of processes on this machine.
        broadcast: Calls a function on rank 0 and returns its result on all ranks; None: a single process.
    """
    _Joined.rank, _Joined.n_ranks, _Joined.n_node_ranks = rank, n_ranks, n_node_ranks
    _Joined.broadcast = staticmethod(broadcast) if broadcast else None


def rank() -> int:
    """Rank of this process, from 0."""
    return _Joined.rank or 0


def n_ranks() -> int:
    """Number of processes in the run."""
    return _Joined.n_ranks


def n_node_ranks() -> int:
    """Number of processes of the run on this machine."""
    return _Joined.n_node_ranks


def is_said_by_rank_0(error: CXRLitError) -> bool:
    """Whether rank 0 meets the same error and prints it, so that this process need not."""
    if _Joined.rank is None:  # all ranks do the same; torchrun sets the rank from the start
        return os.environ.get("RANK", "0") != "0"
    return rank() > 0 and isinstance(error, (RankZeroError, DivergenceError))


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether the error says that a process that this one waits for has ended."""
    return n_ranks() > 1 and any(name in str(error) for name in ("gloo", "NCCL", "Connection closed by peer"))


def on_rank_0(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that all ranks call: rank 0 alone runs it; all get its result, plain data.

    Raises:
        RankZeroError: On the other ranks, where the function raises on rank 0.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if _Joined.broadcast is None or _Joined.in_turn:
            return function(*args, **kwargs)
        result: T = _Joined.broadcast(lambda: _take_turn(function, *args, **kwargs))
        return result

    return call


def rank_0_first(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that all ranks call: rank 0 runs it first, and the others find its files on the disk.

    Raises:
        RankZeroError: On the other ranks, where the function raises on rank 0.
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
