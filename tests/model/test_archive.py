"""Checkpoint files: the same content is the same bytes, and what is read is what was written."""

import os
import re
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bombs import BOMBS, write_bomb, write_pickled
from hostile import Payload, write_member, write_old_torch, write_pickle, write_whole
from test_files import limit_file_size, list_names

from cxrlit.core.errors import CheckpointError
from cxrlit.model.archive import NOT_OURS, read_archive, write_archive

CONTENT: dict[str, Any] = {
    "numbers": [1, 2.5, float("inf"), None, True],
    "names": {"a": ("b", "c"), 3: OrderedDict(x="y")},
    "weights": {"one": torch.arange(6.0).view(2, 3), "two": torch.zeros(0, dtype=torch.int64)},
}


def test_what_is_written_is_read_by_us_by_torch_and_by_any_unzip(tmp_path: Path) -> None:
    path = tmp_path / "made" / "a.ckpt"
    write_archive(path, CONTENT)
    for content in (read_archive(path), torch.load(path, weights_only=True)):
        assert content.keys() == CONTENT.keys()
        assert content["numbers"] == CONTENT["numbers"]
        assert content["names"] == CONTENT["names"]
        assert content["weights"]["one"].equal(CONTENT["weights"]["one"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert list_names(path.parent) == ["a.ckpt"]


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ckpt", "other name.ckpt"):
        write_archive(tmp_path / name, CONTENT)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "other name.ckpt").read_bytes()


def refuse(path: Path) -> str:
    with pytest.raises(CheckpointError, match=f"^{path}: ") as fault:
        read_archive(path)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def is_refused(path: Path) -> bool:
    """Whether a damaged file is; one that is not holds what was written."""
    try:
        content = read_archive(path)
    except CheckpointError:
        return bool(refuse(path))
    assert repr(content) == repr(CONTENT)
    return False


def test_a_bit_that_is_flipped_in_a_member_is_noticed_and_elsewhere_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_archive(path, CONTENT)
    content = bytearray(path.read_bytes())
    inside: set[int] = set()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            head = member.header_offset
            start = head + 30 + sum(struct.unpack_from("<HH", content, head + 26))  # the lengths of name and padding
            inside |= set(range(start, start + member.file_size))
    assert len(inside) > 400
    for place in sorted({*inside, *range(0, len(content), 5)}):
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        assert is_refused(path) or place not in inside
        content[place] ^= 1 << place % 8


def test_a_file_that_is_cut_is_refused_and_one_that_grew_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_archive(path, CONTENT)
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refuse(path)
    for grown in (content + b"\0", b"\0" + content):
        path.write_bytes(grown)
        is_refused(path)


def test_members_that_lie_over_each_other_are_not_read(tmp_path: Path) -> None:
    """The entry of the largest member stands a thousand times in the archive's directory."""
    path = tmp_path / "a.ckpt"
    write_archive(path, {"weights": torch.zeros(1000)})
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.filelist, key=lambda member: member.file_size)
        archive.filelist += [largest] * 1000
        archive._didModify = True
    assert "it is damaged" in refuse(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Its two readers, Python's and torch's, need not take the same one."""
    write_archive(tmp_path / "a.ckpt", CONTENT)
    with zipfile.ZipFile(tmp_path / "a.ckpt", "a") as archive:
        archive.writestr("archive/data.pkl", archive.read("archive/data.pkl"))
    assert "refused: it holds a member twice" in refuse(tmp_path / "a.ckpt")


def test_a_file_that_torch_named_otherwise_is_not_taken(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "other.ckpt")  # the name is that of the folder in the archive
    assert NOT_OURS in refuse(tmp_path / "other.ckpt")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refuse(tmp_path / "nope.ckpt")
    assert "cannot be read" in refuse(tmp_path)


WAYS: dict[str, Callable[[Path, Any], None]] = {
    "pickle": write_pickle,
    "old format of torch": write_old_torch,
    "whole": write_whole,
    "a member that leaves its folder": lambda path, _: write_member(path, {"a": 1}, "../../evil"),
    "a member of another folder": lambda path, _: write_member(path, {"a": 1}, "/etc/evil"),
    "code": lambda path, _: write_member(path, {"a": 1}, "archive/code/evil.py"),
    "members that unpack to more": lambda path, _: write_member(path, {"a": 1}, "", zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.safetensors", "a.png"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_hostile_file_runs(tmp_path: Path, way: str, name: str) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "folder"
    folder.mkdir()
    WAYS[way](folder / name, {"cxrlit": Payload(canary)})
    refuse(folder / name)
    assert list_names(tmp_path) == ["folder"]
    assert list_names(folder) == [name]


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_pickle_would_make_large_is_not_built(tmp_path: Path, name: str) -> None:
    write_bomb(tmp_path / "a.ckpt", name)
    assert "refused: it holds more than plain types" in refuse(tmp_path / "a.ckpt")


def test_a_state_that_is_copied_again_and_again_is_not_built(tmp_path: Path) -> None:
    """Each ordered dict takes over the attributes of all of them."""
    path, state = tmp_path / "a.ckpt", [(f"k{place}", place) for place in range(4000)]
    write_whole(path, {"a": [OrderedDict(state) for _ in range(2)]})
    read_archive(path)
    dicts = []
    for _ in range(100):
        dicts.append(OrderedDict())
        dicts[-1].__dict__.update(state)
    write_whole(path, {"a": dicts})
    assert "refused: it holds more than plain types" in refuse(path)


@pytest.mark.parametrize("call", [b"R", b"\x81", b"Q"], ids=["REDUCE", "NEWOBJ", "BINPERSID"])
def test_a_long_tuple_that_many_calls_take_is_not_built(tmp_path: Path, call: bytes) -> None:
    """Each would keep a copy of it, as the sizes of a tensor of thousands of dimensions."""
    size = b"(" + b"K\x01" * 3000 + b"tq\x00"
    write_pickled(tmp_path / "a.ckpt", size + b"ctorch\ndevice\nq\x01](" + (b"h\x01h\x00" + call) * 4000 + b"e\x86")
    assert "refused: it would take far more memory than the file is large" in refuse(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("value", "kind"), [(np.float64(1), "float64"), ({1}, "set"), (Path("a"), "PosixPath"), (np.zeros(2), "ndarray")]
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: Any, kind: str) -> None:
    path = tmp_path / "a.ckpt"
    write_archive(path, CONTENT)
    with pytest.raises(CheckpointError, match=rf"a\.ckpt: callbacks\.mine\.state is a {kind}"):
        write_archive(path, {"callbacks": {"mine": {"state": [1, value]}}})
    assert read_archive(path)["numbers"] == CONTENT["numbers"]
    assert list_names(tmp_path) == ["a.ckpt"]


def nest(n_levels: int, width: int) -> list[Any]:
    """Each level holds the one below several times: a pickle of a few bytes a level."""
    value: list[Any] = [1]
    for _ in range(n_levels):
        value = [value] * width
    return value


@pytest.mark.parametrize(
    "value",
    [
        nest(40, 2),
        nest(2, 10_000),
        nest(101, 1),
        torch.zeros(1).expand(10**13),
        torch.zeros(3, device="meta"),
    ],
)
def test_what_would_fill_the_memory_is_neither_read_nor_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.ckpt"
    write_whole(path, {"config": {"a": value}})
    assert re.search(r"refused: config\.a is (nested too deeply or holds too much|a tensor)", refuse(path))
    with pytest.raises(CheckpointError, match=r"config\.a is .*, which cannot be saved"):
        write_archive(path, {"config": {"a": value}})


def test_a_sparse_tensor_is_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_whole(path, {"a": torch.zeros(2, 2).to_sparse()})
    assert "refused: it holds more than plain types" in refuse(path)
    with pytest.raises(CheckpointError, match="a is a tensor that is not all in memory, which cannot be saved"):
        write_archive(path, {"a": torch.zeros(2, 2).to_sparse()})


def test_without_space_the_old_file_stays_and_the_message_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_archive(path, CONTENT)
    fault = r"a\.ckpt: it cannot be written \(File too large\)"
    with pytest.raises(CheckpointError, match=fault), limit_file_size(9000):
        write_archive(path, {"weights": torch.zeros(100_000)})
    assert read_archive(path).keys() == CONTENT.keys()
    assert list_names(tmp_path) == ["a.ckpt"]


def test_on_a_disk_that_is_full_the_old_file_stays(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        path = tmp_path / "a.ckpt"
        write_archive(path, CONTENT)
        with pytest.raises(CheckpointError, match=r"a\.ckpt: it cannot be written \(No space left on device\)"):
            write_archive(path, {"weights": torch.zeros(100_000)})
        assert read_archive(path).keys() == CONTENT.keys()
        assert list_names(tmp_path) == ["a.ckpt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
