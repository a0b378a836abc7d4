"""The first step of every command: what is on disk, and who trains, validates and tests."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from cxrlit.config import NIHData, SyntheticData
from cxrlit.console import say
from cxrlit.data.index import hash_index
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.sources.synthetic import SYNTHETIC_VERSION, write_synthetic
from cxrlit.data.split import check_patients_apart, check_split, hash_split, split_by_patient
from cxrlit.errors import ConfigError, DataError
from cxrlit.files import hash_value, hold_lock


@dataclass(frozen=True)
class LoadedData:
    """The index of a data set with its split. No image has been read.

    Attributes:
        source: The data set's name.
        index: The index, sorted by image.
        dropped: Images of the table that are not in the index, with the reason.
        split: ``image``, ``patient``, ``split`` of each row of the index, in its order.
        split_name: How the split came to be: official or grouped.
        max_dropped: Share of the table's images that may be missing or corrupt.
    """

    source: str
    index: pd.DataFrame
    dropped: pd.DataFrame
    split: pd.DataFrame
    split_name: str
    max_dropped: float

    @cached_property
    def split_hash(self) -> str:
        return hash_split(self.split)

    @cached_property
    def index_hash(self) -> str:
        return hash_index(self.index)

    def describe_split(self) -> str:
        return f"{self.split_name} split {self.split_hash}"


def load_data(config: SyntheticData | NIHData, cache_dir: Path) -> LoadedData:
    """Read the index of the chosen data set and split it by patient.

    Raises:
        DataError: The data set cannot be read, or more than ``max_dropped`` of its images are missing.
        LeakageError: The official lists put a patient on both sides.
    """
    source = read_source(config, cache_dir)
    check_dropped(source.dropped, len(source.index), config.max_dropped)
    split, split_name = make_split(source, config)
    return LoadedData(source.name, source.index, source.dropped, split, split_name, config.max_dropped)


def read_source(config: SyntheticData | NIHData, cache_dir: Path) -> Source:
    """Read the data set that the config names; the synthetic one is drawn on first use."""
    if isinstance(config, NIHData):
        if config.root is None:
            raise ConfigError("data=nih needs data.root=PATH, the folder of the images and the label table")
        return read_nih(Path(config.root))
    drawing = {"version": SYNTHETIC_VERSION, **config.model_dump(include={"n_patients", "image_px", "seed"})}
    root = cache_dir / f"synthetic-{hash_value(drawing)}"
    if not root.is_dir():
        with hold_lock(root, f"waiting for another process that draws {root}"):
            if not root.is_dir():
                say(f"Drawing the synthetic data set into {root}, once")
                write_synthetic(root, n_patients=config.n_patients, seed=config.seed, image_px=config.image_px)
    return read_nih(root, name="synthetic")


def make_split(source: Source, config: SyntheticData | NIHData) -> tuple[pd.DataFrame, str]:
    """The split of a source, checked, and its name.

    With official lists, validation is carved out of ``train_val`` by patient; without, all three parts are made.
    """
    if config.split == "official" and source.official is None:
        raise DataError("data.split=official: train_val_list.txt and test_list.txt are not in data.root")
    split = source.index[["image", "patient"]].assign(split="test")
    if source.official is not None and config.split != "grouped":
        name, outside = "official", source.official == "train_val"
        check_patients_apart(split.assign(split=source.official), f"{source.name}: the official lists")
        fractions = {"train": 1 - config.val_fraction, "val": config.val_fraction}
    else:
        name, outside = "grouped", split["split"].notna().to_numpy()
        rest = 1 - config.test_fraction
        fractions = {
            "train": rest * (1 - config.val_fraction),
            "val": rest * config.val_fraction,
            "test": config.test_fraction,
        }
    split.loc[outside, "split"] = split_by_patient(source.index[outside], fractions, config.split_seed)
    return check_split(split, source.name), name


def check_dropped(dropped: pd.DataFrame, n_usable: int, max_dropped: float) -> None:
    """Stop where more of the images are missing or corrupt than the user allows.

    Raises:
        DataError: More than ``max_dropped`` of the images are dropped; the message counts the reasons.
    """
    total = len(dropped) + n_usable
    if len(dropped) / total <= max_dropped:
        return
    needed = math.ceil(100 * len(dropped) / total) / 100
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped["reason"].value_counts().head(3).items())
    example = dropped["image"].iloc[0]
    raise DataError(
        f"{len(dropped)} of {total} images cannot be used ({reasons}; such as {example}), more than "
        f"data.max_dropped={max_dropped:g} allows: complete the folder, or set data.max_dropped={needed:g}"
    )
