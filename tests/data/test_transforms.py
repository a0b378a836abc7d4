"""What may be a transform, who finds it, and what is said of one that may not be."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augmenting import FLIP, SEEDS, draw_noise, make_augment

import cxrlit
from cxrlit.core.errors import ConfigError

OWN = """
import random

import albumentations
import numpy as np


class Lines(albumentations.ImageOnlyTransform):
    def __init__(self, gray: int = 0, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.gray = gray

    def get_params(self):
        return {"row": self.py_random.randrange(8)}

    def apply(self, img, row, **params):
        img[row] = self.gray
        return img


class Global(Lines):
    def get_params(self):
        return {"row": random.randrange(8)}


class Wide(Lines):
    def apply(self, img, row, **params):
        return img.astype(np.uint16)


class Broken(Lines):
    def apply(self, img, row, **params):
        raise RuntimeError("two\\nlines")


class Unasked:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own."""
    (tmp_path / "my_own_transforms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_transforms", raising=False)


@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize(
    "crop",
    [
        {"_target_": "RandomResizedCrop"},
        {"_target_": "RandomSizedCrop", "min_max_height": [20, 30]},
        {"_target_": "Resize"},
        {"_target_": "OneOf", "transforms": [{"_target_": "albumentations.RandomResizedCrop"}]},
    ],
    ids=str,
)
def test_a_transform_that_needs_a_size_gets_the_images(crop: dict[str, Any], side: int) -> None:
    assert make_augment(side, crop=crop)(draw_noise(side), 0).shape == (side, side)


@pytest.mark.usefixtures("own")
def test_a_transform_of_the_users_own() -> None:
    augment, image = make_augment(8, mine={"_target_": "my_own_transforms.Lines", "gray": 7, "p": 1}), draw_noise(8)
    changed = [augment(image, seed) for seed in SEEDS]
    assert {int((made == 7).all(axis=1).sum()) for made in changed} == {1}
    assert len({made.tobytes() for made in changed}) == 8
    np.testing.assert_array_equal(image, draw_noise(8))


FAULTS = [
    ({"p": 1}, "._target_: it is missing: "),
    ({"_target_": "Nope"}, "._target_=albumentations.Nope: albumentations has no Nope"),
    (
        {"_target_": "HorizontalFlip", "often": 1},
        ".often: albumentations.HorizontalFlip has no such argument; it takes p",
    ),
    ({"_target_": "HorizontalFlip", "p": 2}, ".p=2: input should be less than or equal to 1"),
    (
        {"_target_": "Affine", "rotate": "far"},
        ".rotate=far: input should be a valid tuple; input should be a valid num",
    ),
    ({"_target_": "GaussNoise", "std_range": [0.5, 0.2]}, ".std_range=[0.5, 0.2]: first value should be less than"),
    (
        {"_target_": "Resize", "height": 16, "width": 16},
        ": Resize makes 16 x 16 uint8 of 64 x 64 uint8: shape and type",
    ),
    (
        {"_target_": "RandomCrop", "height": 99, "width": 99},
        ": RandomCrop cannot change a gray image, 64 x 64 uint8",
    ),
    ({"_target_": "Normalize"}, ": Normalize makes 64 x 64 float32 of 64 x 64 uint8: shape and type must stay"),
    ({"_target_": "ToRGB"}, ": ToRGB makes 64 x 64 x 3 uint8 of 64 x 64 uint8: shape and type must stay"),
    ({"_target_": "ToTensorV2"}, ": ToTensorV2 makes a Tensor of 64 x 64 uint8: shape and type must stay"),
    (
        {"_target_": "MaskDropout"},
        ": MaskDropout needs mask, and gets the image alone: augment.transforms.x=null drops",
    ),
    (
        {"_target_": "BBoxSafeRandomCrop"},
        ": BBoxSafeRandomCrop cannot change a gray image, 64 x 64 uint8: KeyErr",
    ),
    ({"_target_": "HueSaturationValue"}, ": HueSaturationValue cannot change a gray image, 64 x 64 uint8: UserW"),
    (
        {"_target_": "OneOf", "transforms": [{"_target_": "albumentations.CLAHE", "clip": 3}]},
        ".transforms.0.clip: albumentations.CLAHE has no such argument; it takes clip_limit, tile_grid_size, p",
    ),
    (
        {
            "_target_": "OneOf",
            "transforms": [{"_target_": "albumentations.CLAHE"}, {"_target_": "albumentations.ToRGB"}],
        },
        ": ToRGB makes 64 x 64 x 3 uint8 of 64 x 64 uint8: shape and type must stay",
    ),
    ({"_target_": "torch.nn.Identity"}, ": torch.nn.Identity is no transform: derive it from albumentations.ImageOnly"),
    ({"_target_": "my_own_transforms.Unasked"}, ": my_own_transforms.Unasked is no transform: derive it from "),
    ({"_target_": "my_own_transforms.Wide"}, ": Wide makes 64 x 64 uint16 of 64 x 64 uint8: shape and type must stay"),
    (
        {"_target_": "my_own_transforms.Broken"},
        ": Broken cannot change a gray image, 64 x 64 uint8: Runt",
    ),
    (
        {"_target_": "my_own_transforms.Global"},
        ": Global makes another image for the same seed: let it draw from self.",
    ),
]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("spec", "fault"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_a_transform_is_one_line_that_names_it(spec: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_augment(flip=FLIP, x=spec)
    assert str(raised.value).startswith(f"augment.transforms.x{fault}")
    assert "\n" not in str(raised.value)


def test_one_file_imports_albumentations() -> None:
    package = Path(cxrlit.__file__).parent
    importing = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "albumentations" for name in names):
                importing.add(path.relative_to(package).as_posix())
    assert importing == {"data/augment.py"}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_only_who_augments_waits_for_albumentations() -> None:
    code = """
import sys, cxrlit.commands.cli, cxrlit.commands.hydra_main, cxrlit.training.chain, cxrlit.data.augment
import cxrlit.handoff.predict_files, cxrlit.handoff.predictor, cxrlit.evaluation.compare.command
sys.argv = ["cxrlit", "--help"]
try:
    cxrlit.commands.cli.main()
except SystemExit:
    pass
print("albumentations" in sys.modules)
"""
    assert run_python(code).endswith("False\n")


@pytest.mark.slow
def test_the_import_asks_for_no_newer_version() -> None:
    code = """
import socket
asked = []
socket.getaddrinfo = socket.socket.connect = lambda *address: asked.append(address)
from cxrlit.config import AugmentConfig
from cxrlit.data.augment import Augment
Augment(AugmentConfig(transforms={"flip": {"_target_": "albumentations.HorizontalFlip"}}), 32)
import albumentations
print(albumentations.__version__, asked)
"""
    assert run_python(code).endswith(" []\n")
