"""Preparing that is killed, or done twice at once: the same command finishes it, with the same bytes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import stores
from stores import read_tree, run_in_fork, write_images
from tiny import REPO, write_tree

from cxrlit.data.store.reader import verify_store

N_IMAGES = 150

COMMAND = """
import os, signal, sys, threading, time
from cxrlit.commands.cli import main
from cxrlit.data.store import builder as build, shard_writer as shards
shards.SHARD_BYTES = 20_000
decode, build_store, count, start = build.decode_image, build.build_store, [], []
def count_decode(content):
    count.append(1)
    return decode(content)
def begin(*arguments):
    start.append(time.perf_counter())
    delay = float(sys.argv[1])
    if delay >= 0:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    build_store(*arguments)
    print("seconds", time.perf_counter() - start[0])
build.decode_image, build.build_store = count_decode, begin
print("ready", flush=True)
sys.stdin.readline()
main(["prepare", *sys.argv[2:]])
print("decoded", len(count))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "nih", n_patients=N_IMAGES)


class Run:
    """``cxrlit prepare`` in a process of its own, that starts when it is told to."""

    def __init__(self, tree: Path, cache: Path, sizes: str = "[32,48]", kill_after: float = -1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(kill_after), "data=nih", f"data.root={tree}", f"sizes={sizes}",
             f"cache_dir={cache}", "num_workers=2"],
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def finish(self) -> tuple[int, str]:
        out, err = self.process.communicate("\n", timeout=300)
        return self.process.returncode, out + err


def read_number(out: str, name: str) -> float:
    [line] = [line for line in out.splitlines() if line.startswith(name)]
    return float(line.split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_any_moment_change_no_byte(tree: Path, tmp_path: Path, seed: int) -> None:
    code, out = Run(tree, tmp_path / "wanted").finish()
    assert code == 0, out
    seconds, n_kills = read_number(out, "seconds"), 0
    for _ in range(4):
        after = random.Random(f"{seed} {n_kills}").uniform(0, seconds)
        code, killed = Run(tree, tmp_path / "cache", kill_after=after).finish()
        assert code in {0, -9}, killed
        if code == 0:
            break
        n_kills += 1
    code, out = Run(tree, tmp_path / "cache").finish()
    assert code == 0, out
    assert n_kills > 0
    [folder] = [path for path in (tmp_path / "cache" / "store").iterdir() if path.is_dir()]
    assert read_tree(tmp_path / "cache" / "store") == read_tree(tmp_path / "wanted" / "store")
    assert verify_store(folder) == []


@pytest.mark.slow
def test_a_kill_at_each_operation_on_a_file_changes_no_byte(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 40, bad=(7,))
    done = subprocess.run(
        [sys.executable, stores.__file__, str(tmp_path), "3"],
        env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert int(done.stdout.split()[-1]) > 80


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [("[32,48]", "[32,48]"), ("[32]", "[48]"), ("[32,48]", "[48]")])
def test_two_processes_at_once_build_once(tree: Path, tmp_path: Path, sizes: tuple[str, str]) -> None:
    assert Run(tree, tmp_path / "wanted").finish()[0] == 0
    runs = [Run(tree, tmp_path / "cache", each) for each in sizes]
    for run in runs:
        assert run.process.stdin is not None
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    outs = [run.finish() for run in runs]
    assert [code for code, _ in outs] == [0, 0], outs
    n_decoded = sum(read_number(out, "decoded") for _, out in outs)
    if sizes[0] == sizes[1]:
        assert n_decoded == N_IMAGES
    else:
        assert n_decoded in {N_IMAGES, 2 * N_IMAGES}  # the one that has both sizes to make may come first
    assert read_tree(tmp_path / "cache" / "store") == read_tree(tmp_path / "wanted" / "store")


def test_a_fork_tells_how_it_ended() -> None:
    assert run_in_fork(lambda: None) == 0
    assert run_in_fork(lambda: os.kill(os.getpid(), 9)) == -9
