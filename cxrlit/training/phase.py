"""Train one phase, from its start or a saved state, to a finished folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rich import get_console

from cxrlit.config import Precision, TrainConfig
from cxrlit.core.console import format_path, say
from cxrlit.core.errors import CheckpointError, format_count
from cxrlit.core.files import hash_file, hold_lock
from cxrlit.core.ranks import n_ranks, on_rank_0, rank, rank_0_first
from cxrlit.core.signals import catch_signals, hold_signals
from cxrlit.data.augment import build_augment
from cxrlit.data.copies import TRAINED_ON, refuse_seen
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.data.index import hash_rows
from cxrlit.data.split import name_patients
from cxrlit.metrics.epoch_metrics import build_metrics
from cxrlit.model.adapt_batch_norm import adapt_batch_norms
from cxrlit.model.checkpoint import CHECKPOINT_FORMAT, Checkpoint, read_checkpoint, write_checkpoint
from cxrlit.model.densenet import CXRNet
from cxrlit.model.losses import build_loss
from cxrlit.model.module import CXRModule
from cxrlit.model.pos_weight import weigh_positives
from cxrlit.model.seen_files import list_seen_files
from cxrlit.model.start import Start, start_network
from cxrlit.model.sync_batch_norm import sync_batch_norms
from cxrlit.training.callbacks.best_checkpoint import BestCheckpoint
from cxrlit.training.callbacks.epoch_report import EpochReport
from cxrlit.training.callbacks.finite_loss import FiniteLoss
from cxrlit.training.callbacks.freeze_batch_norm import FreezeBatchNorm
from cxrlit.training.callbacks.frozen_guard import FrozenGuard
from cxrlit.training.callbacks.resume_checkpoint import ResumeCheckpoint, going_on_from
from cxrlit.training.checks import check_trainable
from cxrlit.training.composed_callbacks import build_composed_callbacks
from cxrlit.training.feature_cache import open_features
from cxrlit.training.hardware import check_compiler, compare_versions, computing_on, use_threads
from cxrlit.training.improvement import Baseline, find_baseline, judge
from cxrlit.training.logger_runs import finishing_runs, log_result, open_loggers
from cxrlit.training.phase_folder import Result, begin_folder, read_phase_record, read_result, write_phase_record
from cxrlit.training.plan import PlannedPhase
from cxrlit.training.resume import ResumePoint, choose_resume, drop_states, load_state, seed_all
from cxrlit.training.trainer import PhaseTimer, build_trainer, read_seconds, validate


@dataclass
class PhaseRun:
    """One phase while it runs: its settings, and the objects that ``train`` builds from them in turn.

    Args:
        plan: The planned phase.
        config: The resolved config of the chain.
        data: Index and split.
        precision: bf16, fp16 or fp32.
        previous: Checkpoint or phase folder that it starts from; None: ``model.weights``.
        later: Later phases; features they need are cached in the same pass.
        watching: Callbacks that change no result.

    Attributes:
        datamodule: Its images.
        network: Its network, at first with the starting weights.
        loss: Its loss, with the weights of the positives.
        metadata: Metadata of its checkpoints.
        record: Content of ``phase.json``.
        baseline: The validation result that it must improve on.
    """

    plan: PlannedPhase
    config: TrainConfig
    data: SplitData
    precision: Precision
    previous: Path | None
    later: Sequence[PlannedPhase] = ()
    watching: Sequence[Callback] = ()
    datamodule: CXRDataModule = field(init=False)
    network: CXRNet = field(init=False)
    loss: torch.nn.Module = field(init=False)
    metadata: dict[str, Any] = field(init=False)
    record: dict[str, Any] = field(init=False)
    baseline: Baseline | None = None

    def complete(self) -> Result:
        """Train the phase unless it is finished, or another process finishes it meanwhile.

        Raises:
            CXRLitError: An error that the user can correct.
            Interrupted: A signal stopped the training; the state is saved.
        """
        if self.plan.is_to_run:
            waiting = f"waiting for another process that trains {format_path(self.plan.folder)}"
            with catch_signals(), hold_lock(self.plan.folder, waiting) if rank() == 0 else nullcontext():
                if read_result(self.plan.folder) is None:
                    self.train()
        on_rank_0(drop_states)(self.plan.folder)  # a kill may have come before they were removed
        result = read_result(self.plan.folder)
        assert result is not None
        return result

    def train(self) -> None:
        """Train the phase, from its start or a saved state, and finish its folder."""
        plan = self.plan
        get_console().rule(f"{plan.name}-{plan.id}: {plan.config.img_size} px, {plan.freezing.layers}")
        self.datamodule = self.open_images()
        self.network = (start := start_network(self.config, self.previous)).network
        refuse_seen(self.data, self.datamodule.store, ("val", "test"), start.files.trained.numpy(), TRAINED_ON)
        pos_weight = weigh_positives(self.datamodule, self.config.loss.get("pos_weight_cap"))
        self.loss = build_loss(self.config.loss, torch.tensor(pos_weight["weight"].to_numpy(np.float32)))
        self.metadata = self.describe(start)
        self.record, resume_point = self.begin_or_resume(pos_weight)
        if resume_point is not None:
            self.datamodule.skip_to(resume_point.position.epoch - 1, resume_point.position.n_batches)
        with use_threads(self.record["threads"]):
            self.find_baseline(start.checkpoint)
            self.adapt_batch_norms(resume_point)
            self.cache_features()
            module = self.build_module()
            loggers = open_loggers(self.config, plan.name, plan.folder)
            callbacks = [*self.build_callbacks(module), *self.watching]
            trainer = build_trainer(plan, self.config.trainer, self.precision, callbacks, loggers)
            with finishing_runs(trainer.loggers):
                with hold_signals(), going_on_from(resume_point, trainer):
                    trainer.fit(module, datamodule=self.datamodule, ckpt_path=resume_point and str(resume_point.path))
                best = self.finish(trainer)
        say(f"{plan.name}: {best.describe()}, {self.data.describe_split()}")

    @rank_0_first
    def open_images(self) -> CXRDataModule:
        """Prepare the images of the phase if needed, and check them."""
        settings = self.plan.config
        datamodule = CXRDataModule(
            self.data,
            img_size=settings.img_size,
            batch_size=settings.batch_size,
            resize=self.config.data.resize,
            cache_dir=Path(self.config.cache_dir),
            augment=build_augment(self.config.augment, settings.img_size),
            sampler=self.config.sampler,
            seed=self.config.seed,
            num_workers=self.config.trainer.num_workers,
        )
        datamodule.setup("fit")
        check_trainable(self.plan, datamodule)
        return datamodule

    def describe(self, start: Start) -> dict[str, Any]:
        """Make the metadata of the phase's checkpoints (``write_checkpoint``)."""
        return {
            "format": CHECKPOINT_FORMAT,
            "phase": self.plan.name,
            "phase_id": self.plan.id,
            "config": self.config.model_dump(),
            "labels": list(self.data.labels),
            "precision": self.precision,
            "monitor": self.config.monitor,
            "split": self.data.name_rows(self.data.split).to_csv(index=False, lineterminator="\n"),
            "rows": hash_rows(self.data.name_rows(self.data.index), self.data.labels),
            "split_name": self.data.split_name,
            "trained_patients": sorted(start.patients | name_patients(self.data.split, "train")),
            "start_sources": start.sources,
            "history": start.history,
            "files": list_seen_files(self.datamodule, start.files),
        }

    @on_rank_0
    def begin_or_resume(self, pos_weight: pd.DataFrame) -> tuple[dict[str, Any], ResumePoint | None]:
        """Return the record of the new or resumed phase folder, and the state to resume from, if any."""
        folder = self.plan.folder
        point = choose_resume(folder, self.plan.name, self.plan.id, self.datamodule.store.files_sha256)
        if point is None:
            return begin_folder(folder, self.metadata, self.config, self.datamodule, pos_weight), None
        record = read_phase_record(folder) or {}
        compare_versions(record)
        return record, point

    def find_baseline(self, checkpoint: Checkpoint | None) -> None:
        """Find the baseline in the checkpoint that the phase starts from."""
        settings = self.plan.config
        if checkpoint is None:
            if settings.require_improvement:
                say(f"Nothing comes before {self.plan.name}: there is nothing that it has to be better than")
            return
        if "baseline" not in self.record:
            found = find_baseline(checkpoint, self.metadata, self.config)
            if found is None and settings.require_improvement:
                scores = validate(self.network, self.loss, self.datamodule, self.precision, self.config)
                found = Baseline.of_start(settings.img_size, scores)
            self.record["baseline"] = found and found.model_dump()
            write_phase_record(self.plan.folder, self.record)
        self.baseline = self.record["baseline"] and Baseline.model_validate(self.record["baseline"])
        if self.baseline is not None:
            say(f"It starts from {self.baseline.describe(self.config.monitor)}")

    def adapt_batch_norms(self, resume_point: ResumePoint | None) -> None:
        """Re-estimate the BatchNorm statistics at this image size, if configured."""
        if not self.plan.freezing.adapts:
            return
        if resume_point is not None:
            load_state(resume_point.path, self.network)  # includes the re-estimated statistics
            return
        with computing_on(self.network, self.config.trainer.accelerator, self.precision):
            adapt_batch_norms(self.network, self.datamodule.statistics_dataloader(rank(), n_ranks()))

    def cache_features(self) -> None:
        """Compute the output of the frozen units once, if the config caches it."""
        if self.plan.n_cached_units:
            self.datamodule.features = open_features(
                self.network, self.plan, self.later, self.config, self.precision, self.datamodule
            )

    def build_module(self) -> CXRModule:
        """Build the LightningModule around the network."""
        threads = format_count(torch.get_num_threads(), "thread")
        say(f"Precision {self.precision}, {threads}, {self.datamodule.describe_loading()}")
        if n_ranks() > 1:
            sync_batch_norms(self.network)
        if self.config.trainer.compile:
            check_compiler()
            self.network.compile_parts()
        seed_all(self.config.seed)
        return CXRModule(
            network=self.network,
            labels=self.data.labels,
            lr=self.plan.config.lr,
            loss=self.loss,
            optimizer=self.config.optimizer,
            scheduler=self.plan.config.scheduler,
            metrics=build_metrics(self.config.metrics.collection, self.data.labels),
            train_metrics=self.config.metrics.train,
            monitor=self.config.monitor,
            n_cached=self.datamodule.n_cached,
        )

    def build_callbacks(self, module: CXRModule) -> list[Callback]:
        """Build the engine's own callbacks and those of the config."""
        plan, folder, has_logger = self.plan, self.plan.folder, bool(self.config.logger)
        composed = build_composed_callbacks(plan.name, plan.config, module.metrics, plan.freezing, has_logger)
        for callback in composed:
            if isinstance(callback, FreezeBatchNorm):
                callback.is_adapted = plan.freezing.adapts  # done before features were cached
        return [
            ResumeCheckpoint(folder, plan.id, self.config.trainer.checkpoint_every_n_steps),  # before the others act
            PhaseTimer(),
            FrozenGuard(plan.freezing.n_trainable, plan.freezing.batch_norm_trains or plan.freezing.may_change),
            *composed,
            FiniteLoss(),
            EpochReport(folder),
            BestCheckpoint(folder, self.metadata),
        ]

    @on_rank_0
    def finish(self, trainer: Trainer) -> Result:
        """Write the best and the last weights, and mark the phase as done in ``phase.json``."""
        module, folder = trainer.lightning_module, self.plan.folder
        assert isinstance(module, CXRModule)
        best, scores = self.read_best(trainer)
        if self.baseline is not None and self.previous is not None:
            best = judge(self.plan.name, self.plan.config, best, scores, self.baseline, self.previous, module)
        log_result(trainer.loggers, best, trainer.global_step)
        n_epochs = trainer.current_epoch
        write_checkpoint(folder / "last.ckpt", self.metadata, n_epochs, module.scores["val"], module.copy_weights())
        self.record |= {
            "best_epoch": best.best_epoch,
            "monitor": best.monitor,
            "best_score": best.best_score,
            "rejected_for": best.rejected_for,
            "best_sha256": hash_file(folder / "best.ckpt"),
            "seconds": read_seconds(trainer),
            "status": "done",
        }
        write_phase_record(folder, self.record)
        return best

    def read_best(self, trainer: Trainer) -> tuple[Result, dict[str, float]]:
        """Read the best epoch, and its validation metrics by name.

        Raises:
            CheckpointError: The checkpoint holds another epoch.
        """
        [best] = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
        path = self.plan.folder / "best.ckpt"
        assert best.epoch is not None
        metadata = read_checkpoint(path).metadata
        if metadata.epoch != best.epoch:
            raise CheckpointError(
                f"{path}: it does not hold the weights of epoch {best.epoch}: remove {path.parent} to train it anew"
            )
        return Result(path.parent, best.epoch, self.config.monitor, best.score), metadata.scores
