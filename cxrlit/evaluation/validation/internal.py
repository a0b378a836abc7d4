"""Internal validation: the training data of checkpoints, with their split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrlit.config import EvaluateConfig, InternalData, SeveralData, SyntheticData, TrainConfig
from cxrlit.core.errors import CheckpointError, ConfigError, DataError, LeakageError, format_count, name_some
from cxrlit.data.dataset import SplitData, read_data
from cxrlit.data.dropped import check_dropped
from cxrlit.data.index import KEY, hash_rows, match_rows
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.training.checks import check_ancestors


def load_internal(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> SplitData:
    """Load the data and the split that all checkpoints share.

    Raises:
        CheckpointError: They differ in labels or data.
        LeakageError: They differ in splits, or one was trained on a validation or test patient.
        DataError: An image's file, patient or target has changed, or too many images are missing.
    """
    check_members(checkpoints)
    assert isinstance(config.data, InternalData)
    data = load_split(checkpoints[0], move_data(checkpoints[0].config, config.data, config.cache_dir))
    check_ancestors(data, {patient for member in checkpoints for patient in member.metadata.trained_patients})
    return data


def check_members(checkpoints: Sequence[Checkpoint]) -> None:
    """Check that all members of an ensemble share labels, images and split, and that none occurs twice."""
    first = checkpoints[0]
    for number, member in enumerate(checkpoints[1:], start=1):
        for other in checkpoints[:number]:
            if (member.metadata.name, member.metadata.epoch) == (other.metadata.name, other.metadata.epoch):
                raise CheckpointError(f"{member.path}: it is the same checkpoint as {other.path}: name each once")
        if member.metadata.labels != first.metadata.labels:
            raise CheckpointError(f"{member.path}: its labels are other than those of {first.path}")
        if member.metadata.split_hash != first.metadata.split_hash:
            raise LeakageError(
                f"{member.path}: its split is {member.metadata.split_hash}, that of {first.path} is "
                f"{first.metadata.split_hash}: a patient that one tests may have trained the other"
            )
        if member.metadata.rows != first.metadata.rows or member.config.data.resize != first.config.data.resize:
            raise CheckpointError(f"{member.path}: its data are other than those of {first.path}")


def move_data(config: TrainConfig, moved: InternalData, cache_dir: str) -> TrainConfig:
    """Return the config of the training with the data folders of this evaluation."""
    data, roots = config.data, moved.roots or {}
    links = {} if moved.follow_links is None else {"follow_links": moved.follow_links}
    places = {key: value for key in ("root", "store") if (value := getattr(moved, key)) is not None}
    if isinstance(data, SeveralData):
        unknown = [*places, *(f"roots.{name}" for name in roots if name not in data.sources)]
        if unknown:
            raise ConfigError(
                f"data.{unknown[0]}: the checkpoint was trained on {', '.join(data.sources)}: set data.roots"
            )
        sections: dict[str, Any] = {
            name: getattr(data, name).model_copy(update={**links, **({"root": roots[name]} if name in roots else {})})
            for name in data.sources
        }
        data = data.model_copy(update=sections)
    elif roots or ((places or links) and isinstance(data, SyntheticData)):
        key = next(iter([*places, *links]), "roots")
        raise ConfigError(f"data.{key}: the checkpoint was trained on {data.source} data alone")
    else:
        data = data.model_copy(update=places | links)
    if moved.allow_copies is not None:
        data = data.model_copy(update={"allow_copies": moved.allow_copies})
    return config.model_copy(update={"data": data, "cache_dir": cache_dir})


def load_split(checkpoint: Checkpoint, config: TrainConfig) -> SplitData:
    """Load the training data of a checkpoint, with its split.

    Raises:
        DataError: An image's file, patient or target has changed, or too many images are missing.
    """
    read = read_data(config.data, config.labels, Path(config.cache_dir), are_labels_fixed=True)
    split = checkpoint.split
    places = match_rows(split, read.index)
    there = places >= 0
    now = np.array(hash_rows(read.name_rows(read.index), read.labels))[places]
    changed = read.name_rows(split[there & (now != checkpoint.metadata.rows)])["image"].tolist()
    if changed:
        raise DataError(
            f"{read.name}: {format_count(len(changed), 'image has', 'images have')} "
            f"another file, patient or target than during training "
            f"({name_some(changed)}): these are other data"
        )
    gone = split.loc[~there, KEY].assign(path="", reason="in the split, and no longer there")
    check_dropped(read.name_rows(gone), len(split) - len(gone), config.data.max_dropped)
    return SplitData(
        sources=read.sources,
        labels=read.labels,
        index=read.index.iloc[places[there]].reset_index(drop=True),
        dropped=gone,
        excluded=read.excluded.iloc[:0],
        stores=read.stores,
        split=split[there].reset_index(drop=True),
        split_name=checkpoint.metadata.split_name,
        max_dropped=config.data.max_dropped,
        allow_copies=config.data.allow_copies,
    )
