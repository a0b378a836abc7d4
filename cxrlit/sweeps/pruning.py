"""Stops a trial that is worse than the others were, told by the epoch."""

from pathlib import Path

import optuna
from pytorch_lightning import Callback, LightningModule, Trainer

from cxrlit.config import SweepConfig
from cxrlit.metrics.classification import macro
from cxrlit.model.module import CXRModule
from cxrlit.sweeps.job import Pruned
from cxrlit.sweeps.study import open_study, open_trial


class PruneTrial(Callback):
    """Reports the validation macro AUROC of each epoch of the goal, and asks whether to go on.

    It has no state and touches nothing: a trial that is not pruned ends as it would have without.

    Args:
        folder: The folder of the study.
        number: The number of the trial.
        sweep: How the study searches.
    """

    def __init__(self, folder: Path, number: int, sweep: SweepConfig) -> None:
        self.folder, self.number, self.sweep = folder, number, sweep
        self.trial: optuna.Trial | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trial = open_trial(open_study(self.folder, self.sweep), self.number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        assert self.trial is not None
        epoch = trainer.current_epoch
        if epoch not in self.trial.study.trials[self.number].intermediate_values:  # an epoch that is done again
            self.trial.report(macro(pl_module.auroc["val"]).value, epoch)
        is_last = trainer.should_stop or epoch + 1 == trainer.max_epochs
        if not is_last and self.trial.should_prune():
            raise Pruned(Path(trainer.default_root_dir), epoch)
