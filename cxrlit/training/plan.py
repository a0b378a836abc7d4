"""Plan the chain of phases up to the goal: settings, id and status of each.

A phase's id is a hash of all that determines its result, known before any work. A finished phase with the same id
is reused; a changed setting gives another id and another folder, so no result is ever overwritten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from cxrlit.config import N_LAYERS, Instantiable, PhaseConfig, Precision, TrainConfig
from cxrlit.config.origin import find_origin
from cxrlit.core.console import format_path, print_table, say
from cxrlit.core.errors import format_count
from cxrlit.core.files import hash_file, hash_value
from cxrlit.data.dataset import SplitData
from cxrlit.data.image_io.decode import PREPROCESSING_VERSION
from cxrlit.data.index import PATIENT_KEY
from cxrlit.data.split import SPLITS
from cxrlit.model.weights.locate import IMAGENET_FILE, locate
from cxrlit.training.freezing import Freezing, try_freezing
from cxrlit.training.hardware import choose_precision
from cxrlit.training.phase_folder import describe_rejection, read_done, read_phase_record, read_versions
from cxrlit.training.resume import Position, find_resume

TRAINING_VERSION = 8
"""Part of every phase's id. Increased when the same config would give another result or another output format."""

COMPUTING = ("torch", "torchvision")
"""Packages whose versions are part of every phase's id, besides those of the classes that the config names."""

DISPLAY_TARGETS = frozenset(
    {
        "cxrlit.training.callbacks.EpochProgressBar",
        "pytorch_lightning.callbacks.DeviceStatsMonitor",
        "pytorch_lightning.callbacks.LearningRateMonitor",
        "pytorch_lightning.callbacks.RichProgressBar",
        "pytorch_lightning.callbacks.TQDMProgressBar",
    }
)
"""Callbacks that only show progress and change no result, so they are not part of the id."""


@dataclass(frozen=True)
class PlannedPhase:
    """A phase of the chain.

    Attributes:
        name: Its name in the chain.
        config: Its settings.
        freezing: What its callbacks freeze.
        id: Hash of all that determines its result.
        folder: Its folder.
        status: ``done``; ``run``; ``resume`` if it was interrupted, or ``start over`` if it then left no usable state;
            ``not needed`` if a later phase is done.
        position: Position at which a phase resumes.
        n_cached_units: Number of first units whose output is cached; 0: every epoch computes every image.
        n_views: Number of augmented views per training image whose output is cached.
    """

    name: str
    config: PhaseConfig
    freezing: Freezing
    id: str
    folder: Path
    status: str
    position: Position | None = None
    n_cached_units: int = 0
    n_views: int = 0

    @property
    def is_to_run(self) -> bool:
        """Whether the phase has work left."""
        return self.status in ("run", "resume", "start over")


def plan_phases(config: TrainConfig, data: SplitData, precision: Precision, start: str) -> list[PlannedPhase]:
    """Plan the phases up to the goal, in order.

    Args:
        config: The resolved config.
        data: Index and split.
        precision: bf16, fp16 or fp32.
        start: Hash of the starting weights (``hash_start``).

    Raises:
        ConfigError: A callback, the optimizer or a scheduler cannot be built.
        CheckpointError: A finished phase's checkpoint was changed.
    """
    planned: list[PlannedPhase] = []
    for name in config.list_to_goal():
        phase = config.phases[name]
        freezing = try_freezing(name, phase)
        # Without what changes no result: workers, logger, paths, display.
        deciding = {key: spec for key, spec in phase.callbacks.items() if spec.get("_target_") not in DISPLAY_TARGETS}
        n_units = freezing.n_frozen_units if config.cache_features else 0
        n_views = count_views(config, phase) if n_units else 0
        id_ = hash_value(
            {
                "version": [TRAINING_VERSION, PREPROCESSING_VERSION],
                "phase": name,
                "config": {**phase.model_dump(mode="json"), "callbacks": deciding},
                "model": [config.model.name, config.model.normalize],
                "loss": config.loss,
                "augment": list(config.augment.transforms.values()),  # the order matters, the names do not
                "optimizer": config.optimizer,
                "gradient_clip_norm": config.trainer.gradient_clip_norm,
                "accumulate_grad_batches": config.trainer.accumulate_grad_batches,
                "metrics": config.metrics.model_dump(),
                "monitor": config.monitor,
                "computed_by": find_computing(config, phase, deciding),
                "data": [data.name, data.labels, data.index_hash, data.split_hash, config.data.resize],
                "sampler": config.sampler.model_dump(),
                "seed": config.seed,
                "precision": precision,
                "start": start,
                **({"n_views": n_views} if n_views else {}),
                **({"compile": True} if config.trainer.compile else {}),
            },
            digits=8,
        )
        folder = Path(config.runs_dir) / config.run / f"{name}-{id_}"
        status, position = _read_status(folder, id_)
        planned.append(PlannedPhase(name, phase, freezing, id_, folder, status, position, n_units, n_views))
        start = id_
    last_done = max((number for number, phase in enumerate(planned) if phase.status == "done"), default=0)
    return [
        replace(phase, status="not needed") if number < last_done and phase.status != "done" else phase
        for number, phase in enumerate(planned)
    ]


def find_computing(config: TrainConfig, phase: PhaseConfig, callbacks: Mapping[str, Instantiable]) -> dict[str, str]:
    """Find the versions of the packages that compute a phase, and hashes of the user's own source files."""
    versions = {name: number for name, number in read_versions().items() if name in COMPUTING}
    parts = config.model_dump(include={"loss", "optimizer", "metrics", "augment"})
    return versions | find_origin({**parts, "callbacks": callbacks, "scheduler": phase.scheduler})


def plan_chain(config: TrainConfig, data: SplitData, start: str) -> tuple[list[PlannedPhase], Precision]:
    """Plan the phases, and choose the precision that they compute in.

    A chain that was begun with ``trainer.precision=auto`` keeps its precision on a machine that would choose another,
    so that it resumes instead of starting again.
    """
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    phases = plan_phases(config, data, precision, start)
    if config.trainer.precision == "auto" and not any(_was_begun(phase) for phase in phases):
        other: Precision = "fp32" if precision == "bf16" else "bf16"
        begun = plan_phases(config, data, other, start)
        if any(_was_begun(phase) for phase in begun):
            return begun, other
    return phases, precision


def count_views(config: TrainConfig, phase: PhaseConfig) -> int:
    """Count the augmented views per training image that a phase with cached features keeps."""
    return min(config.feature_views, phase.max_epochs) if config.augment.transforms else 1


def _was_begun(phase: PlannedPhase) -> bool:
    record = read_phase_record(phase.folder)
    return record is not None and record.get("precision_choice") == "auto"


def hash_start(config: TrainConfig) -> str:
    """Hash the starting weights by content, not by path, with their settings in the config.

    Raises:
        CheckpointError: The weights file is missing.
    """
    model = config.model
    if config.init_from is not None:
        path, is_xrv = Path(config.init_from), False
    elif model.weights == "none":
        return "random"
    elif model.weights == "imagenet":
        return IMAGENET_FILE
    else:
        assert model.weights is not None  # read_config guarantees it
        location = locate(model.weights)
        path, is_xrv = location.path, location.is_xrv
    said = {
        "pixels": "xrv" if is_xrv else None,
        "head": [config.labels, model.weights_labels] if model.take_head else None,
        "saw": model.weights_saw,  # checkpoints record it
    }
    said = {key: value for key, value in said.items() if value is not None}
    return hash_file(path) + (hash_value(said) if said else "")


def _read_status(folder: Path, phase_id: str) -> tuple[str, Position | None]:
    if read_done(folder) is not None:
        return "done", None
    if not folder.exists():
        return "run", None
    point = find_resume(folder, phase_id)[0] if read_phase_record(folder) else None
    return ("start over", None) if point is None else ("resume", point.position)


def _describe_status(phase: PlannedPhase) -> str:
    if phase.position is not None:
        return f"{phase.status} at {phase.position.describe()}"
    return "done, rejected" if describe_rejection(phase.folder / "best.ckpt") else phase.status


HIGHRES_LAYERS = 50


def print_data(data: SplitData) -> None:
    """Print images, patients and positives of each part of the split."""
    say(f"{data.name}: {format_count(len(data.index), 'image')}, {data.describe_split()}")
    table = Table()
    for column in ("", *SPLITS):
        table.add_column(column, justify="right" if column else "left")
    parts = [data.split["split"] == part for part in SPLITS]
    table.add_row("images", *(str(rows.sum()) for rows in parts))
    table.add_row("patients", *(str(data.split[rows].groupby(PATIENT_KEY).ngroups) for rows in parts), end_section=True)
    for label in data.labels:
        table.add_row(label, *(str((data.index.loc[rows, label] == 1).sum()) for rows in parts))
    print_table(table)
    if len(data.dropped):
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped["reason"].value_counts().items())
        say(f"{format_count(len(data.dropped), 'image of the table is', 'images of the table are')} dropped: {reasons}")


def print_plan(phases: list[PlannedPhase], precision: Precision) -> None:
    """Print the phases: settings, folder and status of each."""
    say(f"Plan, in {precision}:")
    table = Table()
    for column in ("phase", "what", "folder", "status"):
        table.add_column(column, overflow="fold")
    for phase in phases:
        config = phase.config
        share = phase.freezing.n_trainable / phase.freezing.n_weights
        table.add_row(
            phase.name,
            f"{config.img_size} px, batch {config.batch_size}, {phase.freezing.layers}, {share:.0%} of the features' "
            f"weights, BatchNorm {phase.freezing.describe_batch_norm()}, lr {config.lr:g}, "
            f"{format_count(config.max_epochs, 'epoch')}",
            format_path(phase.folder),
            _describe_status(phase),
        )
    print_table(table)
    trained_all = any(
        phase.config.n_unfreeze == N_LAYERS for phase in phases if phase.name not in ("scratch", "highres")
    )
    for phase in phases:
        if phase.name == "highres" and phase.config.n_unfreeze > HIGHRES_LAYERS and not trained_all:
            say(
                f"warning: highres unfreezes {phase.config.n_unfreeze} layers; it is a short pass meant for 25 to "
                f"{HIGHRES_LAYERS}, and more of them overfit and need more memory at this img_size",
                style="yellow",
            )
