"""Train up to a goal: plan the chain, reuse what is finished, run the rest."""

import json
import logging
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from hydra.utils import get_class, instantiate
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from rich import get_console
from rich.table import Table

from cxrlit.config import Precision, TrainConfig
from cxrlit.console import print_table, say
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import read_targets
from cxrlit.data.load import LoadedData, load_data
from cxrlit.data.split import SPLITS
from cxrlit.data.transforms import build_augment
from cxrlit.errors import ConfigError, DataError, LeakageError, name_some
from cxrlit.evaluation.metrics import auroc, macro, per_label
from cxrlit.files import hash_file, hold_lock, write_csv, write_json, write_text
from cxrlit.labels import LABELS
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.loss import capped_pos_weight
from cxrlit.model.module import CXRModule, build_optimizer
from cxrlit.training.callbacks import EpochReport, FreezeBatchNorm, PhasedUnfreezing
from cxrlit.training.checkpoint import (
    CHECKPOINT_FORMAT,
    DurableCheckpointIO,
    find_checkpoint,
    read_checkpoint,
)
from cxrlit.training.plan import PlannedPhase, choose_precision, hash_start, plan_phases, read_done

HIGHRES_LAYERS = 50
LIGHTNING_PRECISION: dict[Precision, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


class Result(NamedTuple):
    """A finished phase.

    Attributes:
        folder: Where it lives: ``best.ckpt`` and the tables.
        best_epoch: Epoch of the best weights, from 0.
        best_val_auroc_macro: Validation macro AUROC after it.
    """

    folder: Path
    best_epoch: int
    best_val_auroc_macro: float

    def describe(self) -> str:
        return f"best epoch {self.best_epoch + 1}, validation macro AUROC {self.best_val_auroc_macro:.4f}"


def train(config: TrainConfig) -> Result:
    """Train the goal and whatever comes before it; what is finished is reused.

    Args:
        config: From ``read_config``.

    Returns:
        The goal's phase, finished.

    Raises:
        CXRLitError: Whatever the user can mend; nothing is left half-written.
    """
    quiet_lightning()
    before: Path | None = None
    seen: set[str] = set()
    if config.init_from is not None:
        before = find_checkpoint(Path(config.init_from)).resolve()
        config = config.model_copy(update={"init_from": str(before)})
        seen = read_checkpoint(before).facts.trained_patients_set
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    start = hash_start(config)
    data = load_data(config.data, Path(config.cache_dir))
    check_ancestors(data, seen)
    phases = plan_phases(config, data, precision, start)
    print_data(data)
    print_plan(phases, precision)
    # What can fail does so here, before anything is written.
    for phase in phases:
        if phase.status != "done":
            check_buildable(phase, config)
    if phases[0].status != "done":
        start_network(config, before)

    for phase in phases:
        if phase.status != "done":
            with hold_lock(phase.folder, f"waiting for another process that trains {phase.folder}"):
                if read_done(phase.folder) is None:
                    run_phase(phase, config, data, precision, before)
        before = phase.folder
    facts = read_done(phases[-1].folder)
    assert facts is not None
    result = Result(phases[-1].folder, facts["best_epoch"], facts["best_val_auroc_macro"])
    say(f"Trained: {result.folder} ({result.describe()}, {data.describe_split()})")
    say(f"Evaluate it: python evaluate.py ckpt={result.folder}")
    return result


def run_phase(
    phase: PlannedPhase, config: TrainConfig, data: LoadedData, precision: Precision, before: Path | None
) -> None:
    """Train one phase and finish its folder.

    Args:
        phase: What to do.
        config: The resolved config of the chain.
        data: Index and split.
        precision: bf16 or fp32.
        before: Checkpoint or phase folder that it starts from; None: what ``model.weights`` says.

    Raises:
        CXRLitError: Whatever the user can mend.
    """
    get_console().rule(f"{phase.name}-{phase.id}: {phase.config.img_size} px, last {phase.config.n_unfreeze} layers")
    datamodule = CXRDataModule(
        data,
        img_size=phase.config.img_size,
        batch_size=phase.config.batch_size,
        resize=config.data.resize,
        cache_dir=Path(config.cache_dir),
        augment=build_augment(config.augment),
        seed=config.seed,
        num_workers=config.trainer.num_workers,
    )
    check_trainable(phase, datamodule)
    network, seen, history = start_network(config, before)
    pos_weight = weigh_positives(config, datamodule)
    facts = {
        "format": CHECKPOINT_FORMAT,
        "phase": phase.name,
        "phase_id": phase.id,
        "config": config.model_dump(),
        "labels": list(LABELS),
        "precision": precision,
        "split": data.split.to_csv(index=False, lineterminator="\n"),
        "split_name": data.split_name,
        "trained_patients": "\n".join(sorted(seen | name_patients(data, "train"))),
        "history": history,
    }
    _start_folder(phase, config, data, datamodule, pos_weight, precision)

    torch.manual_seed(config.seed)
    module = CXRModule(
        network,
        lr=phase.config.lr,
        optimizer=config.optimizer,
        scheduler=phase.config.scheduler,
        pos_weight=None if config.loss.name == "bce" else torch.tensor(pos_weight["weight"].to_numpy(np.float32)),
        train_auroc=config.metrics.train,
        facts=facts,
    )
    callbacks = build_callbacks(phase)
    trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=LIGHTNING_PRECISION[precision],
        max_epochs=phase.config.max_epochs,
        gradient_clip_val=config.trainer.gradient_clip_norm,
        callbacks=callbacks,
        logger=False if config.logger is None else instantiate(config.logger, save_dir=str(phase.folder)),
        plugins=[DurableCheckpointIO()],
        deterministic=True,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        use_distributed_sampler=False,
        default_root_dir=str(phase.folder),
    )
    try:
        trainer.fit(module, datamodule=datamodule)
    except SystemExit:  # what Lightning makes of Ctrl-C
        say(f"interrupted: the same command starts {phase.name} over; finished phases are kept", style="yellow")
        raise
    _finish_folder(phase, data)


def start_network(config: TrainConfig, before: Path | None) -> tuple[CXRNet, set[str], list[str]]:
    """The network that a phase starts from, the patients that it was trained on, and the phases behind it."""
    if before is None:
        assert config.model.weights is not None  # read_config sees to it
        return build_network(config.model.weights, config.model.normalize, config.seed), set(), []
    checkpoint = read_checkpoint(before)
    network = checkpoint.load_into(build_network("none", config.model.normalize, config.seed))
    facts = checkpoint.facts
    return network, facts.trained_patients_set, [*facts.history, f"{facts.phase}-{facts.phase_id}"]


def build_callbacks(phase: PlannedPhase) -> list[Callback]:
    """The callbacks of a phase; those of ours, and the checkpoints, are told what the phase is."""
    settings = {
        "n_unfreeze": phase.config.n_unfreeze,
        "freeze_bn": phase.config.freeze_bn,
        "schedule": phase.config.n_unfreeze_schedule,
    }
    told: dict[type, dict[str, Any]] = {
        PhasedUnfreezing: settings,
        FreezeBatchNorm: settings,
        EpochReport: {"folder": phase.folder},
        ModelCheckpoint: {"dirpath": str(phase.folder)},
    }
    callbacks = [instantiate(spec, **told.get(get_class(spec["_target_"]), {})) for spec in phase.callbacks.values()]
    # Where the output is a file, a progress bar is noise.
    return [item for item in callbacks if get_console().is_terminal or not isinstance(item, ProgressBar)]


def check_buildable(phase: PlannedPhase, config: TrainConfig) -> None:
    """Optimizer, scheduler, callbacks and logger take the arguments that they are given.

    Raises:
        ConfigError: One of them does not, or a callback is none.
    """
    weights = [torch.nn.Parameter(torch.zeros(1))]
    try:
        build_optimizer(weights, phase.config.lr, config.optimizer, phase.config.scheduler, n_steps=1000)
        callbacks = build_callbacks(phase)
        if config.logger is not None:
            instantiate(config.logger, save_dir=str(phase.folder))
    except Exception as error:  # any class may be named in the config, and raise anything
        raise ConfigError(f"phases.{phase.name}: {error}") from None
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks: {type(callback).__name__} is not a callback of Lightning")


def check_ancestors(data: LoadedData, seen_patients: set[str]) -> None:
    """No patient that an earlier checkpoint was trained on validates or tests.

    Raises:
        LeakageError: The message names patients.
    """
    for part in ("val", "test"):
        shared = sorted(seen_patients & name_patients(data, part))
        if shared:
            raise LeakageError(
                f"init_from: {len(shared)} patients that the checkpoint was trained on are in the {part} part of this "
                f"split ({name_some(shared)}): use the checkpoint's own split (data.split, data.split_seed)"
            )


def name_patients(data: LoadedData, part: str) -> set[str]:
    """Patients of a part as ``source/patient``: the same number is another patient in another data set."""
    return {f"{data.source}/{patient}" for patient in data.split.loc[data.split["split"] == part, "patient"]}


def check_trainable(phase: PlannedPhase, datamodule: CXRDataModule) -> None:
    """The data can choose a best epoch, and no batch is too small for BatchNorm.

    Raises:
        DataError: No label has both classes in validation, or the last batch would have one image of one feature.
    """
    targets = read_targets(datamodule.parts["val"])
    if macro(per_label(auroc, targets, targets)).n_labels == 0:
        raise DataError("no label has both a positive and a negative in validation: there is no AUROC to train by")
    n_train = len(datamodule.parts["train"])
    if not phase.config.freeze_bn and phase.config.img_size < 64 and (n_train - 1) % phase.config.batch_size == 0:
        raise DataError(
            f"{n_train} training images in batches of {phase.config.batch_size} leave one for the last, too few for "
            "a BatchNorm that trains at this img_size: change batch_size"
        )


def weigh_positives(config: TrainConfig, datamodule: CXRDataModule) -> pd.DataFrame:
    """Counts of the training part and the weight of each label's positives, printed."""
    targets = read_targets(datamodule.parts["train"])
    cap = config.loss.pos_weight_cap
    try:
        weight = capped_pos_weight(targets, cap) if cap is not None else np.ones(len(LABELS), np.float32)
    except ValueError as error:
        raise DataError(f"{datamodule.data.source}: {error}") from None
    table = pd.DataFrame(
        {
            "label": LABELS,
            "positives": (targets == 1).sum(axis=0),
            "negatives": (targets == 0).sum(axis=0),
            "weight": weight,
        }
    )
    shown = ", ".join(f"{row.label} {row.weight:.2f}" for row in table.itertuples())
    say(f"Weight of positives ({config.loss.name}): {shown}")
    for label in table.loc[table["positives"] == 0, "label"]:
        say(f"warning: {label} has no positive in training: it cannot be learned", style="yellow")
    return table


def print_data(data: LoadedData) -> None:
    """Images, patients and positives of each part of the split."""
    say(f"{data.source}: {len(data.index)} images, {data.describe_split()}")
    table = Table()
    for column in ("", *SPLITS):
        table.add_column(column, justify="right" if column else "left")
    parts = [data.split["split"] == part for part in SPLITS]
    table.add_row("images", *(str(rows.sum()) for rows in parts))
    table.add_row("patients", *(str(data.split.loc[rows, "patient"].nunique()) for rows in parts), end_section=True)
    for label in LABELS:
        table.add_row(label, *(str((data.index.loc[rows, label] == 1).sum()) for rows in parts))
    print_table(table)
    if len(data.dropped):
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped["reason"].value_counts().items())
        say(f"{len(data.dropped)} images of the table are dropped: {reasons}")


def print_plan(phases: list[PlannedPhase], precision: Precision) -> None:
    """The phases to come, before the work: what each is, its folder, done or run."""
    say(f"Plan, in {precision}:")
    table = Table()
    for column in ("phase", "what", "folder", "status"):
        table.add_column(column, overflow="fold")
    for phase in phases:
        config = phase.config
        trains = str(config.n_unfreeze_schedule or config.n_unfreeze)
        table.add_row(
            phase.name,
            f"{config.img_size} px, batch {config.batch_size}, last {trains} layers, BatchNorm "
            f"{'frozen' if config.freeze_bn else 'trains'}, lr {config.lr:g}, {config.max_epochs} epochs",
            str(phase.folder),
            phase.status,
        )
    print_table(table)
    for phase in phases:
        if phase.name == "highres" and phase.config.n_unfreeze > HIGHRES_LAYERS:
            say(
                f"warning: highres unfreezes {phase.config.n_unfreeze} layers; it is a short pass meant for 25 to "
                f"{HIGHRES_LAYERS}, and more of them overfit and need more memory at this img_size",
                style="yellow",
            )


def quiet_lightning() -> None:
    """Keep the trainer's banners and its advice on loader processes off the screen."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Found .* module.* in eval mode.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def _start_folder(
    phase: PlannedPhase,
    config: TrainConfig,
    data: LoadedData,
    datamodule: CXRDataModule,
    pos_weight: pd.DataFrame,
    precision: Precision,
) -> None:
    if phase.folder.exists():  # cut off before: it has the same id, so all of it is this phase's
        shutil.rmtree(phase.folder)
    versions = {name: version(name) for name in ("cxrlit", "torch", "torchvision", "pytorch-lightning")}
    write_json(
        phase.folder / "phase.json",
        {
            "status": "running",
            "phase": phase.name,
            "id": phase.id,
            "split": data.split_name,
            "split_hash": data.split_hash,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "versions": versions,
        },
    )
    write_text(phase.folder / "config.yaml", yaml.safe_dump(config.model_dump(), sort_keys=False))
    write_csv(phase.folder / "split.csv", data.split)
    write_csv(phase.folder / "dropped.csv", datamodule.dropped)
    write_csv(phase.folder / "pos_weight.csv", pos_weight, float_format="%.9g")


def _finish_folder(phase: PlannedPhase, data: LoadedData) -> None:
    best = read_checkpoint(phase.folder)
    result = Result(phase.folder, best.facts.epoch, best.facts.val_auroc_macro)
    path = phase.folder / "phase.json"
    write_json(
        path,
        {
            **json.loads(path.read_text(encoding="utf-8")),
            "best_epoch": result.best_epoch,
            "best_val_auroc_macro": result.best_val_auroc_macro,
            "best_sha256": hash_file(best.path),
            "status": "done",
        },
    )
    say(f"{phase.name}: {result.describe()}, {data.describe_split()}")
