"""The first step of every command: what is on disk, and who trains, validates and tests.

``sources/registry.py`` reads one data set, ``split.py`` divides it; here several become one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import AnySource, DataConfig, SeveralData, SplitConfig
from cxrlit.core.errors import ConfigError, DataError, name_some
from cxrlit.data.index import hash_index
from cxrlit.data.sources import Source
from cxrlit.data.sources.registry import choose_views, read_source
from cxrlit.data.split import check_split, hash_split, read_split_file, split_source
from cxrlit.data.tables.text_table import show


@dataclass(frozen=True)
class DataTables:
    """One data set, or several as one. No image has been read.

    Attributes:
        name: The data set's name, or ``nih+chexpert``.
        labels: The labels in use.
        index: The index. Of several, images and patients are called ``source/name``.
        dropped: Images of the tables that cannot be used: ``image``, ``path``, ``reason``.
        left_out: Images that the config does not want, in the same form.
        stores: Address of the prepared images of a source, where it has one.
    """

    name: str
    labels: tuple[str, ...]
    index: pd.DataFrame
    dropped: pd.DataFrame
    left_out: pd.DataFrame
    stores: Mapping[str, str]

    @property
    def sources(self) -> list[str]:
        return list(self.index["source"].unique())

    @property
    def is_joined(self) -> bool:
        """Whether names of images and patients begin with their source."""
        return "+" in self.name

    @cached_property
    def index_hash(self) -> str:
        return hash_index(self.index, self.labels)


@dataclass(frozen=True)
class ReadData(DataTables):
    """Data before they are split.

    Attributes:
        official: For each source with a split of its own, the part of each of its rows (``Source.official``).
    """

    official: Mapping[str, NDArray[np.object_]]


@dataclass(frozen=True)
class LoadedData(DataTables):
    """Data with their split.

    Attributes:
        split: ``image``, ``patient``, ``split`` of each row of the index, in its order.
        split_name: How the split came to be: official, grouped, fold 1 of 5, file.
        max_dropped: Share of the tables' images that may be missing or corrupt.
    """

    split: pd.DataFrame
    split_name: str
    max_dropped: float

    @cached_property
    def split_hash(self) -> str:
        return hash_split(self.split)

    def describe_split(self) -> str:
        return f"{self.split_name} split {self.split_hash}"

    def name_patients(self, part: str) -> set[str]:
        """Patients of a part as ``source/patient``: the same number is another patient in another data set."""
        prefix = "" if self.is_joined else f"{self.name}/"
        return {f"{prefix}{patient}" for patient in self.split.loc[self.split["split"] == part, "patient"]}


def load_data(config: DataConfig, labels: Sequence[str], cache_dir: Path) -> LoadedData:
    """Read the index of the chosen data and split it by patient.

    Raises:
        DataError: The data cannot be read, or more than ``max_dropped`` of their images are missing.
        LeakageError: A split that was given puts a patient into two parts.
    """
    return split_data(read_data(config, labels, cache_dir), config)


def read_data(config: DataConfig, labels: Sequence[str], cache_dir: Path) -> ReadData:
    """Read the index of the chosen data, without the views that the config does not want."""
    chosen: list[AnySource] = config.chosen() if isinstance(config, SeveralData) else [config]
    sources = [read_source(section, labels, cache_dir) for section in chosen]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError(f"data.table.name={name_some(names)}: another source has the same name")
    stores = {source.name: section.store for source, section in zip(sources, chosen, strict=True) if section.store}
    kept, left_out = [], []
    for source, section in zip(sources, chosen, strict=True):
        source, unwanted = choose_views(source, section.views)
        kept.append(_prefix_names(source) if len(sources) > 1 else source)
        left_out.append(
            unwanted.assign(image=_prefix(source.name, unwanted["image"])) if len(sources) > 1 else unwanted
        )
    return ReadData(
        name="+".join(names),
        labels=tuple(labels),
        index=pd.concat([source.index for source in kept], ignore_index=True),
        dropped=pd.concat([source.dropped for source in kept], ignore_index=True),
        left_out=pd.concat(left_out, ignore_index=True),
        official={source.name: source.official for source in kept if source.official is not None},
        stores=stores,
    )


def split_data(data: ReadData, config: SplitConfig) -> LoadedData:
    """Give every image its part: by file, by the sources' own splits, by fold, or grouped and stratified.

    Raises:
        DataError: There is no such split, or more than ``max_dropped`` of the images are missing.
        LeakageError: A patient would stand in two parts.
    """
    kind = config.split
    if kind == "auto" and config.fold is not None:
        kind = "kfold"
    if kind == "file":
        assert config.split_file is not None  # the config sees to it
        data, parts, name = _split_by_file(data, Path(config.split_file))
    else:
        parts, kinds = np.empty(len(data.index), dtype=object), {}
        for source in data.sources:
            rows = (data.index["source"] == source).to_numpy()
            official = data.official.get(source)
            if kind == "official" and official is None:
                raise DataError(f"data.split=official: {source} has no split of its own in its folder")
            automatic = "grouped" if official is None else "official"
            kinds[source] = automatic if kind == "auto" else kind
            index = data.index[rows]
            if data.is_joined:  # the names that the source alone gives them: the same seed, the same split
                index = index.assign(patient=index["patient"].str.split("/", n=1).str[1])
            parts[rows] = split_source(index, data.labels, official if kinds[source] == "official" else None, config)
        names = [_name_split(used, config) for used in kinds.values()]
        name = names[0] if len(set(names)) == 1 else "+".join(names)
    check_dropped(data.dropped, len(data.index), config.max_dropped)
    split = check_split(data.index[["image", "patient"]].assign(split=parts), data.name)
    order = data.index["image"].argsort(kind="stable")
    return LoadedData(
        name=data.name,
        labels=data.labels,
        index=data.index.iloc[order].reset_index(drop=True),
        dropped=data.dropped,
        left_out=data.left_out,
        stores=data.stores,
        split=split,
        split_name=name,
        max_dropped=config.max_dropped,
    )


def check_dropped(dropped: pd.DataFrame, n_usable: int, max_dropped: float) -> None:
    """Stop where more of the images are missing or corrupt than the user allows.

    Raises:
        DataError: More than ``max_dropped`` of the images are dropped; the message counts the reasons.
    """
    total = len(dropped) + n_usable
    if not total or len(dropped) / total <= max_dropped:
        return
    needed = math.ceil(100 * len(dropped) / total) / 100
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped["reason"].value_counts().head(3).items())
    example = show(dropped["image"].iloc[0])
    raise DataError(
        f"{len(dropped)} of {total} images cannot be used ({reasons}; such as {example}), more than "
        f"data.max_dropped={max_dropped:g} allows: complete the folder, or set data.max_dropped={needed:g}"
    )


def _prefix(source: str, names: pd.Series) -> pd.Series:
    return f"{source}/" + names.astype(str)


def _prefix_names(source: Source) -> Source:
    index = source.index
    return replace(
        source,
        index=index.assign(image=_prefix(source.name, index["image"]), patient=_prefix(source.name, index["patient"])),
        dropped=source.dropped.assign(image=_prefix(source.name, source.dropped["image"])),
    )


def _name_split(kind: str, config: SplitConfig) -> str:
    return f"fold {config.fold} of {config.n_folds}" if kind == "kfold" else kind


def _split_by_file(data: ReadData, path: Path) -> tuple[ReadData, NDArray[np.object_], str]:
    """The split of a file; images that it does not name are left out, images that are not there are dropped."""
    table = read_split_file(path)
    wanted = data.index["image"].isin(table["image"])
    if not wanted.any():
        raise DataError(
            f"{path}: none of its {len(table)} images is in {data.name}, whose images are called such as "
            f"{data.index['image'].iloc[0]}"
        )
    others = data.index.loc[~wanted, ["image", "path"]].assign(reason="not in data.split_file")
    known = {*data.index["image"], *data.dropped["image"], *data.left_out["image"]}
    gone = table.loc[~table["image"].isin(known), ["image"]].assign(path="", reason="in data.split_file, and not there")
    index = data.index[wanted].reset_index(drop=True)
    data = replace(
        data,
        index=index,
        dropped=pd.concat([data.dropped, gone], ignore_index=True),
        left_out=pd.concat([data.left_out, others], ignore_index=True),
    )
    parts = index["image"].map(dict(zip(table["image"], table["split"], strict=True)))
    return data, parts.to_numpy(dtype=object), "file"
