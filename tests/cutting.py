"""Trainings that are cut off at a moment that is chosen, and what two trainings must have in common."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tiny import same_weights

from cxrlit.model.archive import read_archive

STEPS_AN_EPOCH = 5  # 35 training images of 50, 8 in a batch
RICH = (
    "max_epochs=4",
    "lr=1e-2",
    "metrics.train=true",
    "logger=csv",
    "phases.frozen.scheduler.patience=0",
    "callbacks.early_stopping.patience=1",
    "trainer.checkpoint_every_n_steps=2",
)
"""A frozen phase with everything that has a state: schedule, early stopping, training AUROC, step log."""


class Cut(BaseException):
    """To the files it is what a kill is: the program does not know it and does nothing about it."""


@contextmanager
def before_call(owner: Any, name: str, number: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Do something before the n-th call of a function inside the block; the list counts the calls."""
    original, count = getattr(owner, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            act()
        return original(*arguments, **options)

    with patch.object(owner, name, call):
        yield count


def cut() -> None:
    raise Cut


def ask(signum: int) -> Callable[[], None]:
    """Send this process a signal."""
    return lambda: os.kill(os.getpid(), signum)


def assert_same(first: Path, second: Path) -> None:
    """Two phase folders hold the same training: the same weights, tables and facts to the last bit."""
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for name in ("metrics.csv", "split.csv", "pos_weight.csv", "log/metrics.csv", "curves.png"):
        if (first / name).exists():
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
    for name in ("best.ckpt", "last.ckpt"):
        one, two = (read_archive(folder / name) for folder in (first, second))
        for facts in (one["cxrlit"], two["cxrlit"]):
            facts["config"] |= {"runs_dir": "", "trainer": ""}
        assert one["cxrlit"] == two["cxrlit"]
        assert same_weights(one["state_dict"], two["state_dict"]), name
    one, two = (json.loads((folder / "phase.json").read_text()) for folder in (first, second))
    assert one.keys() == two.keys()
    assert {**one, "best_sha256": "", "seconds": 0} == {**two, "best_sha256": "", "seconds": 0}
