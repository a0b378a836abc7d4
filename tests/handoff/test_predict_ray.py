"""``cxrlit predict --engine ray``: the rows of one machine, whatever dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bundles import write_bundle, write_images
from tiny import REPO, plain_environment

from cxrlit import __version__
from cxrlit.commands.cli import main
from cxrlit.core.errors import ConfigError
from cxrlit.handoff.engine import PredictOptions
from cxrlit.handoff.predictor import Predictor
from cxrlit.handoff.ray_engine import Share, choose_share
from cxrlit.handoff.ray_worker import Job, RayWorker

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def make_options(**changes: Any) -> PredictOptions:
    values: dict[str, Any] = {
        "bundle": Path("bundle"), "files": [Path("in")], "out": Path("preds.csv"), "backend": "auto", "precision": None,
        "batch_size": None, "n_threads": None, "heatmaps": False, "as_json": False, "engine": "ray",
    }  # fmt: skip
    return PredictOptions(**{**values, **changes})


def make_job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "version": __version__, "bundle": None, "settings": {}, "heatmaps": False, "folder": None, "batch_size": 2
    }  # fmt: skip
    return Job(**{**values, **changes})


def test_without_ray_one_line_names_the_extra(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    [image] = write_images(tmp_path / "in", 1)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(bundle), str(image), "--out", str(tmp_path / "preds.csv"), "--engine", "ray"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: --engine ray needs ray: pip install 'cxrlit[ray]'\n"
    assert not (tmp_path / "preds.csv").exists()


CPU_NODE, GPU_NODE, HEAD = {"CPU": 16.0}, {"CPU": 32.0, "GPU": 4.0}, {"memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "options", "share"),
    [
        ([CPU_NODE], {}, Share(16, 0, 1)),
        ([HEAD, CPU_NODE, {"CPU": 8.0}], {}, Share(8, 0, 3)),
        ([CPU_NODE, CPU_NODE], {"n_threads": 5}, Share(5, 0, 6)),
        ([CPU_NODE, GPU_NODE], {}, Share(8, 1, 4)),
        ([GPU_NODE], {"n_threads": 16}, Share(16, 1, 2)),
        ([CPU_NODE, GPU_NODE], {"device": "cuda"}, Share(8, 1, 4)),
        ([CPU_NODE, GPU_NODE], {"device": "cpu"}, Share(16, 0, 3)),
        ([GPU_NODE], {"backend": "onnx"}, Share(32, 0, 1)),
        ([GPU_NODE], {"precision": "int8"}, Share(32, 0, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], {}, Share(1, 1, 2)),
    ],
)
def test_each_worker_has_a_share_of_a_node(nodes: Any, options: dict[str, Any], share: Share) -> None:
    assert choose_share(nodes, make_options(**options)) == share


@pytest.mark.parametrize(
    ("nodes", "options", "wanted"),
    [
        ([HEAD], {}, "1 CPU"),
        ([CPU_NODE, CPU_NODE], {"n_threads": 17}, "17 CPUs"),
        ([CPU_NODE], {"device": "cuda", "n_threads": 4}, "4 CPUs and a GPU"),
    ],
)
def test_a_cluster_without_room_for_a_worker_is_refused(nodes: Any, options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"^--engine ray: no node of the cluster has {wanted}: "):
        choose_share(nodes, make_options(**options))


def test_a_worker_of_another_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f": it has cxrlit {__version__}, and not 9.9: install that there" in RayWorker(make_job(version="9.9")).fault
    monkeypatch.setitem(sys.modules, "cxrlit", None)
    assert f"): install cxrlit {__version__} there" in RayWorker(make_job()).fault


def test_a_worker_that_lacks_a_file_says_so(bundle: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install -e '.[ray]'")
    [image] = write_images(tmp_path, 1)
    worker = RayWorker(make_job(version="9.9"))
    worker.fault, worker.predictor = "", Predictor.load(bundle, "onnx", n_threads=1)  # which is in Ray's store else
    names = [(str(image), ""), (str(tmp_path / "lost.png"), "")]
    files = [pyarrow.table({"file": [json.dumps(name) for name in names[:n_files]]}) for n_files in (1, 2)]
    [whole], [lost] = ([table.to_pydict() for table in worker(batch)] for batch in files)
    assert json.loads(whole["row"][0])["probs"]
    assert json.loads(lost["row"][0])["fault"].endswith(
        f": {tmp_path / 'lost.png'}: there is no such file; each worker needs all files"
    )


needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="pip install -e '.[ray]'")

SITE = """
import os, signal, sys
from pathlib import Path

seen, opened = Path(os.environ["SEEN"]), []

def watch(event, arguments):
    if event != "open" or not str(arguments[0]).endswith(".png"):
        return
    opened.append(0)
    (seen / f"worker-{os.getpid()}").touch()
    if len(opened) == 20:
        try:
            (seen / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

if any(text.endswith("default_worker.py") for text in sys.orig_argv):
    if (seen / "without").exists():
        sys.modules["cxrlit"] = None
    sys.addaudithook(watch)
"""
"""The first worker that opens twenty images is killed at the twentieth; and there may be no cxrlit."""

KILL = """
import os, signal, sys
from cxrlit.commands.cli import main
from cxrlit.handoff.journal import Journal

add = Journal.add

def count(self, rows):
    if self.n_rows == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, rows)

Journal.add = count
main(sys.argv[1:])
"""


class TwoNodes:
    """A Ray cluster of two nodes on this machine, each with a CPU.

    Attributes:
        seen: A folder with a file for each worker that has opened an image, and one that says that one was killed.
    """

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.seen = folder / "seen"
        self.seen.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{folder}:{REPO}")
            patch.setenv("SEEN", str(self.seen))
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            self.cluster.add_node(num_cpus=1)

    def predict(self, *arguments: str | Path, program: Sequence[str] = ("-m", "cxrlit")) -> Any:
        """``cxrlit predict --engine ray`` on the cluster."""
        return run_command("predict", *arguments, program=program, RAY_ADDRESS=self.cluster.address)


def run_command(*arguments: str | Path, program: Sequence[str] = ("-m", "cxrlit"), **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments), "--engine", "ray", "--threads", "1"],
        env=plain_environment(PYTHONPATH=str(REPO), **environment),
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    made = TwoNodes(tmp_path_factory.mktemp("cluster"))
    yield made
    made.cluster.shutdown()


@pytest.fixture
def nodes(cluster: TwoNodes) -> TwoNodes:
    """The cluster, where nothing has happened."""
    for path in cluster.seen.iterdir():
        path.unlink()
    return cluster


def predict_here(bundle: Path, folder: Path, out: Path, *arguments: str) -> bytes:
    main(["predict", str(bundle), str(folder), "--out", str(out), "--threads", "1", *arguments])
    return out.read_bytes()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--backend", "onnx", "--heatmaps"], ["--backend", "torch", "--device", "cpu"]])
def test_a_worker_that_is_killed_changes_nothing(
    bundle: Path, tmp_path: Path, nodes: TwoNodes, arguments: list[str]
) -> None:
    folder = tmp_path / "in"
    write_images(folder, 60)
    for number in (0, 7, 31):
        (folder / f"{number:03d}.png").write_text("no")
    (folder / os.fsdecode(b"caf\xe9.png")).write_text("no")
    (folder / "link.png").symlink_to(REPO / "README.md")
    arguments = [*arguments, "--batch-size", "2"]
    whole = predict_here(bundle, folder, tmp_path / "here" / "preds.csv", *arguments)
    done = nodes.predict(bundle, folder, "--out", tmp_path / "there" / "preds.csv", *arguments)
    assert done.returncode == 0, done.stderr
    assert "1 thread, 2 Ray workers, 2 images at once" in done.stdout
    assert (nodes.seen / "killed").exists()
    assert len(list(nodes.seen.glob("worker-*"))) == 3  # two, and one in the place of the one that was killed
    assert (tmp_path / "there" / "preds.csv").read_bytes() == whole
    if "--heatmaps" in arguments:
        here, there = (
            {path.name: path.read_bytes() for path in (tmp_path / side / "preds-heatmaps").iterdir()}
            for side in ("here", "there")
        )
        assert len(here) == 57
        assert there == here


@needs_ray
@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    bundle: Path, tmp_path: Path, nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which the workers do not start in
    write_images(Path("in"), 60)
    arguments = ("--backend", "onnx", "--batch-size", "4")
    whole = predict_here(bundle, Path("in"), Path("whole.csv"), *arguments)
    killed = nodes.predict(bundle, "in", "--out", "preds.csv", *arguments, program=("-c", KILL))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = nodes.predict(bundle, "in", "--out", "preds.csv", *arguments)
    assert done.returncode == 0, done.stderr
    assert "20 files are done" in done.stdout
    assert Path("preds.csv").read_bytes() == whole


@needs_ray
@pytest.mark.slow
def test_workers_without_cxrlit_are_one_line(bundle: Path, tmp_path: Path, nodes: TwoNodes) -> None:
    [image] = write_images(tmp_path, 1)
    (nodes.seen / "without").touch()
    done = nodes.predict(bundle, image, "--out", tmp_path / "preds.csv")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: Ray worker on ")
    assert line.endswith(f"): install cxrlit {__version__} there")


@needs_ray
@pytest.mark.slow
def test_without_a_cluster_ray_starts_on_this_machine(bundle: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 5)
    whole = predict_here(bundle, tmp_path / "in", tmp_path / "whole.csv", "--json")
    done = run_command("predict", bundle, tmp_path / "in", "--out", tmp_path / "preds.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "preds.csv").read_bytes() == whole


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(bundle: Path, tmp_path: Path) -> None:
    [image] = write_images(tmp_path, 1)
    done = run_command("predict", bundle, image, "--out", tmp_path / "preds.csv", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --engine ray: ")
