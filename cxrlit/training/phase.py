"""One phase: from its start, or from where it was cut off, to a finished folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rich import get_console

from cxrlit.config import Precision, TrainConfig
from cxrlit.core.console import say
from cxrlit.core.distributed import after_rank_0, from_rank_0
from cxrlit.core.errors import CheckpointError
from cxrlit.core.files import hash_file, sweep_staged, write_json
from cxrlit.core.ranks import n_ranks
from cxrlit.core.signals import hold_signals
from cxrlit.data.augment import build_augment
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import LoadedData
from cxrlit.data.index import hash_rows, read_targets
from cxrlit.metrics.classification import macro
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.losses import capped_pos_weight
from cxrlit.model.module import CXRModule
from cxrlit.model.sync_batch_norm import sync_batch_norms
from cxrlit.training.callbacks import BestCheckpoint
from cxrlit.training.checkpoint import CHECKPOINT_FORMAT, START_EPOCH, read_checkpoint, write_checkpoint
from cxrlit.training.checks import check_trainable
from cxrlit.training.feature_cache import open_features
from cxrlit.training.hardware import compare_versions, compile_network, use_threads
from cxrlit.training.improvement import measure_start
from cxrlit.training.phase_folder import RECORD, begin_folder, read_record
from cxrlit.training.plan import PlannedPhase
from cxrlit.training.resume import ResumePoint, find_resume, list_states, seed_all
from cxrlit.training.trainer import build_trainer


class Result(NamedTuple):
    """A finished phase.

    Attributes:
        folder: Where it lives: ``best.ckpt`` and the tables.
        best_epoch: Epoch of the best weights, from 0; -1: the weights that the phase started from.
        best_val_auroc_macro: Validation macro AUROC after it.
    """

    folder: Path
    best_epoch: int
    best_val_auroc_macro: float

    def describe(self) -> str:
        if self.best_epoch == START_EPOCH:
            return f"the weights that it started from, validation macro AUROC {self.best_val_auroc_macro:.4f}"
        return f"best epoch {self.best_epoch + 1}, validation macro AUROC {self.best_val_auroc_macro:.4f}"


def run_phase(
    phase: PlannedPhase,
    config: TrainConfig,
    data: LoadedData,
    precision: Precision,
    before: Path | None,
    later: Sequence[PlannedPhase] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train one phase, from its start or from where it was cut off, and finish its folder.

    Args:
        phase: What to do.
        config: The resolved config of the chain.
        data: Index and split.
        precision: bf16 or fp32.
        before: Checkpoint or phase folder that it starts from; None: what ``model.weights`` says.
        later: The phases after it that are to be trained: of their features, what lies on the way is kept, too.
        callbacks: What watches it and changes no result.

    Raises:
        CXRLitError: Whatever the user can mend.
        Interrupted: A signal asked to stop; what it had reached is saved.
    """
    get_console().rule(f"{phase.name}-{phase.id}: {phase.config.img_size} px, last {phase.config.n_unfreeze} layers")
    datamodule = after_rank_0(lambda: open_images(phase, config, data))
    after_rank_0(lambda: check_trainable(phase, datamodule))
    network, seen, history = after_rank_0(lambda: start_network(config, before))
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
    point = from_rank_0(lambda: choose_resume(phase, datamodule))
    if point is None:
        record = from_rank_0(lambda: begin_folder(phase.folder, facts, config, datamodule, pos_weight))
    else:
        record = from_rank_0(lambda: read_record(phase.folder) or {})
        compare_versions(record)
        datamodule.first_epoch, datamodule.n_behind = point.position.epoch, point.position.n_batches
    with use_threads(record["threads"]):
        if phase.n_views:
            datamodule.features = after_rank_0(
                lambda: open_features(network, phase, later, config, precision, datamodule)
            )
        if phase.config.require_improvement and "start_val_auroc_macro" not in record:
            record["start_val_auroc_macro"] = measure_start(network, config, precision, datamodule)
            from_rank_0(lambda: write_json(phase.folder / RECORD, record))
        if phase.config.require_improvement:
            say(f"It starts from validation macro AUROC {record['start_val_auroc_macro']:.4f}")
        say(f"It computes in {precision}, threads: {torch.get_num_threads()}; {datamodule.describe_loading()}")
        if n_ranks() > 1:
            sync_batch_norms(network)
        if config.trainer.compile:
            compile_network(network)
        seed_all(config.seed)
        module = CXRModule(
            network,
            labels=data.labels,
            lr=phase.config.lr,
            optimizer=config.optimizer,
            scheduler=phase.config.scheduler,
            pos_weight=None if config.loss.name == "bce" else torch.tensor(pos_weight["weight"].to_numpy(np.float32)),
            train_auroc=config.metrics.train,
            n_cached=datamodule.n_cached,
        )
        trainer = build_trainer(phase, config, precision, facts, callbacks)
        with hold_signals():
            trainer.fit(module, datamodule=datamodule, ckpt_path=None if point is None else str(point.path))
    best = from_rank_0(lambda: finish_folder(phase, config, record, facts, trainer, before))
    say(f"{phase.name}: {best.describe()}, {data.describe_split()}")


def open_images(phase: PlannedPhase, config: TrainConfig, data: LoadedData) -> CXRDataModule:
    """The images of a phase, prepared where they are not."""
    return CXRDataModule(
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


def finish_folder(
    phase: PlannedPhase,
    config: TrainConfig,
    record: dict[str, Any],
    facts: dict[str, Any],
    trainer: Trainer,
    before: Path | None,
) -> Result:
    """Write what a phase that has ended hands on, and that it is done; arguments of ``keep_best``."""
    best, module = keep_best(phase, config, record, facts, trainer, before), trainer.lightning_module
    assert isinstance(module, CXRModule)
    last_score = macro(module.auroc["val"]).value
    write_checkpoint(phase.folder / "last.ckpt", facts, trainer.current_epoch - 1, last_score, module.state_dict())
    write_json(
        phase.folder / RECORD,
        {
            **record,
            "best_epoch": best.best_epoch,
            "best_val_auroc_macro": best.best_val_auroc_macro,
            "best_sha256": hash_file(phase.folder / "best.ckpt"),
            "status": "done",
        },
    )
    return best


def choose_resume(phase: PlannedPhase, datamodule: CXRDataModule) -> ResumePoint | None:
    """What a phase goes on from, after what cannot be used was removed; None: it starts over."""
    record = read_record(phase.folder)
    if record is None:
        return None
    if record.get("files_sha256") != datamodule.store.files_sha256:
        say(f"warning: images have changed since {phase.name} was begun: it starts over", style="yellow")
        return None
    point, faults = find_resume(phase.folder, phase.id)
    goes_on = f"{phase.name} starts over" if point is None else f"going on from {point.position.describe()}"
    for fault in faults:
        say(f"warning: {fault}; {goes_on}", style="yellow")
    if point is None:
        return None
    for path in list_states(phase.folder)[: len(faults)]:
        path.unlink()  # or it would be the newest again
    sweep_staged(phase.folder)
    say(f"Going on from {point.position.describe()}")
    return point


def keep_best(
    phase: PlannedPhase,
    config: TrainConfig,
    record: dict[str, Any],
    facts: dict[str, Any],
    trainer: Trainer,
    before: Path | None,
) -> Result:
    """See to it that ``best.ckpt`` holds what the phase hands on: its best epoch, or the weights that it started from.

    Raises:
        CheckpointError: It holds something else.
    """
    [best] = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
    epoch, score = best.epoch, best.score
    assert epoch is not None  # each epoch has a macro AUROC: check_trainable
    path = phase.folder / "best.ckpt"
    if phase.config.require_improvement:
        start = record["start_val_auroc_macro"]
        record["improved"] = score >= start
        if not record["improved"]:
            say(
                f"warning: {phase.name} ends at validation macro AUROC {score:.4f}, below the {start:.4f} that it "
                "started from: it hands on the weights that it started from",
                style="yellow",
            )
            epoch, score = START_EPOCH, start
            network, _, _ = start_network(config, before)
            state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
            write_checkpoint(path, facts, epoch, score, state)
    if read_checkpoint(path).facts.epoch != epoch:
        raise CheckpointError(
            f"{path}: it does not hold the weights of epoch {epoch + 1}: remove {phase.folder} to train it anew"
        )
    return Result(phase.folder, epoch, score)


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
    trained = table[table["positives"] + table["negatives"] > 0]
    shown = ", ".join(f"{row.label} {row.weight:.2f}" for row in trained.itertuples())
    say(f"Weight of positives ({config.loss.name}): {shown}")
    for label in trained.loc[trained["positives"] == 0, "label"]:
        say(f"warning: {label} has no positive in training: it cannot be learned", style="yellow")
    return table
