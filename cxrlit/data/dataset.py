"""First step of every command: load the data and split them into training, validation and test.

``sources/registry.py`` reads one data set, ``split.py`` splits it; this file combines several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import DataConfig, SeveralData, SplitConfig
from cxrlit.core.console import say
from cxrlit.core.errors import ConfigError, DataError, format_count, name_some
from cxrlit.core.labels import LABELS, suggest_finding
from cxrlit.data.dropped import check_dropped
from cxrlit.data.index import KEY, DataTables, match_rows, parse_names, sort_rows
from cxrlit.data.sources import Source
from cxrlit.data.sources.registry import choose_sources, choose_views, read_source
from cxrlit.data.split import SPLITS, check_split, find_shared, hash_split, read_split_file, split_source
from cxrlit.data.tables.text_table import clip


@dataclass(frozen=True)
class UnsplitData(DataTables):
    """Data before splitting.

    Attributes:
        official: Part of each row in the source's own split, by source that has one (``Source.official``).
        notes: Messages printed while reading, one line each.
    """

    official: Mapping[str, NDArray[np.object_]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitData(DataTables):
    """Data with their split.

    Attributes:
        split: ``source``, ``image``, ``patient``, ``split`` of each row, in index order.
        split_name: Origin of the split: official, grouped, fold 1 of 5, file.
        max_dropped: Maximum share of the tables' images that may be missing or corrupt.
        allow_copies: Continue if the same file is in two parts, or was seen by a checkpoint.
    """

    split: pd.DataFrame
    split_name: str
    max_dropped: float
    allow_copies: bool = False

    @cached_property
    def split_hash(self) -> str:
        """Hash of the split, with display names (``hash_split``)."""
        return hash_split(self.name_rows(self.split))

    def describe_split(self) -> str:
        """Name and hash of the split, for a reader."""
        return f"{self.split_name} split {self.split_hash}"


def load_data(
    config: DataConfig, labels: Sequence[str], cache_dir: Path, *, are_labels_fixed: bool = False
) -> SplitData:
    """Read the index of the chosen data and split it by patient; same arguments as ``read_data``.

    Raises:
        ConfigError: A label is in no data set, but a similar name is.
        DataError: The data cannot be read, or more than ``max_dropped`` of their images are missing.
        LeakageError: A given split puts a patient into two parts.
    """
    return split_data(read_data(config, labels, cache_dir, are_labels_fixed=are_labels_fixed), config)


def read_data(
    config: DataConfig, labels: Sequence[str], cache_dir: Path, *, are_labels_fixed: bool = False
) -> UnsplitData:
    """Read the index of the chosen data, without unwanted views, and print notes on it.

    Args:
        config: Section ``data`` of the config.
        labels: The labels in use.
        cache_dir: Folder of the stores and of the synthetic data.
        are_labels_fixed: Whether a checkpoint fixes the labels, so that the user cannot change them.

    Raises:
        ConfigError: A label is in no data set, but a similar name is.
        DataError: The data cannot be read.
    """
    chosen = choose_sources(config)
    sources = [read_source(section, labels, cache_dir) for section in chosen]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError(f"data.table.name={name_some(names)}: another source has the same name")
    stores = {source.name: section.store for source, section in zip(sources, chosen, strict=True) if section.store}
    divided = [choose_views(source, section.views) for source, section in zip(sources, chosen, strict=True)]
    kept = [source for source, _ in divided]
    unlike = _check_labels(labels, sources, are_labels_fixed)
    notes = [*unlike, *(note for source in sources for note in source.notes), *_list_namesakes(kept)]
    for note in notes:
        say(f"warning: {note}", style="yellow")
    for section, (source, unwanted) in zip(chosen, divided, strict=True):
        if len(unwanted):
            key = f"data.{section.source}.views" if isinstance(config, SeveralData) else "data.views"
            notes.append(_describe_views(source, unwanted, key, section.views or ()))
            say(notes[-1])
    return UnsplitData(
        sources=tuple(names),
        labels=tuple(labels),
        index=pd.concat([source.index for source in kept], ignore_index=True),
        dropped=pd.concat([source.dropped.assign(source=source.name) for source in kept], ignore_index=True),
        excluded=pd.concat([unwanted for _, unwanted in divided], ignore_index=True),
        official={source.name: source.official for source in kept if source.official is not None},
        stores=stores,
        notes=tuple(notes),
    )


def _check_labels(labels: Sequence[str], sources: Sequence[Source], are_fixed: bool) -> list[str]:
    """Labels that no data set has although one has a similar name, one line each.

    Raises:
        ConfigError: There is such a label, and the user chose it.
    """
    notes = []
    known = [finding for source in sources for finding in source.findings]
    for label in labels:
        near = None
        if all(source.index[label].isna().all() for source in sources):
            near = suggest_finding(label, known)
        if near is not None and near not in labels:
            names = " and ".join(source.name for source in sources)
            fault = f"{names} {'has' if len(sources) == 1 else 'have'} no {label}; did you mean {clip(near)}?"
            if not are_fixed and label not in LABELS:
                others = ",".join(near if other == label else other for other in labels)
                raise ConfigError(f"{fault} labels=[{clip(others)}]")
            notes.append(fault)
    return notes


def _describe_views(source: Source, unwanted: pd.DataFrame, key: str, views: Sequence[str]) -> str:
    """The line about images of excluded views, and how to include them."""
    n_all = len(source.index) + len(unwanted)
    counts = unwanted["reason"].str.extract(r"^view (\w+)")[0].value_counts()
    which = ", ".join(f"{count:,} {view}" for view, count in counts.items())
    return (
        f"{source.name}: {len(unwanted):,} of {format_count(n_all, 'image')} are excluded by {key}=[{','.join(views)}] "
        f"({which}); {key}=null includes them"
    )


def _list_namesakes(sources: Sequence[Source]) -> list[str]:
    """Numbers of patients in a source whose id also occurs in an earlier source, one line each."""
    before: list[str] = []
    notes = []
    for source in sources:
        names = [f"{source.name}/{patient}" for patient in source.index["patient"].unique()]
        shared = find_shared(names, before)[1]
        if shared:
            notes.append(
                f"{format_count(len(shared), 'patient')} of {source.name} ({name_some(shared)}) and of another source "
                "have the same ids: if they are the same people, no split keeps them apart"
            )
        before += names
    return notes


def split_data(data: UnsplitData, config: SplitConfig) -> SplitData:
    """Assign every image to a part: by file, by the sources' own splits, by fold, or grouped and stratified.

    Raises:
        DataError: The requested split does not exist, or more than ``max_dropped`` of the images are missing.
        LeakageError: A patient would be in two parts.
    """
    kind = config.split
    if kind == "auto" and config.fold is not None:
        kind = "kfold"
    if kind == "file":
        assert config.split_file is not None  # the config checks this
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
            taken = official if kinds[source] == "official" else None
            parts[rows] = split_source(data.index[rows], data.labels, taken, config)
        names = [_name_split(used, config) for used in kinds.values()]
        name = names[0] if len(set(names)) == 1 else "+".join(names)
    check_dropped(data.name_rows(data.dropped), len(data.index), config.max_dropped)
    split = check_split(
        data.index[[*KEY, "patient"]].assign(split=parts),
        data.name,
        several=len(data.sources) > 1,
        needed=SPLITS if config.needs_train else ["test"],
    )
    return SplitData(
        sources=data.sources,
        labels=data.labels,
        index=sort_rows(data.index),
        dropped=data.dropped,
        excluded=data.excluded,
        stores=data.stores,
        split=split,
        split_name=name,
        max_dropped=config.max_dropped,
        allow_copies=config.allow_copies,
    )


def find_parts(data: UnsplitData, config: SplitConfig) -> NDArray[np.object_] | None:
    """(N,) the part of each row of an index, None for a row in no part; None if the data cannot be split."""
    try:
        split = split_data(data, config.model_copy(update={"max_dropped": 1.0})).split
    except DataError:
        return None
    places = match_rows(data.index, split)
    parts: NDArray[np.object_] = split["split"].to_numpy(dtype=object)[places]
    parts[places < 0] = None
    return parts


def divide_data(data: SplitData, positions: NDArray[np.int64]) -> dict[str, pd.DataFrame]:
    """The index rows of each part with decoded images, with ``row``, their position in the store.

    Args:
        data: The data with their index and split.
        positions: (N,) position of each index row in the store, -1 if it could not be decoded.

    Raises:
        DataError: A part has no decoded image.
    """
    index = data.index.assign(split=data.split["split"], row=positions)
    usable = index[index["row"] >= 0]
    there = set(data.split["split"])
    names = [*(part for part in SPLITS if part in there), *sorted(there - set(SPLITS))]
    parts = {name: usable[usable["split"] == name].reset_index(drop=True) for name in names}
    for name, part in parts.items():
        if part.empty:
            raise DataError(f"{data.name}: no image of the {name} part can be decoded")
    return parts


def _name_split(kind: str, config: SplitConfig) -> str:
    return f"fold {config.fold} of {config.n_folds}" if kind == "kfold" else kind


def _split_by_file(data: UnsplitData, path: Path) -> tuple[UnsplitData, NDArray[np.object_], str]:
    """The split of a file; images that the file does not name are excluded, missing images are dropped."""
    table = parse_names(read_split_file(path), data.sources)
    places = match_rows(data.index, table)
    wanted = places >= 0
    if not wanted.any():
        raise DataError(
            f"{path}: none of its {len(table)} images is in {data.name}, whose images are called such as "
            f"{data.name_rows(data.index[:1])['image'].iloc[0]}"
        )
    others = data.index.loc[~wanted, [*KEY, "path"]].assign(reason="not in data.split_file")
    if len(others):
        say(
            f"{data.name}: {len(others):,} of {format_count(len(wanted), 'image')} are excluded: they are not in {path}"
        )
    known = pd.concat([data.index[KEY], data.dropped[KEY], data.excluded[KEY]]).drop_duplicates()
    gone = table.loc[match_rows(table, known) < 0, KEY].assign(path="", reason="in data.split_file, and not there")
    data = replace(
        data,
        index=data.index[wanted].reset_index(drop=True),
        dropped=pd.concat([data.dropped, gone], ignore_index=True),
        excluded=pd.concat([data.excluded, others], ignore_index=True),
    )
    return data, table["split"].to_numpy(dtype=object)[places[wanted]], "file"
