"""``cxrlit export``: a checkpoint and its evaluation become a bundle. The same input gives the same bytes."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import EvaluateConfig, ExportConfig, Precision
from cxrlit.config.compose import compose_defaults
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, progress_steps, say
from cxrlit.core.errors import BundleError
from cxrlit.core.files import hash_value, replace_folder
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION
from cxrlit.data.index import PATIENT_KEY
from cxrlit.evaluation.measure.assessment import evaluation_path, name_checkpoint, read_evaluation_precision
from cxrlit.evaluation.predict import load_network, open_images
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.handoff.bundle import (
    CARD,
    CONFIG,
    FORMAT,
    GRAPH,
    SUMS,
    TABLES,
    WEIGHTS,
    BundleConfig,
    DataRecord,
    PartCounts,
    PhaseRecord,
    PhaseSettings,
    Preprocessing,
    format_sums,
)
from cxrlit.handoff.model_card import write_card
from cxrlit.handoff.onnx_export import make_graph
from cxrlit.handoff.ood_check import MAX_IMAGES, make_reference
from cxrlit.handoff.safetensors_file import pack_weights
from cxrlit.metrics.operating_point import OperatingPoint, read_operating_point
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint
from cxrlit.training.checks import warn_of_folder
from cxrlit.training.trainer import quiet_lightning

PACKAGES = ("cxrlit", "numpy", "opencv-python-headless", "pillow", "torch", "torchvision")
"""Whose versions a bundle names: what the numbers were made with."""


def export_bundle(config: ExportConfig) -> Path:
    """Write a bundle.

    Args:
        config: What and where.

    Raises:
        CXRLitError: The checkpoint cannot be used, was not evaluated, or its data are not there; the folder exists.
    """
    quiet_lightning()
    out = Path(config.out)
    if out.exists():
        raise BundleError(f"{out}: it exists: name another folder with --out, or remove it")
    checkpoint = read_checkpoint(Path(config.ckpt))
    warn_of_folder(checkpoint)
    with progress_steps(4) as step:
        step("evaluation")
        settings = {"ckpt": [config.ckpt], "data": config.data.model_dump(), "cache_dir": config.cache_dir}
        evaluation = compose_defaults("evaluate", EvaluateConfig, settings)
        point, precision, tables = read_evaluation(checkpoint, config, evaluation)
        step("training images")
        data = load_internal([checkpoint], evaluation)
        images = open_images(checkpoint, data, evaluation.trainer, Path(config.cache_dir))
        described = describe_bundle(checkpoint, point, precision, data, images)
        step("network")
        network = load_network(checkpoint)
        contents = {
            CONFIG: (json.dumps(described.model_dump(), indent=1, allow_nan=False) + "\n").encode(),
            WEIGHTS: pack_weights(network, described.labels),
            GRAPH: make_graph(network, described.preprocessing.img_size),
            **tables,
        }
        contents[CARD] = write_card(described, point, contents, checkpoint.metadata.precision).encode()
        step("files")
        with replace_folder(out) as staged:
            for name, content in {**contents, SUMS: format_sums(contents).encode()}.items():
                (staged / name).write_bytes(content)
    say(f"The bundle is {format_path(out)}: {sum(map(len, contents.values())) / 2**20:.0f} MiB, {described.name}")
    return out


def read_evaluation(
    checkpoint: Checkpoint, config: ExportConfig, evaluation: EvaluateConfig
) -> tuple[OperatingPoint, Precision, dict[str, bytes]]:
    """The operating point, the precision and the tables of the evaluation of a checkpoint.

    Raises:
        BundleError: It was not evaluated, or the evaluation is of another checkpoint or split.
    """
    folder = Path(config.evaluation) if config.evaluation else evaluation_path([checkpoint], evaluation)
    paths = [folder / table for table in TABLES]
    if not all(path.is_file() for path in paths):
        command = format_command(f"evaluate ckpt={config.ckpt}")
        raise BundleError(f"{folder}: no evaluation is there; evaluate first: {command}")
    point = read_operating_point(folder / "thresholds.json")
    summary = pd.read_csv(paths[0], dtype=str, keep_default_na=False)
    wanted = {"checkpoint": name_checkpoint(checkpoint), "split_hash": checkpoint.metadata.split_hash}
    for key, value in wanted.items():
        if set(summary[key]) != {value}:
            raise BundleError(f"{folder}: it is the evaluation of another {key.replace('_', ' ')} than {value}")
    precision = read_evaluation_precision(folder, checkpoint.metadata.precision)
    return point.only(checkpoint.metadata.labels), precision, {path.name: path.read_bytes() for path in paths}


def describe_bundle(
    checkpoint: Checkpoint, point: OperatingPoint, precision: Precision, data: SplitData, images: CXRDataModule
) -> BundleConfig:
    """What a bundle says of itself."""
    metadata, config = checkpoint.metadata, checkpoint.config
    phase = config.phases[metadata.phase]
    return BundleConfig(
        format=FORMAT,
        name=name_checkpoint(checkpoint),
        architecture="densenet121",
        labels=metadata.labels,
        preprocessing=Preprocessing(
            version=PREPROCESSING_VERSION,
            img_size=phase.img_size,
            resize=config.data.resize,
            normalize=config.model.normalize,
        ),
        precision=precision,
        batch_size=phase.batch_size,
        operating_point=point.to_plain(),
        input_check=make_reference(*(take_evenly(images, part) for part in ("train", "val"))),
        phases=[
            record_phase(checkpoint, name) for name in (*metadata.history, f"{metadata.phase}-{metadata.phase_id}")
        ],
        epoch=metadata.epoch,
        monitor=metadata.monitor,
        score=metadata.score,
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
    )


def record_phase(checkpoint: Checkpoint, name: str) -> PhaseRecord:
    """What a phase of the chain was, by ``name-id``."""
    phase, _, phase_id = name.rpartition("-")
    metadata, config = checkpoint.metadata, checkpoint.config
    settings = None
    if config.init_from is None or phase_id == metadata.phase_id:
        known = config.phases[phase].model_dump()
        settings = PhaseSettings(**{key: known[key] for key in PhaseSettings.model_fields})
    return PhaseRecord(phase=phase, id=phase_id, settings=settings)


def take_evenly(images: CXRDataModule, part: str) -> NDArray[np.uint8]:
    """(N, S, S) images of a part, at most ``MAX_IMAGES``, evenly over its table."""
    rows = images.parts[part]["row"].to_numpy(np.int64)
    step = -(-len(rows) // MAX_IMAGES)
    return np.asarray(images.store.take(np.sort(rows[::step])))
