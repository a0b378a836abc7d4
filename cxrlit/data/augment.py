"""Augmentation of training images: transforms of albumentations, or a user's own, and a seed for each image."""

import hashlib
import inspect
import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from hydra.utils import get_class
from numpy.typing import NDArray

from cxrlit.config import AugmentConfig, Instantiable
from cxrlit.config.build import build_target, check_target
from cxrlit.core.errors import ConfigError, first_line

if TYPE_CHECKING:  # it takes a second or two to import: only who augments waits for it
    from albumentations import BasicTransform, Compose
    from albumentations.core.composition import BaseCompose

    Transform: TypeAlias = BasicTransform | BaseCompose

N_PROBES = 3
"""Seeds that a transform is tried with on each test image."""


class Augment:
    """Apply transforms in order; the result is a function of the image and a seed.

    Each image has one fresh generator, which all transforms draw from in turn, so that their draws are independent.
    In a loader process the transforms are built anew.

    Args:
        config: The transforms by name. Where one needs ``size``, or ``height`` and ``width``, and the config does not
            set them, they are those of the image.
        img_size: S, side of the images, pixels.

    Raises:
        ConfigError: A transform cannot be built, is none, or does not make an image of the same shape and type.

    >>> flip = AugmentConfig(transforms={"flip": {"_target_": "albumentations.HorizontalFlip", "p": 1.0}})
    >>> Augment(flip, img_size=2)(np.array([[1, 2], [3, 4]], np.uint8), seed=0)
    array([[2, 1],
           [4, 3]], dtype=uint8)
    """

    def __init__(self, config: AugmentConfig, img_size: int) -> None:
        self.config, self.img_size = config, img_size
        self._pipeline: Compose | None = self._build()
        for key, transform in zip(self._name_keys(), self._pipeline.transforms, strict=True):
            check_transform(key, transform, img_size)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Augment an image.

        Args:
            image: (S, S) uint8; it is not changed.
            seed: From 0.

        Returns:
            (S, S) uint8, the same for the same image and seed.
        """
        if self._pipeline is None:
            self._pipeline = self._build()
        augmented: NDArray[np.uint8] = _apply(self._pipeline, image, seed)
        return augmented

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipeline": None}

    def _name_keys(self) -> list[str]:
        return [f"augment.transforms.{name}" for name in self.config.transforms]

    def _build(self) -> "Compose":
        from albumentations import Compose

        specs = self.config.transforms.values()
        return Compose(
            [_build_transform(key, spec, self.img_size) for key, spec in zip(self._name_keys(), specs, strict=True)]
        )


def build_augment(config: AugmentConfig, img_size: int) -> Augment | None:
    """The augmentation of images of a size; None where there is no transform.

    Raises:
        ConfigError: As for ``Augment``.
    """
    return Augment(config, img_size) if config.transforms else None


def check_transform(key: str, transform: "Transform", img_size: int) -> None:
    """Try a transform, and those inside it, on a few images.

    Args:
        key: Its name in the config.
        transform: What was built.
        img_size: S, side of the images, pixels.

    Raises:
        ConfigError: It needs more than an image, raises, does not apply to gray images, changes shape or type, or its
            result is not a function of the image and the seed.
    """
    for part in _list_parts(transform):
        name = type(part).__name__
        needed = sorted({*getattr(part, "targets_as_params", ())} - {"image"})
        if needed:
            raise ConfigError(f"{key}: {name} needs {', '.join(needed)}, and gets the image alone: {key}=null drops it")
        for image, seed in product(_draw_test_images(img_size), range(N_PROBES)):
            _try_transform(key, part, image, seed)


def key_names(images: Iterable[str]) -> NDArray[np.int64]:
    """(N,) a number for each image name, the same on every machine: 8 bytes where a list of names takes 80."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in images)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def seed_of(seed: int, epoch: int, key: int, copy: int = 0) -> int:
    """Seed of what is random about one drawing of an image in one epoch: 32 bits, the same on every machine.

    Args:
        seed: Of the run.
        epoch: From 0.
        key: From ``key_names``.
        copy: Which drawing of the image in this epoch.

    >>> seed_of(0, 0, 17) == seed_of(0, 0, 17) != seed_of(0, 1, 17)
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}:{key}:{copy}".encode(), digest_size=4).digest(), "big")


def _try_transform(key: str, transform: "Transform", image: NDArray[np.uint8], seed: int) -> None:
    name = type(transform).__name__
    try:
        with _raising_warnings():
            made, again = (_apply(transform, image, seed, force_apply=True) for _ in range(2))
    except Exception as error:  # any class may be named, and raise anything
        raise ConfigError(
            f"{key}: {name} cannot change a gray image, {_describe(image)}: {type(error).__name__}: "
            f"{first_line(error)}; {key}=null drops it"
        ) from None
    if not isinstance(made, np.ndarray) or (made.shape, made.dtype) != (image.shape, image.dtype):
        raise ConfigError(f"{key}: {name} makes {_describe(made)} of {_describe(image)}: shape and type must stay")
    if not np.array_equal(made, again):
        raise ConfigError(
            f"{key}: {name} makes another image for the same seed: let it draw from self.random_generator or "
            "self.py_random alone"
        )


def _apply(transform: "Transform", image: NDArray[np.uint8], seed: int, **options: bool) -> Any:
    # Not set_random_seed: it gives each transform generators of its own with equal draws.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return transform(image=image.copy(), **options)["image"]  # a transform may change what it is given


def _build_transform(key: str, spec: Instantiable, img_size: int) -> "Transform":
    from albumentations import BasicTransform
    from albumentations.core.composition import BaseCompose

    with _raising_warnings():
        transform = build_target(key, _fill_size(key, spec, img_size))
    if not isinstance(transform, BasicTransform | BaseCompose):
        raise ConfigError(
            f"{key}: {spec['_target_']} is no transform: derive it from albumentations.ImageOnlyTransform"
        )
    return transform


@contextmanager
def _raising_warnings() -> Iterator[None]:
    """Raise what albumentations warns of: an argument that it ignores, a transform that leaves gray images alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def _fill_size(key: str, spec: Any, img_size: int) -> Any:
    """The spec, and those inside it, checked, and with the size of the image where a class needs it and has none."""
    if isinstance(spec, list):
        return [_fill_size(f"{key}.{place}", part, img_size) for place, part in enumerate(spec)]
    if not isinstance(spec, dict) or "_target_" not in spec:
        return spec
    check_target(key, spec)
    required = _list_required(spec["_target_"])
    sizes: dict[str, Any] = {}
    for names, size in ((("size",), [img_size, img_size]), (("height", "width"), img_size)):
        if required.issuperset(names) and not any(name in spec for name in names):
            sizes |= dict.fromkeys(names, size)
    return {**{name: _fill_size(f"{key}.{name}", part, img_size) for name, part in spec.items()}, **sizes}


def _list_required(name: str) -> set[str]:
    """Arguments of a class that have no default."""
    try:
        parameters = inspect.signature(get_class(name)).parameters
    except ValueError:  # a class of C may not tell what it takes
        return set()
    return {name for name, parameter in parameters.items() if parameter.default is parameter.empty}


def _list_parts(transform: Any) -> Iterator[Any]:
    """The transform after those inside it, such as the choices of a OneOf."""
    from albumentations.core.composition import BaseCompose

    if isinstance(transform, BaseCompose):
        for part in transform.transforms:
            yield from _list_parts(part)
    yield transform


def _draw_test_images(img_size: int) -> list[NDArray[np.uint8]]:
    """Black, a gradient and noise, (S, S) uint8."""
    gradient = np.linspace(0, 255, img_size).astype(np.uint8)
    return [
        np.zeros((img_size, img_size), np.uint8),
        np.tile(gradient, (img_size, 1)),
        np.random.default_rng(0).integers(0, 256, (img_size, img_size), dtype=np.uint8),
    ]


def _describe(image: Any) -> str:
    if not isinstance(image, np.ndarray):
        return f"a {type(image).__name__}"
    return f"{' x '.join(map(str, image.shape))} {image.dtype}"
