"""``cxrlit export``: make a bundle of checkpoints and their evaluation. The same input gives the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import TTA, Average, EvaluateConfig, EvaluationPrecision, ExportConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, print_table, progress_steps, say
from cxrlit.core.errors import BundleError, CheckpointError
from cxrlit.core.files import hash_value, replace_folder
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION
from cxrlit.data.index import PATIENT_KEY
from cxrlit.evaluation.measure.caveats import find_caveats
from cxrlit.evaluation.measure.evaluation_names import (
    evaluation_path,
    hash_checkpoints,
    name_checkpoint,
    name_checkpoints,
    read_precision,
    read_way,
)
from cxrlit.evaluation.predict import load_network, open_images
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.handoff.bundle import CARD, CONFIG, SUMS, TABLES, Bundle, format_sums, name_member_files
from cxrlit.handoff.bundle_config import (
    FORMAT,
    MEAN_FORMAT,
    BundleConfig,
    DataRecord,
    MemberRecord,
    PartCounts,
    PhaseRecord,
    PhaseSettings,
    Preprocessing,
    StartRecord,
    write_config,
)
from cxrlit.handoff.int8.gate import describe_int8, find_failure, make_table
from cxrlit.handoff.int8.make_int8 import MAX_CALIBRATION, check_calibration, make_int8
from cxrlit.handoff.int8.quantise import import_quantization
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.handoff.model_card import write_card
from cxrlit.handoff.onnx_export import make_graph
from cxrlit.handoff.ood_check import MAX_IMAGES, make_reference
from cxrlit.handoff.safetensors_file import pack_weights
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint
from cxrlit.model.weights.seen import find_own_saw, name_start
from cxrlit.training.checks import warn_of_folder
from cxrlit.training.trainer import quiet_lightning

PACKAGES = ("cxrlit", "numpy", "opencv-python-headless", "pillow", "torch", "torchvision")
"""Packages whose versions a bundle records."""


def export_bundle(config: ExportConfig) -> Path:
    """Write a bundle.

    Args:
        config: Checkpoints, folder and options.

    Raises:
        CXRLitError: A checkpoint cannot be used or was not evaluated, or its data are missing; the folder exists; int8
            is requested without onnxruntime or enough training images.
    """
    if config.int8:
        import_quantization()
    quiet_lightning()
    out = Path(config.out)
    if out.exists():
        raise BundleError(f"{out}: it exists: name another folder with --out, or remove it")
    checkpoints = [read_checkpoint(Path(name)) for name in config.ckpt]
    for checkpoint in checkpoints:
        warn_of_folder(checkpoint)
    check_inputs(checkpoints)
    record: Int8Record | None = None
    with progress_steps(5 if config.int8 else 4) as step:
        step("evaluation")
        settings = {"ckpt": config.ckpt, "data": config.data.model_dump(), "cache_dir": config.cache_dir}
        evaluation = compose_defaults("evaluate", EvaluateConfig, settings)
        found = read_evaluation(checkpoints, config, evaluation)
        step("training images")
        data = load_internal(checkpoints, evaluation)
        images = open_images(checkpoints[0], data, evaluation.trainer, Path(config.cache_dir))
        if config.int8:
            check_calibration(images)
        described = describe_bundle(checkpoints, found, data, images)
        step("network")
        contents = dict(found.tables)
        for checkpoint, (weights, graph) in zip(checkpoints, name_member_files(len(checkpoints)), strict=True):
            network = load_network(checkpoint)
            contents[weights] = pack_weights(network, described.labels)
            contents[graph] = make_graph(network, described.preprocessing.img_size)
        if config.int8:
            step("int8")
            opened = images
            if found.tta == "crops":  # its views are cut from larger images
                opened = open_images(checkpoints[0], data, evaluation.trainer, Path(config.cache_dir), found.tta)
            calibration = take_evenly(opened, "train", MAX_CALIBRATION)
            bundle = Bundle(out, described, found.point, contents, digest="")
            graphs, record = make_int8(bundle, calibration, opened, config.max_auroc_loss, config.force)
            if not find_failure(record):
                described = described.model_copy(update={"int8": record})
                contents |= graphs
        contents[CONFIG] = write_config(described)
        trained = [checkpoint.metadata.precision for checkpoint in checkpoints]
        contents[CARD] = write_card(described, found.point, contents, trained, config.license).encode()
        step("files")
        with replace_folder(out) as staged:
            for name, content in {**contents, SUMS: format_sums(contents).encode()}.items():
                (staged / name).write_bytes(content)
    if record is not None:
        report_int8(record)
    say(f"The bundle is {format_path(out)}: {sum(map(len, contents.values())) / 2**20:.0f} MiB, {described.title}")
    return out


def report_int8(record: Int8Record) -> None:
    """Print the figures of int8, and whether the bundle includes it."""
    failure = find_failure(record)
    print_table(make_table(record))
    if failure:
        say(f"warning: int8 is not in the bundle: {failure}", style="yellow")
    else:
        say(describe_int8(record))


def check_inputs(checkpoints: Sequence[Checkpoint]) -> None:
    """Check that all members share the same input: a bundle has one image size and one heatmap grid.

    Raises:
        CheckpointError: A member's image size or normalization differs from the first's.
    """
    first, *others = checkpoints
    for member in others:
        size, other = first.img_size, member.img_size
        if other != size:
            raise CheckpointError(
                f"{member.path}: it sees images of {other} pixels, and {first.path} of {size}: "
                "the members of a bundle see one size"
            )
        if member.config.model.normalize != first.config.model.normalize:
            raise CheckpointError(
                f"{member.path}: its model.normalize is {member.config.model.normalize}, that of {first.path} is "
                f"{first.config.model.normalize}: the members of a bundle share it"
            )


@dataclass(frozen=True)
class Evaluation:
    """What a bundle takes from the evaluation of its checkpoints.

    Attributes:
        point: Calibration and thresholds.
        precision: Precision of the predictions.
        tta: Predicted views of an image.
        average: What is averaged over checkpoints and views: logits or probs.
        tables: The bytes of ``TABLES``, by name.
    """

    point: OperatingPoint
    precision: EvaluationPrecision
    tta: TTA
    average: Average
    tables: dict[str, bytes]


def read_evaluation(checkpoints: Sequence[Checkpoint], config: ExportConfig, evaluation: EvaluateConfig) -> Evaluation:
    """Read the evaluation of one or several checkpoints.

    Raises:
        BundleError: They were not evaluated, or the evaluation has other checkpoints or another split.
    """
    folder = Path(config.evaluation) if config.evaluation else evaluation_path(checkpoints, evaluation)
    paths = [folder / table for table in TABLES]
    if not all(path.is_file() for path in paths):
        names = config.ckpt[0] if len(config.ckpt) == 1 else f"[{','.join(config.ckpt)}]"
        command = format_command(f"evaluate ckpt={names}")
        beside = sorted(path.parent for path in folder.parent.glob(f"{folder.name}-*/{TABLES[0]}"))
        others = [path for path in beside if "-on-" not in path.name]  # not external evaluations
        remedy = f", or name one that is there: evaluation={others[0]}" if others and not config.evaluation else ""
        raise BundleError(f"{folder}: no evaluation is there; evaluate first: {command}{remedy}")
    point = read_operating_point(folder / "thresholds.json")
    try:
        summary = pd.read_csv(paths[0], dtype=str, keep_default_na=False)
        found = {key: set(summary[key]) for key in ("split", "checkpoint", "split_hash")}
    except (ValueError, KeyError):
        raise BundleError(f"{paths[0]}: not the summary of an evaluation: evaluate anew") from None
    if "test" not in found["split"]:
        raise BundleError(f"{folder}: it is an evaluation on other data: name that on the checkpoint's own test part")
    first = checkpoints[0].metadata
    for key, value in {"checkpoint": name_checkpoints(checkpoints), "split_hash": first.split_hash}.items():
        if found[key] != {value}:
            raise BundleError(f"{folder}: it is the evaluation of another {key.replace('_', ' ')} than {value}")
    predicted = str(summary["predicted"].iloc[0]) if "predicted" in summary else ""
    tta, average = read_way(predicted, len(checkpoints), folder)
    return Evaluation(
        point=point.only(first.labels),
        precision=read_precision(predicted, first.precision),
        tta=tta,
        average=average,
        tables={path.name: path.read_bytes() for path in paths},
    )


def describe_bundle(
    checkpoints: Sequence[Checkpoint], found: Evaluation, data: SplitData, images: CXRDataModule
) -> BundleConfig:
    """Make the config of a bundle."""
    checkpoint = checkpoints[0]
    metadata, config = checkpoint.metadata, checkpoint.config
    is_mean = len(checkpoints) > 1 or found.tta != "none"
    return BundleConfig(
        format=MEAN_FORMAT if is_mean else FORMAT,
        name=name_checkpoint(checkpoint) if len(checkpoints) == 1 else f"ensemble-{hash_checkpoints(checkpoints)}",
        architecture="densenet121",
        labels=metadata.labels,
        preprocessing=Preprocessing(
            version=PREPROCESSING_VERSION,
            img_size=checkpoint.img_size,
            resize=checkpoint.resize,
            normalize=config.model.normalization,
        ),
        precision=found.precision,
        batch_size=checkpoint.batch_size,
        operating_point=found.point.to_plain(),
        input_check=make_reference(*(take_evenly(images, part, MAX_IMAGES) for part in ("train", "val"))),
        members=[record_member(member) for member in checkpoints],
        tta=found.tta,
        average=found.average,
        data=DataRecord(
            name=data.name,
            fingerprint=hash_value(metadata.rows, digits=64),
            split_name=metadata.split_name,
            split_hash=metadata.split_hash,
            parts={
                name: PartCounts(images=len(part), patients=part.groupby(PATIENT_KEY).ngroups)
                for name, part in images.parts.items()
            },
        ),
        versions={package: version(package) for package in PACKAGES},
        start=record_start(checkpoints, data),
    )


def record_start(checkpoints: Sequence[Checkpoint], data: SplitData) -> StartRecord:
    """Record the starting weights of each member, and the caveats that follow from them."""
    models = [member.config.model for member in checkpoints]
    saw = [find_own_saw(member.config.model, member.metadata.start_sources) for member in checkpoints]
    known = [names for names in saw if names is not None]
    return StartRecord(
        weights=", ".join(dict.fromkeys(map(name_start, models)))[:200],
        saw=sorted({name for names in known for name in names}) if len(known) == len(saw) else None,
        caveats=list(find_caveats(checkpoints, data)),
    )


def record_member(checkpoint: Checkpoint) -> MemberRecord:
    """Record a network and its training."""
    metadata = checkpoint.metadata
    phases = (*metadata.history, metadata.name)
    return MemberRecord(
        name=name_checkpoint(checkpoint),
        phases=[record_phase(checkpoint, name) for name in phases],
        epoch=metadata.epoch,
        monitor=metadata.monitor,
        score=metadata.score,
    )


def record_phase(checkpoint: Checkpoint, name: str) -> PhaseRecord:
    """Record a phase of the chain, by ``name-id``."""
    phase, _, phase_id = name.rpartition("-")
    metadata, config = checkpoint.metadata, checkpoint.config
    settings = None
    if config.init_from is None or phase_id == metadata.phase_id:
        known = config.phases[phase].model_dump()
        settings = PhaseSettings(**{key: known[key] for key in PhaseSettings.model_fields})
    return PhaseRecord(phase=phase, id=phase_id, settings=settings)


def take_evenly(images: CXRDataModule, part: str, n_images: int) -> NDArray[np.uint8]:
    """Take (N, S, S) images of a part, at most ``n_images``, evenly spaced over its table."""
    rows = images.parts[part]["row"].to_numpy(np.int64)
    step = -(-len(rows) // n_images)
    return np.asarray(images.store.take(np.sort(rows[::step])))
