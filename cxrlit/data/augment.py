"""Augmentation of training images with albumentations or a user's own transforms, seeded per image."""

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

if TYPE_CHECKING:  # importing it takes a second or two: only augmentation needs it
    from albumentations import BasicTransform, Compose
    from albumentations.core.composition import BaseCompose

    Transform: TypeAlias = BasicTransform | BaseCompose

N_PROBES = 3
"""Seeds tried for each transform on each test image."""


class Augment:
    """Apply transforms in order; the result depends only on the image and a seed.

    Each image has a fresh generator from which all transforms draw in turn, so that their draws are independent.
    A loader process builds the transforms anew.

    Args:
        config: The transforms by name. Where one needs ``size``, or ``height`` and ``width``, and the config does not
            set them, they are those of the image.
        img_size: S, side of the images, pixels.

    Raises:
        ConfigError: A transform cannot be built, is no transform, or changes the shape or type of an image.

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
            image: (S, S) uint8; not modified.
            seed: Seed of the draws, >= 0.

        Returns:
            (S, S) uint8, equal for equal image and seed.
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
    """The augmentation for images of a size; None without transforms.

    Raises:
        ConfigError: As raised by ``Augment``.
    """
    return Augment(config, img_size) if config.transforms else None


def check_transform(key: str, transform: "Transform", img_size: int) -> None:
    """Check a transform and its nested transforms on a few test images.

    Args:
        key: Key of the transform in the config.
        transform: The built transform.
        img_size: S, side of the images, pixels.

    Raises:
        ConfigError: The transform needs more than an image, raises, does not apply to gray images, changes shape or
            type, or its result does not depend on image and seed only.
    """
    for part in _list_parts(transform):
        name = type(part).__name__
        needed = sorted({*getattr(part, "targets_as_params", ())} - {"image"})
        if needed:
            raise ConfigError(f"{key}: {name} needs {', '.join(needed)}, and gets the image alone: {key}=null drops it")
        for image, seed in product(_draw_test_images(img_size), range(N_PROBES)):
            _try_transform(key, part, image, seed)


def key_names(images: Iterable[str]) -> NDArray[np.int64]:
    """(N,) an integer key for each image name, equal on every machine: 8 bytes instead of 80 for the name."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in images)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def seed_of(seed: int, epoch: int, key: int, copy: int = 0) -> int:
    """Seed of the random choices for one drawing of an image in one epoch: 32 bits, equal on every machine.

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        key: Key from ``key_names``.
        copy: Number of the drawing of this image in this epoch, from 0.

    >>> seed_of(0, 0, 17) == seed_of(0, 0, 17) != seed_of(0, 1, 17)
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}:{key}:{copy}".encode(), digest_size=4).digest(), "big")


def _try_transform(key: str, transform: "Transform", image: NDArray[np.uint8], seed: int) -> None:
    name = type(transform).__name__
    try:
        with _raising_warnings():
            made, again = (_apply(transform, image, seed, force_apply=True) for _ in range(2))
    except Exception as error:  # a user's class may raise anything
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
    # Not set_random_seed: it gives each transform its own generator with the same draws.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return transform(image=image.copy(), **options)["image"]  # a transform may modify its input


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
    """Raise warnings of albumentations as errors: ignored arguments, transforms that skip gray images."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def _fill_size(key: str, spec: Any, img_size: int) -> Any:
    """The checked spec with the image size filled in where a class needs it, also in nested specs."""
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
    """Arguments of a class without a default."""
    try:
        parameters = inspect.signature(get_class(name)).parameters
    except ValueError:  # classes written in C may have no signature
        return set()
    return {name for name, parameter in parameters.items() if parameter.default is parameter.empty}


def _list_parts(transform: Any) -> Iterator[Any]:
    """The nested transforms, such as the choices of a OneOf, then the transform."""
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
