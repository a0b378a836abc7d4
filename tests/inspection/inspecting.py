"""What the tests of ``cxrlit inspect`` share: rows of a data set, and the way from a config to survey and sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrlit.config import InspectConfig
from cxrlit.data.dataset import UnsplitData, read_data
from cxrlit.inspection.sample import Sample, take_sample
from cxrlit.inspection.survey import Survey, survey_data


class Row(NamedTuple):
    """An image of a data set: its file holds ``content``; None: there is no file."""

    image: str
    content: bytes | None
    findings: str = "No Finding"
    patient: str = "1"
    part: str = "train_val"


def encode(pixels: NDArray[Any]) -> bytes:
    """Pixels as a PNG."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def noise(seed: int, shape: tuple[int, ...] = (24, 24)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(rows: Sequence[Row], n: int = 30) -> list[Row]:
    """The rows, and patients enough for a split."""
    more = [
        Row(f"fill{k:03d}.png", encode(noise(1000 + k)), ("Mass", "Effusion|Mass", "No Finding")[k % 3], f"f{k}")
        for k in range(n)
    ]
    return [*rows, *(row._replace(part="test" if k % 5 == 0 else "train_val") for k, row in enumerate(more))]


def read(config: InspectConfig) -> UnsplitData:
    return read_data(config.data, config.labels, Path(config.cache_dir))


def look(config: InspectConfig, **changes: Any) -> tuple[Survey, Sample]:
    """Survey and sample of a config's data."""
    survey = survey_data(read(config), config.data)
    options = {"n_sample": config.n_sample, "seed": config.seed, "workers": 2, **changes}
    return survey, take_sample(survey.rows, survey.data.labels, survey.readable, **options)
