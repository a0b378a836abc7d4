"""Checks before a phase trains."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from cxrlit.config import ModelConfig, TrainConfig, quote
from cxrlit.core.console import say
from cxrlit.core.errors import CheckpointError, ConfigError, DataError, LeakageError, format_count, name_some
from cxrlit.core.ranks import n_ranks
from cxrlit.data.concerns import name_label_concerns, warn_once
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.data.index import read_targets
from cxrlit.data.sources.registry import name_sources
from cxrlit.data.split import find_shared, name_patients
from cxrlit.data.store.open_stores import find_data_store
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.macro import macro, per_label
from cxrlit.model.checkpoint import Checkpoint, is_unfinished
from cxrlit.model.weights.seen import describe_seen, find_overlap, find_own_saw, refuse_seen_test
from cxrlit.training.phase_folder import describe_rejection, read_phase_record
from cxrlit.training.plan import PlannedPhase

TRAINED_ON = ("patient that the checkpoint was trained on is", "patients that the checkpoint was trained on are")


def check_ancestors(data: SplitData, seen_patients: set[str]) -> None:
    """Refuse validation or test patients that an earlier checkpoint was trained on, in any spelling.

    Equal ids in differently named sources are counted, with a warning.

    Raises:
        LeakageError: There are such patients; the message names some.
    """
    for part in ("val", "test"):
        shared, namesakes = find_shared(name_patients(data.split, part), seen_patients)
        if shared:
            raise LeakageError(
                f"{format_count(len(shared), *TRAINED_ON)} in the {part} part of this split "
                f"({name_some(shared)}): use the checkpoint's own split (data.split, data.split_seed)"
            )
        warn_namesakes(namesakes, f"in the {part} part of this split")


def warn_namesakes(patients: list[str], where: str) -> None:
    """Warn how many patients have the id of one that the checkpoint saw in a data set with another name."""
    if patients:
        are = format_count(len(patients), "patient", "patients")
        say(
            f"warning: {are} {where} ({name_some(patients)}) {'has the id' if len(patients) == 1 else 'have the ids'} "
            "of patients of another data set that the checkpoint saw: if they are the same people, this is a leak",
            style="yellow",
        )


def check_seen(model: ModelConfig, data: SplitData, trained_on: Collection[str] = ()) -> None:
    """Refuse starting weights that saw the test images, unless the user allows it.

    Args:
        model: Settings of the network, with the data that the weights saw.
        data: Index and split.
        trained_on: Data sets that a starting checkpoint of cxrlit was trained on.

    Raises:
        LeakageError: The weights saw test images, and ``model.allow_seen`` is false.
    """
    saw = find_own_saw(model)
    if saw is None:
        say(
            "warning: it is not known what the starting weights were trained on, and every evaluation will say so: "
            "model.weights_saw=[nih] names it, model.weights_saw=[] says that it is none of these images",
            style="yellow",
        )
        return
    start = f"model.weights={model.weights}" if model.weights else "what init_from started from"
    remedy = (
        "start from others (xrv:chex, xrv:pc, imagenet), or say model.allow_seen=true, and every evaluation says it "
        "beside the numbers"
    )
    refuse_seen_test(start, saw, data.sources, data.split_name, model.allow_seen, remedy)
    said = describe_seen(model, data.sources, data.split_name, trained_on)
    if said:
        say(f"warning: {said}", style="yellow")
    elif find_overlap(saw, data.sources, ""):
        say("warning: the starting weights saw the validation images: epochs are chosen on them", style="yellow")


def warn_labels(data: SplitData) -> None:
    """Warn of labels without a known training target, whose outputs stay untrained, and of other problems of labels.

    Raises:
        DataError: No label has a known training target.
    """
    known = ~np.isnan(read_targets(data.index[data.split["split"] == "train"], data.labels)).all(axis=0)
    trained, unknown = (np.array(data.labels)[which].tolist() for which in (known, ~known))
    if not trained:
        raise DataError(
            f"{data.name}: no training image has a known label for {', '.join(unknown)}: "
            "set labels to what these data have"
        )
    if unknown:
        stay, them = ("its output stays", "it") if len(unknown) == 1 else ("their outputs stay", "them")
        say(
            f"warning: no training image has a known label for {', '.join(unknown)}; {stay} untrained; "
            f"labels=[{','.join(map(quote, trained))}] drops {them}",
            style="yellow",
        )
    rows = data.name_rows(data.index).assign(split=data.split["split"])
    warn_once(data, name_label_concerns(rows, trained))


def check_images(phase: PlannedPhase, config: TrainConfig, data: SplitData) -> None:
    """Check that prepared images are those that a finished phase was trained on.

    A phase's id covers names and sizes of the files; their bytes are known once they are decoded.

    Raises:
        DataError: The images have changed.
    """
    store = find_data_store(data, phase.config.img_size, config.data.resize, Path(config.cache_dir))
    record = read_phase_record(phase.folder)
    if store is not None and record is not None and store.files_sha256 != record.get("files_sha256"):
        raise DataError(
            f"{phase.folder}: images have changed since it was trained, under the same names and with the same sizes: "
            "remove the folder to train it and what follows anew, or bring the images back"
        )


def warn_of_folder(checkpoint: Checkpoint) -> None:
    """Warn if a checkpoint's phase is unfinished, so that a later epoch may be better, or was rejected."""
    if rejection := describe_rejection(checkpoint.path):
        sources = "+".join(name_sources(checkpoint.config.data))
        say(
            f"warning: {rejection}: {checkpoint.metadata.name} of {sources} at {checkpoint.img_size} px", style="yellow"
        )
    if is_unfinished(checkpoint.path):
        say(f"warning: {checkpoint.path.parent} is not finished: a later epoch may be better", style="yellow")


def check_start(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Check that a goal can start from a checkpoint.

    Raises:
        CheckpointError: Its phase is not finished.
        ConfigError: It has other labels or another normalization.
    """
    if is_unfinished(checkpoint.path):
        raise CheckpointError(f"{checkpoint.path}: its phase is not finished: run it to its end, then start from it")
    if checkpoint.metadata.labels != config.labels:
        raise ConfigError(f"labels: {checkpoint.path} was trained on {', '.join(checkpoint.metadata.labels)}")
    theirs, ours = checkpoint.config.model.normalize, config.model.normalize
    if ours not in ("auto", theirs):
        raise ConfigError(f"model.normalize={ours}: {checkpoint.path} was trained with {theirs}")


def check_trainable(phase: PlannedPhase, datamodule: CXRDataModule) -> None:
    """Check that the data can choose a best epoch, and that no batch is too small for BatchNorm.

    Raises:
        DataError: No label has both classes in validation, or the last batch would have one image of one feature.
    """
    targets = read_targets(datamodule.parts["val"], datamodule.data.labels)
    if macro(per_label(auroc, targets, targets)).n_labels == 0:
        raise DataError("no label has both a positive and a negative in validation: there is no AUROC to train by")
    n_train, n_val = len(datamodule.parts["train"]), len(datamodule.parts["val"])
    if n_val < n_ranks():
        raise DataError(f"{n_val} validation images cannot be shared by {n_ranks()} devices: take fewer")
    alone = phase.freezing.adapts and min(phase.config.batch_size, n_train) == 1
    alone |= phase.freezing.batch_norm_trains and (n_train - 1) % phase.config.batch_size == 0
    if alone and phase.config.img_size < 64:
        raise DataError(
            f"{n_train} training images in batches of {phase.config.batch_size} leave a batch of one, too few for "
            "the statistics of a BatchNorm at this img_size: change batch_size"
        )
