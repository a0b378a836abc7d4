"""Stores that lie elsewhere: fetched once, whole or not at all, whatever the address serves."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import stores
from stores import SIDE, SMALL_SHARD, check_pixels, find_folder, flip_byte, prepare, read_folder, write_images
from tiny import run_command, write_tree

from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.dataset import load_data
from cxrlit.data.store import remote
from cxrlit.data.store import shard_writer as shards
from cxrlit.data.store.builder import prepare_stores
from cxrlit.data.store.manifest import images_path
from cxrlit.data.store.open_stores import open_data_store, open_data_stores, verify_data_stores
from cxrlit.data.store.reader import Store
from cxrlit.data.store.remote import open_remote_store, read_stored_files


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SMALL_SHARD)
    monkeypatch.setattr(remote, "WAITS", (0,) * 5)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images in 4 shards, of which the eighth is none."""
    return write_images(tmp_path_factory.mktemp("remote") / "images", 36, bad=(7,))


@pytest.fixture
def index(images: Path) -> pd.DataFrame:
    return read_folder(images)


@pytest.fixture(scope="module")
def prepared(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with their store at 24 and 16 px; not to be changed."""
    cache = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "SHARD_BYTES", SMALL_SHARD)
        prepare(images, cache, SIDE, 16)
    return cache


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    shutil.copytree(prepared, tmp_path / "elsewhere")
    [folder] = stores.list_stores(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback, with a fault for each of the first requests of a name.

    Attributes:
        folder: What it serves.
        faults: For the end of a path what goes wrong, in turn; the last one again and again where it is ``always``.
        requests: How often each path was asked for.
        n_sent: Bytes of bodies.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.n_sent = folder, 0
        self.faults: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take_fault(self, path: str) -> str:
        for end, faults in self.faults.items():
            if path.endswith(end) and faults:
                return faults[0] if faults[-1] == "always" else faults.pop(0)
        return ""

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests[path] += 1
        fault = self.server.take_fault(path)
        file = self.server.folder / path.strip("/")
        if fault.isdigit() or not file.is_file():
            self.send_error(int(fault or 404))
            return
        content = file.read_bytes()
        if fault == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        if fault != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        while fault == "endless":
            self.send(bytes(2**16))
        self.send(content[: len(content) // 2] if fault == "cut" else content)

    def send(self, content: bytes) -> None:
        self.wfile.write(content)
        self.server.n_sent += len(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def list_fetched(cache: Path) -> set[str]:
    """Files in the cache, without locks."""
    return {path.name for path in (cache / "remote").rglob("*") if path.is_file() and path.suffix != ".lock"}


# What is fetched


@pytest.fixture(params=["memory", "http", "file", "folder"])
def address(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The store at an address of each kind."""
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.put(str(folder), "/bucket/small", recursive=True)
        yield "memory://bucket/small"
        memory.rm("/bucket", recursive=True)
    elif request.param == "http":
        yield request.getfixturevalue("server").address
    else:
        yield str(folder) if request.param == "folder" else f"file://{folder}"


def test_the_pixels_are_those_of_the_store(address: str, index: pd.DataFrame, cache: Path) -> None:
    for size in (SIDE, 16):
        for given in (address, address + "/"):
            store = open_remote_store(given, index, size, "pad", cache)
            check_pixels(store, index)
            assert store.dropped["image"].tolist() == ["007.png"]


def test_the_files_are_those_of_the_index(address: str, index: pd.DataFrame, cache: Path) -> None:
    files = read_stored_files(address, cache)
    assert files.sizes == dict(zip(index["file"], index["n_bytes"], strict=True))


def test_some_images_of_the_store(address: str, index: pd.DataFrame, cache: Path) -> None:
    some = index[::5].reset_index(drop=True)
    check_pixels(open_remote_store(address, some, SIDE, "pad", cache), some)
    other = pd.concat([some, pd.DataFrame({"image": ["new.png"]})])
    with pytest.raises(DataError, match=r"^data\.store=.*: it does not have new\.png$"):
        open_remote_store(address, other, SIDE, "pad", cache)


def test_what_does_not_fit_is_one_line(address: str, index: pd.DataFrame, cache: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.store=\S+: it was prepared with data\.resize=pad, not crop$"):
        open_remote_store(address, index, SIDE, "crop", cache)
    sizes = "" if "://" in address else r", but of 16, 24"
    with pytest.raises(DataError, match=rf"no images of 99 px{sizes}: cxrlit prepare sizes=\[99\] makes them$"):
        open_remote_store(address, index, 99, "pad", cache)
    with pytest.raises(DataError, match=r"there is no prepared store \(no store\.json\): name the folder that holds"):
        open_remote_store(address + "/24", index, SIDE, "pad", cache)
    with pytest.raises(DataError, match=r"there is no prepared store \(no store\.json\): name the folder that holds"):
        read_stored_files(address + "/nowhere", cache)


def test_what_is_here_is_not_fetched_again(server: Server, index: pd.DataFrame, cache: Path) -> None:
    for address in (server.address, f"{server.address}/", server.address):
        read_stored_files(address, cache)
        open_remote_store(address, index, SIDE, "pad", cache)
    assert {path.rpartition("/")[2]: count for path, count in server.requests.items() if count > 1} == {
        "store.json": 6,
        "manifest.json": 3,
    }
    assert not any(path.startswith("/16/") or path.endswith("seen.csv") for path in server.requests)


def test_only_the_shards_that_are_needed_are_fetched(server: Server, index: pd.DataFrame, cache: Path) -> None:
    whole = open_remote_store(server.address, index, SIDE, "pad", cache / "whole")
    first = index[(whole.positions >= 0) & (whole.positions < whole.starts[1])].reset_index(drop=True)
    check_pixels(open_remote_store(server.address, first, SIDE, "pad", cache / "part"), first)
    assert {path.name for path in cache.glob("part/remote/*/24/*.npy")} == {whole.paths[0].name}


def test_a_store_that_changes_there(images: Path, server: Server, cache: Path, tmp_path: Path) -> None:
    changing = tmp_path / "changing"
    shutil.copytree(images, changing)
    prepare(changing, tmp_path / "there")
    server.folder = find_folder(prepare(changing, tmp_path / "there")[0])
    index = read_folder(changing)
    open_remote_store(server.address, index, SIDE, "pad", cache)
    (changing / "003.png").write_bytes((changing / "005.png").read_bytes())
    os.utime(changing / "003.png", ns=(1, 1))
    [wanted] = prepare(changing, tmp_path / "there")
    server.requests.clear()
    store = open_remote_store(server.address, read_folder(changing), SIDE, "pad", cache)
    np.testing.assert_array_equal(store.take(range(35)), wanted.take(range(35)))
    assert sum(path.endswith(".npy") for path in server.requests) == 1


def test_a_folder_is_read_in_place(folder: Path, index: pd.DataFrame, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    store = open_remote_store(str(folder), index, SIDE, "pad", cache)
    read_stored_files(str(folder), cache)
    assert store.paths[0].parents[1] == folder
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before
    assert not cache.exists()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_a_damaged_folder_is_refused_and_left_alone(folder: Path, index: pd.DataFrame, cache: Path) -> None:
    [path] = folder.glob("24/shard-001-*.npy")
    os.truncate(path, 200)
    with pytest.raises(DataError, match=r"^data\.store=.*: shard-001-\w+\.npy is damaged$"):
        open_remote_store(str(folder), index, SIDE, "pad", cache)
    assert path.stat().st_size == 200


# Lines that are cut, servers that lie


FILES = ("store.json", "files.csv", "24/manifest.json", "images.csv", "shard")


def fault_of(server: Server, folder: Path, file: str) -> Callable[..., None]:
    """Sets what goes wrong with a file."""
    ends = {"images.csv": "24/images-*.csv", "shard": "24/shard-002-*.npy"}
    [path] = folder.glob(ends.get(file, file))
    return lambda *faults: server.faults.update({str(path.relative_to(folder)): list(faults)})


def open_both(server: Server, index: pd.DataFrame, cache: Path) -> Store:
    """What a command does: the files first, then the images."""
    read_stored_files(server.address, cache)
    return open_remote_store(server.address, index, SIDE, "pad", cache)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("faults", [["cut"], ["cut", "500", "cut", "503"], ["wrong"], ["cut", "wrong"]], ids="+".join)
def test_a_fault_that_passes(
    server: Server, folder: Path, index: pd.DataFrame, cache: Path, file: str, faults: list[str]
) -> None:
    if "wrong" in faults and file.endswith(".json"):
        faults = [fault for fault in faults if fault != "wrong"]  # its last byte is an empty line
    fault_of(server, folder, file)(*faults)
    check_pixels(open_both(server, index, cache), index)
    assert not any(server.faults.values())
    assert not [path for path in cache.rglob(".*") if path.suffix != ".lock"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fault", ["cut", "500", "403"])
def test_a_fault_that_does_not_pass(
    server: Server, folder: Path, index: pd.DataFrame, cache: Path, file: str, fault: str
) -> None:
    fault_of(server, folder, file)(fault, "always")
    with pytest.raises(DataError, match=r"^data\.store=http\S+: \S+ cannot be fetched \(.+\)$") as caught:
        open_both(server, index, cache)
    assert "\n" not in str(caught.value)
    assert max(server.requests.values()) == len(remote.WAITS)
    server.faults.clear()
    check_pixels(open_both(server, index, cache), index)


@pytest.mark.parametrize("file", ["files.csv", "images.csv", "shard"])
def test_wrong_bytes_are_refused(server: Server, folder: Path, index: pd.DataFrame, cache: Path, file: str) -> None:
    fault_of(server, folder, file)("wrong", "always")
    with pytest.raises(DataError, match=r"^data\.store=http\S+: \S+ is not what it should be$"):
        open_both(server, index, cache)
    assert max(server.requests.values()) == len(remote.WAITS)
    names = {"files.csv": "files.csv", "images.csv": "images-", "shard": "shard-002"}
    assert not [name for name in list_fetched(cache) if name.startswith(names[file])]
    server.faults.clear()
    check_pixels(open_both(server, index, cache), index)


@pytest.mark.parametrize("file", FILES)
def test_bytes_without_end_are_not_waited_for(
    server: Server, folder: Path, index: pd.DataFrame, cache: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_TABLE_BYTES", 10_000)
    fault_of(server, folder, file)("endless", "always")
    with pytest.raises(DataError, match=r"is longer than the [\d,]+ bytes that it may have$"):
        open_both(server, index, cache)
    assert server.n_sent < 60 * 2**20
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 10**6


@pytest.mark.parametrize("file", ["files.csv", "images.csv", "shard"])
def test_what_is_missing_there(server: Server, folder: Path, index: pd.DataFrame, cache: Path, file: str) -> None:
    fault_of(server, folder, file)("404", "always")
    with pytest.raises(DataError, match=r"^data\.store=http\S+: \S+ is missing there$"):
        open_both(server, index, cache)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def set_shard(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["shards"][1].update(changes)


def move_images(manifest: dict[str, Any]) -> None:
    """The sums are right, the parts are not."""
    for number, change in ((0, 1), (1, -1)):
        manifest["shards"][number]["n_images"] += change


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a name that leads out": set_shard(file="../../../etc/passwd"),
    "a name that leads out, of the right form": set_shard(file="shard-001-../../aaaaaa.npy"),
    "an absolute name": set_shard(file="/tmp/shard-001-0123456789ab.npy"),
    "a name of two lines": set_shard(file="shard-001-0123456789ab.npy\n"),
    "a name with another hash": set_shard(file="shard-001-0123456789ab.npy"),
    "digits of another script": set_shard(file="shard-٠٠١-0123456789ab.npy"),
    "a huge count": set_shard(n_images=2**62),
    "a huge count in all": lambda manifest: manifest.update(n_images=2**39),
    "a count that fits in no word": set_shard(n_images=10**400),
    "a negative count": set_shard(n_images=-1),
    "not a number": set_shard(n_images=float("nan")),
    "infinity": set_shard(n_rows=float("inf")),
    "a fraction": set_shard(n_images=1.5),
    "a count as text": set_shard(n_images="9"),
    "true": set_shard(n_images=True),
    "null": set_shard(sha256=None),
    "a shard twice": lambda manifest: manifest["shards"].insert(1, manifest["shards"][1]),
    "a shard twice in place of another": lambda manifest: manifest["shards"].__setitem__(2, manifest["shards"][0]),
    "shards in another order": lambda manifest: manifest["shards"].reverse(),
    "too many shards": lambda manifest: manifest.update(shards=manifest["shards"] * 1000),
    "no shards": lambda manifest: manifest.update(shards=[]),
    "counts that do not add up": set_shard(n_images=3),
    "images in the wrong shard": move_images,
    "another size": lambda manifest: manifest.update(size=16),
    "a huge size": lambda manifest: manifest.update(size=10**6),
    "size zero": lambda manifest: manifest.update(size=0),
    "another version": lambda manifest: manifest.update(version=1),
    "other data": lambda manifest: manifest.update(source="other"),
    "another resize": lambda manifest: manifest.update(resize="crop"),
    "an odd resize": lambda manifest: manifest.update(resize="\x1b[31m"),
    "a key too many": lambda manifest: manifest.update(__class__="x"),
    "a key too few": lambda manifest: manifest.pop("shards"),
    "a hash with a path": lambda manifest: manifest.update(images_sha256="../" * 21 + "a"),
    "10 MB": lambda manifest: manifest.update(more="x" * 10**7),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_local", [True, False], ids=["in place", "fetched"])
def test_a_hostile_manifest(folder: Path, index: pd.DataFrame, cache: Path, name: str, is_local: bool) -> None:
    edit_json(folder / "24" / "manifest.json", HOSTILE[name])
    address = str(folder) if is_local else f"file://{folder}"
    with pytest.raises(DataError, match=r"^data\.store=\S+: ") as caught:
        open_remote_store(address, index, SIDE, "pad", cache)
    assert len(str(caught.value)) < 500 + len(str(folder))
    assert "\n" not in str(caught.value)
    assert not [name for name in list_fetched(cache) if name.endswith(".npy")]
    check_pixels(open_remote_store(address, index, 16, "pad", cache), index)


def forge_table(folder: Path, name: str, content: bytes) -> None:
    """Put other content in place of a table, with the right hash."""
    digest = stores.hashlib.sha256(content).hexdigest()
    if name == "files.csv":
        (folder / name).write_bytes(content)
        edit_json(folder / "store.json", partial(dict.update, files_sha256=digest, n_files=content.count(b"\n") - 1))
    else:
        (folder / "24" / images_path(digest)).write_bytes(content)
        edit_json(folder / "24" / "manifest.json", partial(dict.update, images_sha256=digest))


FORGED_FILES = {
    "a huge size": b"image,file,n_bytes\na.png,a.png,99999999999999999999999\n",
    "a negative size": b"image,file,n_bytes\na.png,a.png,-1\n",
    "not a size": b"image,file,n_bytes\na.png,a.png,many\n",
    "no size": b"image,file,n_bytes\na.png,a.png,\n",
    "an image twice": b"image,file,n_bytes\na.png,a.png,1\na.png,b.png,1\n",
    "no column": b"image,n_bytes\na.png,1\n",
    "a row too long": b"image,file,n_bytes\na.png,a.png,1,2,3\nb.png\n",
    "nothing": b"",
    "no text": b"\xff\xfe\x00\x80" * 100,
}


@pytest.mark.parametrize("name", FORGED_FILES)
def test_a_hostile_table_of_files(folder: Path, cache: Path, name: str) -> None:
    forge_table(folder, "files.csv", FORGED_FILES[name])
    for address in (str(folder), f"file://{folder}"):
        with pytest.raises(DataError, match=r"^data\.store=\S+: (files\.csv|store\.json) is damaged"):
            read_stored_files(address, cache)


def test_a_hostile_table_of_images(folder: Path, index: pd.DataFrame, cache: Path) -> None:
    [table] = folder.glob("24/images-*.csv")
    lines = table.read_bytes().splitlines(keepends=True)
    forged = {
        "an image twice": [*lines[:-1], lines[1]],
        "a row less": lines[:-1],
        "a row more": [*lines, b"more.png,0,\n"],
        "the bad one elsewhere": [lines[0], *sorted(lines[1:], key=lambda line: b"not a" not in line)],
        "no column": [line.partition(b",")[0] + b"\n" for line in lines],
    }
    for name, content in forged.items():
        forge_table(folder, "images", b"".join(content))
        for address in (str(folder), f"file://{folder}"):
            with pytest.raises(DataError, match=r"^data\.store=\S+: .*(is damaged|do not belong together)"):
                open_remote_store(address, index, SIDE, "pad", cache)
            assert not [name for name in list_fetched(cache) if name.endswith(".npy")], name


def test_a_shard_with_a_forged_header(folder: Path, index: pd.DataFrame, cache: Path) -> None:
    """Its hash is right, and what it says of itself is not what the manifest says."""
    [path] = folder.glob("24/shard-001-*.npy")
    images = np.load(path)
    np.save(path, images.reshape(len(images), SIDE // 2, SIDE * 2))
    digest = stores.hashlib.sha256(path.read_bytes()).hexdigest()
    renamed = path.with_name(f"shard-001-{digest[:12]}.npy")
    path.rename(renamed)
    edit_json(folder / "24" / "manifest.json", set_shard(file=renamed.name, sha256=digest))
    for address in (str(folder), f"file://{folder}"):
        with pytest.raises(DataError, match=r"shard-001-\w+\.npy is damaged$"):
            open_remote_store(address, index, SIDE, "pad", cache)


# Addresses that do not answer


def stop_answering(server: Server) -> None:
    server.shutdown()
    server.server_close()


def test_an_address_that_stops_answering(
    server: Server, index: pd.DataFrame, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_both(server, index, cache)
    stop_answering(server)
    check_pixels(open_both(server, index, cache), index)
    said = capsys.readouterr().out
    assert said.count("going on with what was fetched before") == 2  # files, and images
    some = index[:5]
    check_pixels(open_remote_store(server.address, some, SIDE, "pad", cache), some)


def test_what_was_not_fetched_before_it_stopped_answering(server: Server, index: pd.DataFrame, cache: Path) -> None:
    whole = open_remote_store(server.address, index, SIDE, "pad", cache)
    whole.paths[1].unlink()
    stop_answering(server)
    with pytest.raises(DataError, match=r"shard-001-\w+\.npy cannot be fetched \(Cannot connect to host"):
        open_remote_store(server.address, index, SIDE, "pad", cache)
    with pytest.raises(DataError, match=r"16/manifest\.json was not fetched before, and the address cannot be reached"):
        open_remote_store(server.address, index, 16, "pad", cache)


def test_an_address_that_never_answered(server: Server, index: pd.DataFrame, cache: Path) -> None:
    stop_answering(server)
    for read in (read_stored_files, lambda *given: open_remote_store(given[0], index, SIDE, "pad", given[1])):
        with pytest.raises(DataError, match=r"^data\.store=http\S+: store\.json cannot be fetched \(Cannot connect"):
            read(server.address, cache)


def test_nonsense_does_not_take_the_place_of_what_was_fetched(
    server: Server, folder: Path, index: pd.DataFrame, cache: Path
) -> None:
    open_both(server, index, cache)
    (folder / "store.json").write_text("<html>Please log in</html>")
    with pytest.raises(DataError, match=r"store\.json is damaged"):
        open_both(server, index, cache)
    stop_answering(server)
    check_pixels(open_both(server, index, cache), index)


def test_damage_in_the_cache_is_mended(server: Server, index: pd.DataFrame, cache: Path) -> None:
    store = open_remote_store(server.address, index, SIDE, "pad", cache)
    os.truncate(store.paths[0], 500)
    store.paths[1].unlink()
    [table] = store.paths[0].parent.glob("images*.csv")
    flip_byte(table, 50)
    (store.paths[0].parent / "manifest.json").write_text("{")
    check_pixels(open_remote_store(server.address, index, SIDE, "pad", cache), index)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense://bucket/nih", "Protocol not known: nonsense"),
        ("github://x", "."),
        ("s3://bucket/nih", "Install s3fs"),
        ("gs://bucket/nih", "Please install gcsfs"),
    ],
)
def test_a_protocol_that_is_not_there(cache: Path, address: str, message: str) -> None:
    if address.startswith("s3") and __import__("importlib.util").util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(DataError, match=rf"^data\.store={address}: .*{message}") as caught:
        read_stored_files(address, cache)
    assert "\n" not in str(caught.value)


def test_a_disk_without_the_space(
    server: Server, index: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000})())
    with pytest.raises(DataError, match=r"what is to be fetched needs 0\.0 GiB more and the disk has"):
        open_remote_store(server.address, index, SIDE, "pad", cache)
    assert not [name for name in list_fetched(cache) if name.endswith(".npy")]


FETCH = """
import sys
from pathlib import Path
from stores import check_pixels, read_folder
from cxrlit.data.store.remote import open_remote_store, read_stored_files
index = read_folder(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
read_stored_files(sys.argv[1], Path(sys.argv[3]))
check_pixels(open_remote_store(sys.argv[1], index, 24, "pad", Path(sys.argv[3])), index)
"""


@pytest.mark.slow
def test_several_processes_fetch_once(server: Server, images: Path, cache: Path) -> None:
    server.faults = {"store.json": ["500", "cut"], ".npy": ["cut", "cut", "cut"]}
    paths = f"{Path(stores.__file__).parent}:{Path(stores.__file__).parents[2]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, server.address, str(images), str(cache)],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, out + err
    assert server.requests["/files.csv"] == 1
    assert sum(count for path, count in server.requests.items() if path.endswith(".npy")) == 4 + 3


# From end to end


def test_training_data_without_an_image_file(make_nih_tree: Any, make_nih_config: Any, tmp_path: Path) -> None:
    tree = make_nih_tree()
    config = make_nih_config(tree)
    data = load_data(config, LABELS, tmp_path / "cache")
    wanted, small = open_data_stores(data, [32, 16], "pad", tmp_path / "cache")
    address = find_folder(wanted)
    for folder in tree.glob("images_*"):
        shutil.rmtree(folder)
    for store in (str(address), f"file://{address}"):
        config = make_nih_config(tree, store=store)
        again = load_data(config, LABELS, tmp_path / "other")
        pd.testing.assert_frame_equal(
            again.index.drop(columns=["path", "mtime_ns"]), data.index.drop(columns=["path", "mtime_ns"])
        )
        assert (again.index_hash, again.split_hash) == (data.index_hash, data.split_hash)
        for before in (wanted, small):
            opened = open_data_store(again, before.size, "pad", tmp_path / "other")
            np.testing.assert_array_equal(opened.take(opened.positions), before.take(before.positions))
    with pytest.raises(DataError, match="verify nih where it was prepared"):
        verify_data_stores(again, "pad", tmp_path / "other")
    views = load_data(make_nih_config(tree, store=str(address), views=["PA"]), LABELS, tmp_path / "other")
    assert len(open_data_store(views, 16, "pad", tmp_path / "other").positions) == len(views.index)


def test_verifying_what_a_filter_shares(
    make_nih_tree: Any, make_nih_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_nih_tree()
    [table] = tree.glob("*.csv")
    text = table.read_text().splitlines()
    text[5:20] = [line.replace(",PA,", ",AP,") for line in text[5:20]]
    table.write_text("\n".join(text) + "\n")
    whole = load_data(make_nih_config(tree), LABELS, tmp_path)
    some = load_data(make_nih_config(tree, views=["PA"]), LABELS, tmp_path)
    assert len(some.index) == len(whole.index) - 15
    with pytest.raises(DataError, match="nih: it is not prepared"):
        verify_data_stores(some, "pad", tmp_path)
    store = open_data_store(whole, 32, "pad", tmp_path)
    part = open_data_store(some, 32, "pad", tmp_path)
    assert part.paths == store.paths
    verify_data_stores(some, "pad", tmp_path)
    assert "every byte of the images at 32 px is as it was written" in capsys.readouterr().out
    flip_byte(store.paths[0], -1)
    with pytest.raises(DataError, match=r"^1 fault, the first: .* was removed; run the same command without --verify"):
        verify_data_stores(some, "pad", tmp_path)
    open_data_store(some, 32, "pad", tmp_path)
    verify_data_stores(some, "pad", tmp_path)
    open_data_store(whole, 32, "pad", tmp_path)
    verify_data_stores(whole, "pad", tmp_path)


def test_a_folder_that_data_store_names_is_verified_and_left_alone(
    make_nih_tree: Any, make_nih_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_nih_tree()
    store = open_data_store(load_data(make_nih_config(tree), LABELS, tmp_path), 32, "pad", tmp_path)
    folder = store.paths[0].parents[1]
    data = load_data(make_nih_config(tree, store=str(folder)), LABELS, tmp_path / "other")
    verify_data_stores(data, "pad", tmp_path / "other")
    assert "every byte of the images at 32 px is as it was written" in " ".join(capsys.readouterr().out.split())
    flip_byte(store.paths[0], -1)
    with pytest.raises(DataError, match=r"^1 fault, the first: .*npy is damaged; prepare nih anew where data\.store="):
        verify_data_stores(data, "pad", tmp_path / "other")
    assert store.paths[0].is_file()


@pytest.mark.slow
def test_training_from_a_store_alone(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "nih")
    phases = [f"phases.scratch.{setting}" for setting in ("img_size=32", "batch_size=8", "max_epochs=1")]
    common = ["data=nih", f"data.root={tree}", "phase=scratch", "model.weights=none", "trainer.num_workers=0",
              "logger=none", *phases]  # fmt: skip
    first = run_command("train.py", *common, f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'first'}")
    assert first.code == 0, first.err
    [store] = [path for path in (tmp_path / "cache" / "store").iterdir() if path.is_dir()]
    shutil.rmtree(tree / "images")
    second = run_command(
        "train.py", *common, f"data.store='file://{store}'", f"cache_dir={tmp_path / 'other'}",
        f"runs_dir={tmp_path / 'second'}", "evaluate=true",
    )  # fmt: skip
    assert second.code == 0, second.err
    metrics = [next((tmp_path / name).rglob("metrics.csv")).read_text() for name in ("first", "second")]
    assert metrics[0] == metrics[1]
    assert list((tmp_path / "second").rglob("predictions*.csv"))
    lost = run_command("train.py", *common, "data.store=/nowhere", f"runs_dir={tmp_path / 'third'}")
    assert lost.code == 2
    assert len(lost.err.strip().splitlines()) == 1
    assert "data.store=/nowhere: there is no prepared store" in lost.err


def test_stores_of_the_cache_are_never_changed_by_who_reads_them(images: Path, folder: Path, cache: Path) -> None:
    """An address may be the cache of another user: what is written there is not for us to mend."""
    index = read_folder(images)
    [path] = folder.glob("24/shard-000-*.npy")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_remote_store(str(folder), index, SIDE, "pad", cache)
    check_pixels(prepare_stores(index, "small", [SIDE], "pad", folder.parents[1])[0], index)
