"""What the tests of augmentation share: the choices of ``conf/augment/``, and transforms by name."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from cxrlit.config import AugmentConfig
from cxrlit.data.augment import Augment

CONF = Path(__file__).parents[2] / "conf" / "augment"
CHOICES = sorted(path.stem for path in CONF.glob("*.yaml"))


def read_choice(name: str) -> AugmentConfig:
    """The config of ``augment=NAME``."""
    return AugmentConfig.model_validate(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")))


def write_config(**transforms: dict[str, Any] | None) -> AugmentConfig:
    """Transforms by name; a name without a dot is one of albumentations."""
    specs: dict[str, Any] = {}
    for name, spec in transforms.items():
        target = spec and spec.get("_target_", "")
        specs[name] = (
            {**spec, "_target_": f"albumentations.{target}"} if spec and target and "." not in target else spec
        )
    return AugmentConfig(transforms=specs)


FLIP = {"_target_": "HorizontalFlip", "p": 0.5}
SEEDS = range(60)


def make_augment(img_size: int = 64, **transforms: dict[str, Any] | None) -> Augment:
    return Augment(write_config(**transforms), img_size)


def draw_noise(side: int = 64) -> NDArray[np.uint8]:
    image = np.random.default_rng(0).integers(60, 190, (side, side), dtype=np.uint8)
    image.flags.writeable = False
    return image
