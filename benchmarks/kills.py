"""Kill a training at random moments, run the same command again, and compare with the training that was never killed.

    python benchmarks/kills.py --kills 30

A chain of two phases on a few small drawn images, with everything in it that a resume must bring back: BatchNorm that
trains, both kinds of schedule, early stopping, oversampling, training AUROC, an evaluation. Half of the kills come at a
random time, half at a random operation on a file below the run, such as in the middle of writing a checkpoint. Then all
files of the run must be what they are without a kill, byte for byte.

Every training is a process of its own, forked from this one so that the imports are paid once.
"""

import argparse
import hashlib
import os
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from figures import add_options, report
from rich.table import Table

# What train.py imports when it needs it: here once for all of its processes.
import cxrlit.evaluation.evaluate
import cxrlit.training.chain  # noqa: F401
from cxrlit.core.console import print_table, say
from cxrlit.training.phase_folder import RECORD, read_phase_record
from cxrlit.training.resume import find_resume

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
SETTINGS = (
    "data=synthetic",
    "data.n_patients=24",
    "data.image_px=64",
    "sampler=oversample",
    "metrics.train=true",
    "evaluate=true",
    "phase=frozen",
    "phases.scratch.img_size=32",
    "phases.scratch.batch_size=10",
    "phases.scratch.max_epochs=2",
    "phases.frozen.img_size=32",
    "phases.frozen.batch_size=10",
    "phases.frozen.max_epochs=5",
    "phases.frozen.scheduler.patience=0",
    "callbacks.early_stopping.patience=1",
    "trainer.checkpoint_every_n_steps=2",
    "trainer.num_workers=0",
)
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree"}


class Kill(NamedTuple):
    """When a process is killed: after some seconds, or at its n-th operation on a file of the run."""

    seconds: float | None = None
    operation: int | None = None

    def describe(self) -> str:
        """Say when the process is killed."""
        return f"file operation {self.operation}" if self.seconds is None else f"after {self.seconds:.1f} s"


NEVER = Kill()


class Lab:
    """Trains into one folder, again and again."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.log = folder / "runs", folder / "log.txt"
        self.arguments = [*SETTINGS, f"runs_dir={self.runs}", f"cache_dir={folder / 'cache'}"]

    def train(self, kill: Kill = NEVER) -> int:
        """Exit status of the command; negative: the signal that ended it."""
        child = os.fork()
        if child == 0:
            _run_child(lambda: _watch_files(self.runs, kill.operation), self.arguments, self.log)
        if kill.seconds is not None:
            deadline = time.perf_counter() + kill.seconds
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while time.perf_counter() < deadline and os.waitid(os.P_PID, child, how) is None:
                time.sleep(0.01)
            os.kill(child, signal.SIGKILL)  # a child that has ended is still there to be waited for
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def read_files(self) -> dict[str, str]:
        """A hash of every file of the run, but for the time that it took."""
        return {
            str(path.relative_to(self.runs)): hashlib.sha256(
                re.sub(rb'"seconds": [\d.]+', b"", path.read_bytes()) if path.name == RECORD else path.read_bytes()
            ).hexdigest()
            for path in sorted(self.runs.rglob("*"))
            if path.is_file()
        }

    def describe_state(self) -> str:
        """Where the run stands, as the next command finds it."""
        words = []
        for folder in sorted(self.runs.glob("*/*-*/"), reverse=True):  # scratch, frozen
            record = read_phase_record(folder)
            if record is None:
                words.append(f"{folder.name}: nothing")
            elif record["status"] == "done":
                words.append(f"{record['phase']} done")
            else:
                point, faults = find_resume(folder, record["id"])
                assert not faults, faults
                words.append(f"{record['phase']} {'begun' if point is None else point.position.describe()}")
        return ", ".join(words) or "nothing"


def _run_child(prepare: Callable[[], object], arguments: list[str], log: Path) -> None:
    status = 1
    try:
        sys.argv = [str(TRAIN), *arguments]
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        prepare()
        runpy.run_path(str(TRAIN), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(status)


def _watch_files(folder: Path, operation: int | None) -> None:
    """Count the operations on files below a folder, and kill this process at the n-th."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in WATCHED and str(arguments[0]).startswith(f"{folder}/"):
            count += 1
            (folder.parent / "operations").write_text(str(count)) if operation is None else None
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)  # what has threads of OpenMP cannot be forked: its children would wait for them for ever
    with tempfile.TemporaryDirectory() as name:
        n_equal = kill_often(Lab(Path(name)), options.kills, options.seed)
    what = "trainings killed at a random moment that ended with the bytes of the one that was not"
    rows = [{"what": what, "ours": n_equal, "baseline": options.kills, "wanted": "all"}]
    command = f"python benchmarks/kills.py --kills {options.kills} --seed {options.seed}"
    report("kills", command, rows, options.keep)
    raise SystemExit(n_equal != options.kills)


def kill_often(lab: Lab, n_kills: int, seed: int) -> int:
    """How many killed trainings end with the same bytes; prints each."""
    assert lab.train() == 0, lab.log.read_text()  # draws the images
    shutil.rmtree(lab.runs)
    start = time.perf_counter()
    assert lab.train() == 0, lab.log.read_text()
    seconds, n_operations = time.perf_counter() - start, int((lab.runs.parent / "operations").read_text())
    wanted = lab.read_files()
    say(f"Never killed: {seconds:.1f} s, {n_operations} operations on {len(wanted)} files")
    rng, table, n_equal = random.Random(seed), Table(), 0
    for column in ("kill", "when", "found", "identical"):
        table.add_column(column)
    number = 0
    while number < n_kills:
        shutil.rmtree(lab.runs)
        kill = Kill(rng.uniform(0, seconds)) if number % 2 else Kill(operation=rng.randint(1, n_operations))
        status = lab.train(kill)
        if status == 0:  # it was done before its time had come
            continue
        assert status == -signal.SIGKILL, (status, lab.log.read_text())
        number += 1
        found = lab.describe_state()
        ended = lab.train() == 0
        files = lab.read_files() if ended else {}
        different = [name for name in wanted.keys() | files.keys() if wanted.get(name) != files.get(name)]
        n_equal += not different
        verdict = "yes" if not different else f"no: {', '.join(sorted(different)[:4])}"
        table.add_row(str(number), kill.describe(), found, verdict)
        say(f"{number}: {kill.describe()}; {found}; {verdict}")
        if not ended:
            say(lab.log.read_text()[-2000:])
    print_table(table)
    return n_equal


if __name__ == "__main__":
    main()
