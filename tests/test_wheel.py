"""What is built and installed: wheel, sdist and editable install, and every command outside of a clone."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from tiny import REPO

BUILD = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
FIND = "import cxrlit; from cxrlit.config.folders import find_conf; print(cxrlit.__file__, find_conf(), sep='\\n')"


def build(what: str, project: Path, out: Path) -> Path:
    """Build a wheel or an sdist in a process of its own: the backend works in the current folder."""
    command = [sys.executable, "-c", BUILD, f"build_{what}", str(out)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.strip()


def read_folder(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", REPO, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", REPO, folder)) as archive:
        archive.extractall(folder, filter="data")
    [root] = (path for path in folder.iterdir() if path.is_dir())
    return root


def test_a_wheel_has_conf_and_all_that_is_read_of_the_package(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    folders = {"cxrlit": "cxrlit", "hydra_plugins": "hydra_plugins", "conf": "cxrlit/conf"}
    expected = {
        f"{place}/{name}": text
        for folder, place in folders.items()
        for name, text in read_folder(REPO / folder).items()
    }
    assert {
        "cxrlit/py.typed",
        "cxrlit/html/base.css",
        "cxrlit/html/sections.html",
    } <= expected.keys()
    assert contents == expected


def test_an_sdist_builds_the_same_wheel_and_has_the_tests(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    assert build("wheel", unpacked, tmp_path).read_bytes() == wheel.read_bytes()
    listed = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=False).stdout
    names = [name for name in listed.splitlines() if (REPO / name).is_file()]
    assert [name for name in names if not (unpacked / name).is_file()] == []


class Environment:
    """A virtual environment that shares the installed packages of this one, and nothing of the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        [self.packages] = folder.glob("lib/python*/site-packages")
        shared = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        (self.packages / "shared.pth").write_text("\n".join(sorted(shared)))

    def install(self, *arguments: str | Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        self.check([*pip, "install", *options, *map(str, arguments)], self.folder)

    def run(self, name: str, *arguments: str | Path, cwd: Path, code: int = 0) -> str:
        """What a program of the environment prints."""
        return self.check([str(self.folder / "bin" / name), *map(str, arguments)], cwd, code)

    @staticmethod
    def check(command: list[str], cwd: Path, code: int = 0) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment = {**kept, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


OWN_CLASS = """
from pytorch_lightning import Callback


class Seen(Callback):
    def on_train_start(self, trainer, pl_module):
        print("seen by a class of my own")
"""

OWN_EXPERIMENT = """
# @package _global_
defaults:
  - smoke
  - _self_
phase: scratch
callbacks:
  seen: {_target_: mine.Seen}
"""


@pytest.mark.slow
def test_every_command_runs_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    environment, work = Environment(tmp_path / "environment"), tmp_path / "work"
    environment.install(wheel)
    (work / "own" / "experiment").mkdir(parents=True)
    (work / "own" / "experiment" / "mine.yaml").write_text(OWN_EXPERIMENT)
    (work / "mine.py").write_text(OWN_CLASS)

    def run(*arguments: str | Path, code: int = 0) -> str:
        return environment.run("cxrlit", *arguments, cwd=work, code=code)

    places = environment.run("python", "-c", FIND, cwd=work).split()
    assert places == [str(environment.packages / "cxrlit" / name) for name in ("__init__.py", "conf")]
    assert "experiment: action_plan, cxr_start, fast, full, keras_port, mine, small_data, smoke\n" in run(
        "train", "--config-dir", "own", "--help"
    )
    trained = run("train", "--config-dir", "own", "experiment=mine", "evaluate=true")
    assert "seen by a class of my own\n" in trained
    [phase] = (work / "runs" / "default").glob("scratch-*")
    assert f"Evaluate it: cxrlit evaluate ckpt={phase.relative_to(work)}\n" in trained
    run("evaluate", f"ckpt={phase}", "out=eval", "n_replicates=100")
    assert (work / "eval" / "report.html").is_file()
    for name in ("predictions_test.csv", "thresholds.json"):
        assert (work / "eval" / name).read_bytes() == (phase / "eval" / name).read_bytes()
    run("train", "-m", "experiment=smoke", "phase=scratch", "seed=1")
    [ranking] = work.glob("runs/default/sweeps/*/ranking.csv")
    assert len(ranking.read_text().splitlines()) == 2
    run("prepare", "data=synthetic", "data.n_patients=40", "data.image_px=64", "sizes=[48]")
    run("inspect", "data=synthetic", "data.n_patients=40", "data.image_px=64", "out=page.html")
    assert (work / "page.html").is_file()
    run("compare", phase, "eval", "n_replicates=100", "out=compared", code=2)  # so few patients decide nothing
    run("export", phase, "--out", "bundle")
    images = sorted(work.glob("cache/synthetic-*/images_*/images/*.png"))[:3]
    run("predict", "bundle", *images, "--out", "predicted.csv")
    assert len((work / "predicted.csv").read_text().splitlines()) == 1 + len(images)


@pytest.mark.slow
def test_an_editable_install_reads_the_conf_of_the_repository(unpacked: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install("--editable", unpacked)
    (unpacked / "cxrlit" / "conf").mkdir()  # as an old build might have left it
    places = environment.run("python", "-c", FIND, cwd=tmp_path).split()
    assert places == [str(unpacked / "cxrlit" / "__init__.py"), str(unpacked / "conf")]
    assert not list(environment.packages.glob("cxrlit/*"))
    config = unpacked / "conf" / "train.yaml"
    config.write_text(config.read_text().replace("\nseed: 0\n", "\nseed: 123\n"))
    for command in (["cxrlit", "train"], ["python", unpacked / "train.py"]):
        assert "\nseed: 123\n" in environment.run(str(command[0]), *command[1:], "--cfg", "job", cwd=tmp_path)
