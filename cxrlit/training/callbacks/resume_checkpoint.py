"""Save the full training state, and stop on signals."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins import MixedPrecision

from cxrlit.core.distributed import max_over_ranks
from cxrlit.core.errors import CheckpointError, ConfigError, CXRLitError, DivergenceError, first_line
from cxrlit.core.signals import Interrupted, asked_to_stop, set_handlers
from cxrlit.model.archive import check_plain
from cxrlit.model.checkpoint import CHECKPOINT_FORMAT, RESUME_STATE
from cxrlit.training.callbacks.best_checkpoint import BestCheckpoint
from cxrlit.training.logger_runs import resume_logs, save_logs
from cxrlit.training.resume import (
    KEPT,
    UNNEEDED,
    ResumePoint,
    check_like,
    drop_states,
    read_rng,
    restore_rng,
    state_path,
)

MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"})
"""State of cxrlit's optimizers that has the shape of its parameter."""

SCALER = MixedPrecision.__qualname__
"""Lightning's key for the state of the gradient scaler of ``trainer.precision=fp16``."""


class ResumeCheckpoint(Callback):
    """Saves the state every ``every_n_steps`` steps, between two steps, and before each validation.

    A state records exactly the completed steps and what they logged. What follows the last step of an epoch is repeated
    on resume: the same validation gives the same numbers to the schedule, early stopping and the best checkpoint. So an
    epoch ends in only one state. (Lightning's own states, from any hook, replay the batches of an epoch, lose the step
    of ReduceLROnPlateau, and hold no random generators.)

    It is the first callback, so that it saves the others' state from before the step.

    Args:
        folder: The phase folder, where the last two states are kept.
        phase_id: Id of the phase.
        every_n_steps: Steps between two states; None: only before validations.

    Attributes:
        has_begun: Whether the training has started, with the state fully restored on resume.
    """

    def __init__(self, folder: str | Path, phase_id: str, every_n_steps: int | None = None) -> None:
        self.folder, self.phase_id, self.every_n_steps = Path(folder), phase_id, every_n_steps
        self._rng: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None
        self._saved_step = 0
        self.has_begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the kinds of the loaded loops, optimizers, schedules and scaler.

        Raises:
            ValueError: A value is of another kind than in a new training.
        """
        if self._loaded is None:
            return
        fresh: dict[str, Any] = {
            "loops": trainer._checkpoint_connector._get_loops_state_dict(),
            "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "lr_schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            SCALER: trainer.precision_plugin.state_dict(),
        }
        for key, value in fresh.items():
            found = self._loaded.get(key, {})
            check_like(found, value, key)
            if key == SCALER and found.keys() != value.keys():
                raise ValueError("the state of the gradient scaler is another")
        self._loaded = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random generators, or check that a first state can be saved; handle signals from here on.

        Raises:
            ValueError: The optimizer's state does not fit its parameters.
        """
        set_handlers()
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name in MOMENTS & state.keys():
                    if state[name] is not None:
                        check_like(state[name], parameter, f"{name} of the optimizer")
        # While this is set, Lightning does not step ReduceLROnPlateau after a resumed epoch.
        trainer.fit_loop._restarting = False
        if self._rng is None:
            self._try_saving(trainer)
        else:
            restore_rng(self._rng)
        self.has_begun = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save the state between two optimizer steps if one is due; on a signal, save and stop."""
        if batch_idx == 0 or batch_idx % trainer.accumulate_grad_batches:  # a state has no gradients of half a step
            return
        signum = max_over_ranks(asked_to_stop() or 0) or None  # all stop at the same step
        if signum is not None or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer, pl_module)
        if signum is not None:
            self._stop(trainer, signum)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state before a validation."""
        self._save(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop on a signal; the state was saved before the validation."""
        signum = asked_to_stop()
        if signum is not None:
            self._stop(trainer, signum)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the position, the random generators and the logs to Lightning's state."""
        epoch_loop = trainer.fit_loop.epoch_loop
        n_batches = epoch_loop.batch_progress.current.completed
        [best] = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
        checkpoint[RESUME_STATE] = {
            "format": CHECKPOINT_FORMAT,
            "phase_id": self.phase_id,
            "epoch": trainer.current_epoch + 1,
            "n_batches": n_batches,
            "step": trainer.global_step,
            "best_epoch": best.epoch,
        }
        for key in UNNEEDED:
            checkpoint.pop(key, None)
        checkpoint["rng"] = read_rng()
        checkpoint["logs"] = save_logs(trainer.loggers)
        _settle(checkpoint["loops"]["fit_loop"], in_validation=trainer.validating)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check the callbacks' states, and continue the logs from the state.

        Raises:
            ValueError: A callback's state holds another type than in a new training.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # a user's callbacks may change kinds
            found = checkpoint["callbacks"].get(callback.state_key)
            if found is not None and type(callback).__module__.startswith(("cxrlit.", "pytorch_lightning.")):
                check_like(found, callback.state_dict(), f"callbacks.{type(callback).__name__}")
        self._loaded = checkpoint
        self._rng, self._saved_step = checkpoint["rng"], checkpoint[RESUME_STATE]["step"]
        resume_logs(trainer.loggers, checkpoint["logs"])

    def _try_saving(self, trainer: Trainer) -> None:
        """Refuse a callback whose state cannot be saved, before the training begins."""
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        try:
            check_plain(state, Path("callbacks"))
        except CheckpointError as error:
            raise ConfigError(str(error)) from None

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self._saved_step:
            return
        for name, tensor in pl_module.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise DivergenceError(
                    f"{name} holds NaN or infinity after step {trainer.global_step}: the training diverged; what was "
                    "saved before is kept. Set a lower lr"
                )
        trainer.save_checkpoint(self.folder / state_path(trainer.global_step), weights_only=False)
        if trainer.is_global_zero:
            drop_states(self.folder, keep=KEPT)
        self._saved_step = trainer.global_step

    def _stop(self, trainer: Trainer, signum: int) -> None:
        raise Interrupted(signum, f"saved at epoch {trainer.current_epoch + 1}, step {trainer.global_step}")


@contextmanager
def going_on_from(point: ResumePoint | None, trainer: Trainer) -> Iterator[None]:
    """Turn an error of Lightning, torch or a callback while it loads a state into one line.

    Raises:
        CheckpointError: The state cannot be loaded.
    """
    [resume] = [one for one in trainer.callbacks if isinstance(one, ResumeCheckpoint)]  # type: ignore[attr-defined]
    try:
        yield
    except (CXRLitError, OSError):
        raise
    except Exception as error:  # states and callbacks can raise anything
        if point is None or resume.has_begun:
            raise
        raise CheckpointError(
            f"{point.path}: it cannot be gone on from ({type(error).__name__}: {first_line(error, 160)}): remove it, "
            "and the phase goes on from the state before it"
        ) from None


def _settle(loops: dict[str, Any], in_validation: bool) -> None:
    """Set the progress of Lightning's loops to a point between two steps, or before a validation.

    Hooks run in the middle of a step or validation, when the counters are half updated.
    """
    steps, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    if in_validation:  # counted as begun, as in an interrupted validation
        for counts in (validation["total"], validation["current"]):
            counts.update(ready=1, started=1, processed=0, completed=0)
    else:  # the fetched batch was not processed
        for counts in (steps["total"], steps["current"]):
            counts["ready"] = counts["completed"]
        steps["is_last_batch"] = False
