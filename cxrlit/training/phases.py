"""Train up to a goal: plan the chain, reuse what is finished, run the rest."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from rich import get_console

from cxrlit.config import Precision, TrainConfig
from cxrlit.console import say, show_path
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import hash_rows, read_targets
from cxrlit.data.load import LoadedData, load_data
from cxrlit.data.transforms import build_augment
from cxrlit.errors import DataError, name_some
from cxrlit.files import hash_file, hold_lock, write_csv, write_json, write_text
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.loss import capped_pos_weight
from cxrlit.model.module import CXRModule
from cxrlit.training.checkpoint import CHECKPOINT_FORMAT, find_checkpoint, read_checkpoint
from cxrlit.training.checks import check_ancestors, check_start, check_trainable
from cxrlit.training.plan import PlannedPhase, choose_precision, hash_start, plan_phases, read_done
from cxrlit.training.screen import print_data, print_plan
from cxrlit.training.trainer import build_trainer, check_buildable, quiet_lightning

TO_RUN = ("run", "start over")


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
        first = read_checkpoint(before)
        seen = set(first.facts.trained_patients)
        check_start(first, config)
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    start = hash_start(config)
    data = load_data(config.data, config.labels, Path(config.cache_dir))
    check_ancestors(data, seen)
    phases = plan_phases(config, data, precision, start)
    print_data(data)
    print_plan(phases, precision)
    # What can fail does so here, before anything is written.
    for phase in phases:
        if phase.status in TO_RUN:
            check_buildable(phase, config)
    if phases[0].status in TO_RUN:
        start_network(config, before)

    for phase in phases:
        if phase.status in TO_RUN:
            with hold_lock(phase.folder, f"waiting for another process that trains {show_path(phase.folder)}"):
                if read_done(phase.folder) is None:
                    run_phase(phase, config, data, precision, before)
        before = phase.folder
    facts = read_done(phases[-1].folder)
    assert facts is not None
    result = Result(phases[-1].folder, facts["best_epoch"], facts["best_val_auroc_macro"])
    say(f"Trained: {show_path(result.folder)} ({result.describe()}, {data.describe_split()})")
    say(f"Evaluate it: python evaluate.py ckpt={show_path(result.folder)}")
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
        sampler=config.sampler,
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
        "labels": list(data.labels),
        "precision": precision,
        "split": data.split.to_csv(index=False, lineterminator="\n"),
        "rows": hash_rows(data.index, data.labels),
        "split_name": data.split_name,
        "trained_patients": sorted(seen | data.name_patients("train")),
        "history": history,
    }
    _start_folder(phase, config, data, datamodule, pos_weight, precision)

    torch.manual_seed(config.seed)
    module = CXRModule(
        network,
        labels=data.labels,
        lr=phase.config.lr,
        optimizer=config.optimizer,
        scheduler=phase.config.scheduler,
        pos_weight=None if config.loss.name == "bce" else torch.tensor(pos_weight["weight"].to_numpy(np.float32)),
        train_auroc=config.metrics.train,
        facts=facts,
    )
    trainer = build_trainer(phase, config, precision)
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
        return build_network(config.model.weights, config.model.normalize, len(config.labels), config.seed), set(), []
    checkpoint = read_checkpoint(before)
    network = checkpoint.load_into(build_network("none", config.model.normalize, len(config.labels), config.seed))
    facts = checkpoint.facts
    return network, set(facts.trained_patients), [*facts.history, f"{facts.phase}-{facts.phase_id}"]


def weigh_positives(config: TrainConfig, datamodule: CXRDataModule) -> pd.DataFrame:
    """Counts of the training part and the weight of each label's positives, printed."""
    labels = datamodule.data.labels
    targets = read_targets(datamodule.parts["train"], labels)
    unknown = [label for label, known in zip(labels, ~np.isnan(targets.T), strict=True) if not known.any()]
    if unknown:
        raise DataError(f"{datamodule.data.name}: {name_some(unknown)} has no known target among the training images")
    cap = config.loss.pos_weight_cap
    draws = datamodule.repeats
    weight = capped_pos_weight(targets, cap, draws) if cap is not None else np.ones(len(labels), np.float32)
    table = pd.DataFrame(
        {
            "label": labels,
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
