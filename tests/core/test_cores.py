"""How many cores there are, also where the system does not say which of them are ours; and threads on them."""

import os
from concurrent.futures import Future
from queue import Queue

import pytest

from cxrlit.core.cores import count_cores, open_pool


def test_cores_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert count_cores() == 3


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


def test_an_interrupt_stops_what_has_not_begun() -> None:
    awaited: Queue[Future[int]] = Queue()
    later: list[Future[int]] = []

    def be_interrupted() -> None:
        with open_pool(1) as pool:
            pool.submit(lambda: awaited.get().result(timeout=60))  # has the only thread until the next is given up
            later.append(pool.submit(int))
            awaited.put(later[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert later[0].cancelled()
