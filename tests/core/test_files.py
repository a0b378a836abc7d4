"""Files and folders are whole or not there, whatever happens while they are written."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from cxrlit.core.errors import CheckpointError, DataError
from cxrlit.core.files import (
    STAGED,
    NotAFileError,
    hash_file,
    hash_value,
    hold_lock,
    open_descriptor,
    open_regular,
    replace_file,
    replace_folder,
    sweep_staged,
    write_csv,
    write_json,
    write_text,
)
from cxrlit.data.split import read_split_file
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.archive import read_archive


@contextmanager
def limit_file_size(n_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond ``n_bytes``: what a full disk does, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on" / "the way.txt"
    write_text(path, "old")
    with replace_file(path) as staged:
        staged.write_text("new")
        assert staged.suffix == path.suffix
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list_names(path.parent) == [path.name]


@pytest.mark.parametrize("place", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    for read in (open_regular, open_descriptor, hash_file):
        with pytest.raises(NotAFileError, match=r"^not a file$"):
            read(path)
    with pytest.raises(CheckpointError, match=r": it cannot be read: not a file$"):
        read_archive(path)
    with pytest.raises(DataError, match=r": not a file$"):
        read_operating_point(path)
    with pytest.raises(DataError, match=r": it cannot be read: not a file$"):
        read_split_file(path)


def fail_midway(path: Path, text: str | None) -> None:
    with replace_file(path) as staged:
        if text is not None:
            staged.write_text(text)
        raise RuntimeError("midway")


@pytest.mark.parametrize("text", ["ne", None])
def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(path, text)
    assert path.read_text() == "old"
    assert list_names(tmp_path) == ["file.txt"]


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replace_file(path):
        pass
    assert path.read_text() == "old"


def test_no_space_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, pd.DataFrame({"a": [1]}))
    with pytest.raises(OSError, match="too large"), limit_file_size(1000):
        write_csv(path, pd.DataFrame({"a": range(10_000)}))
    assert path.read_text() == "a\n1\n"
    assert list_names(tmp_path) == ["table.csv"]


def test_a_fault_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(OSError, match="too large") as fault, limit_file_size(1000):
        write_csv(path, pd.DataFrame({"a": range(10_000)}))
    assert fault.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, replace_file(path):
        (tmp_path / "other").open()
    assert str(missing.value.filename) == str(tmp_path / "other")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    others = [".a.lock", ".hidden", "a-0123abcd.csv", ".a-0123abc.csv", ".a-0123abcg.csv", "metrics.csv"]
    for name in (*others, ".a-0123abcd.csv", ".a-b-0123abcd.tar", ".a-0123abcd"):
        (tmp_path / name).write_text("half")
    with replace_file(tmp_path / "made here.csv") as staged:
        staged.write_text("half")
        assert STAGED.fullmatch(staged.name)
    (tmp_path / ".folder-0123abcd").mkdir()
    sweep_staged(tmp_path)
    assert list_names(tmp_path) == sorted([*others, ".folder-0123abcd", "made here.csv"])


def test_of_some_names_alone(tmp_path: Path) -> None:
    others = [".predictions-0123abcd.csv", ".eval_a-0123abcd.png"]
    for name in (*others, ".eval_a-0123abcd.csv", ".dropped-0123abcd.csv"):
        (tmp_path / name).write_text("half")
    sweep_staged(tmp_path, ["eval_*.csv", "dropped.csv"])
    assert list_names(tmp_path) == sorted(others)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    old = tmp_path / "file"
    if kind == "file":
        old.write_text("old")
    body = "staged.write_text('half')" if kind == "file" else "(staged / 'part').write_text('half')"
    program = f"""
import os, pathlib, signal
from cxrlit.core.files import replace_{kind}
with replace_{kind}(pathlib.Path({str(old)!r})) as staged:
    {body}
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert old.read_text() == "old" if kind == "file" else not old.exists()


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "folder.d"
    with replace_folder(path) as staged:
        (staged / "deep" / "er").mkdir(parents=True)
        (staged / "deep" / "er" / "file").write_text("whole")
        assert not path.exists()
    assert (path / "deep" / "er" / "file").read_text() == "whole"
    assert list_names(path.parent) == [path.name]


def fill_and_fail_midway(path: Path) -> None:
    with replace_folder(path) as staged:
        (staged / "file").write_text("half")
        raise RuntimeError("midway")


def test_a_folder_of_a_block_that_raises_never_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="midway"):
        fill_and_fail_midway(tmp_path / "folder")
    assert list_names(tmp_path) == []


def test_the_folder_of_who_was_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replace_folder(path) as staged:
        (staged / "file").write_text("second")
        with replace_folder(path) as other:
            (other / "file").write_text("first")
    assert (path / "file").read_text() == "first"
    assert list_names(tmp_path) == ["folder"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("old")
    with pytest.raises(OSError, match="taken"), replace_folder(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_text() == "old"
    assert list_names(tmp_path) == ["taken"]


def test_a_lock_holds_others_out_until_its_process_dies(tmp_path: Path) -> None:
    program = f"""
import pathlib
from cxrlit.core.files import hold_lock
with hold_lock(pathlib.Path({str(tmp_path / "thing")!r}), "waiting"):
    print("held", flush=True)
    input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.communicate("\n")
    assert second.returncode == 0
    with hold_lock(tmp_path / "thing", "waiting"):
        pass


def test_a_table_is_written_plainly(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a,b", "ü"], "value": [0.123456, float("nan")]}, index=[7, 8])
    write_csv(tmp_path / "table.csv", table, float_format="%.3f")
    assert (tmp_path / "table.csv").read_bytes() == 'name,value\n"a,b",0.123\nü,\n'.encode()


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": [1, None]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert list_names(tmp_path) == ["value.json"]


def test_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20)
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("other", [{"a": 1, "b": [2, 1]}, {"a": 1, "b": [1, "2"]}, {"a": 1}, [["a", 1], ["b", [1, 2]]]])
def test_hash_of_a_value_knows_it_from_another(other: object) -> None:
    value = {"a": 1, "b": [1, 2]}
    assert hash_value(value) == hash_value({"b": [1, 2], "a": 1})
    assert hash_value(value) != hash_value(other)
    assert len(hash_value(value, digits=7)) == 7


def test_a_worker_that_imports_its_script_anew_does_not_wait_for_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from cxrlit.core.files import hold_lock

with hold_lock(Path({str(tmp_path)!r}) / "set", "waiting"):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(abs, -1).result()
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert '__name__ == "__main__"' in done.stderr
