"""A training takes a transform of the user's own, and refuses one that cannot be before any work."""

import subprocess
import sys
from pathlib import Path

import pytest
from lab import Lab
from tiny import REPO, plain_environment

OWN = """
import os

import albumentations


class Invert(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        with open("applied", "a") as file:
            file.write(f"{img.shape[0]}\\n")
        return 255 - img
"""


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("augment.transforms.affine.rotate=far", "augment.transforms.affine.rotate=far: input should be a valid tuple"),
        ("+augment.transforms.x._target_=my.Nope", "augment.transforms.x._target_=my.Nope: No module named 'my'"),
        ("+augment.transforms.x._target_=torch.nn.Identity", "augment.transforms.x: torch.nn.Identity is no transform"),
        (
            "+augment.transforms.x={_target_:albumentations.Resize,height:16,width:16}",
            "augment.transforms.x: Resize makes",
        ),
        (
            "+augment.transforms.x={_target_:albumentations.CLAHE,far:1}",
            "augment.transforms.x.far: albumentations.CLAHE",
        ),
    ],
)
def test_a_transform_that_cannot_be_stops_before_any_work(lab: Lab, override: str, fault: str) -> None:
    outcome = lab.train(override)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {fault}")
    assert outcome.err.count("\n") == 1
    assert not lab.runs.exists()


MINE = ["+augment.transforms.mine._target_=my_transforms.Invert", "+augment.transforms.mine.p=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a transform of the user's own."""
    (tmp_path / "my_transforms.py").write_text(OWN)
    return tmp_path


def check_applied(folder: Path) -> None:
    sizes = (folder / "applied").read_text().split()
    assert set(sizes) == {"32"}
    assert len(sizes) > 60  # the training images, and the trials before


@pytest.mark.slow
def test_a_transform_of_the_current_folder_trains(lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lab.train_well(*MINE)
    check_applied(folder)


@pytest.mark.slow
def test_the_command_finds_a_transform_of_the_current_folder(lab: Lab, folder: Path) -> None:
    settings = [*lab.list_settings(), *lab.list_start(), *MINE]
    command = [sys.executable, str(REPO / "train.py"), *settings]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=plain_environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    check_applied(folder)
