"""A search by Optuna: request trials, run them like the points of a grid, and report their results.

The study is a journal in the folder of the sweep. A trial that was killed or failed is run again with the same values,
and its phase resumes from its last state. The values of a trial depend only on the seed, its number and the trials
before it, so an interrupted study ends like an uninterrupted one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pytorch_lightning import Callback, LightningModule, Trainer

from cxrlit.config import SearchInterval, SweepConfig, TrainConfig, Value, write_override
from cxrlit.config.overrides import name_key
from cxrlit.core.console import format_path, say
from cxrlit.core.files import hash_value, write_bytes
from cxrlit.model.module import CXRModule
from cxrlit.sweeps.record import RECORD_VERSION, Point, Pruned, read_job_record

JOURNAL = "study.log"
STUDY_VERSION = 1
"""Part of every study's id. Increased when the same settings would search in another way."""


def hash_study(sweep: SweepConfig, config: TrainConfig) -> str:
    """Id of a study: a hash of all that determines its trials, without their number and where they run."""
    trained = config.model_dump(mode="json", exclude={"run", "runs_dir", "cache_dir", "evaluate", "logger"})
    computing = ("precision", "gradient_clip_norm", "accumulate_grad_batches", "compile")
    trained["trainer"] = {key: trained["trainer"][key] for key in computing}
    trained["augment"] = list(trained["augment"]["transforms"].values())  # their order matters
    searched = sweep.model_dump(mode="json", exclude={"n_trials", "n_parallel"})
    return hash_value([STUDY_VERSION, RECORD_VERSION, searched, trained], digits=8)


def run_trials(sweep: SweepConfig, settings: list[str], folder: Path) -> Iterator[list[Point]]:
    """Yield points for unfinished trials; their results are told to the study when the next points are requested."""
    mend_journal(folder / JOURNAL)
    study = open_study(folder, sweep)
    finished = [trial.number for trial in study.trials if trial.state.is_finished()]
    say(f"Study: {format_path(folder)}, {len(finished)} of {sweep.n_trials} trials are finished")
    numbers = [number for number in range(sweep.n_trials) if number not in finished]
    for start in range(0, len(numbers), sweep.n_parallel):
        batch = numbers[start : start + sweep.n_parallel]
        points = []
        for number in batch:
            values = [write_override(key, value) for key, value in ask_trial(study, sweep, number).items()]
            texts = {name_key(text): text.partition("=")[2] for text in values}
            points.append(Point(number + 1, [*settings, *values], texts))
        yield points
        for number in batch:
            tell_trial(study, number, folder)


def open_study(folder: Path, sweep: SweepConfig) -> optuna.Study:
    """Open the study in a folder, or create it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(sweep.n_startup_trials, sweep.n_warmup_epochs)
    return optuna.create_study(
        study_name="optuna",
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        pruner=pruner if sweep.pruner == "median" else optuna.pruners.NopPruner(),
        direction="maximize",
        load_if_exists=True,
    )


def ask_trial(study: optuna.Study, sweep: SweepConfig, number: int) -> dict[str, Value]:
    """Return the values of a trial; a trial that was begun before keeps its values."""
    seed = int(np.random.SeedSequence([sweep.seed, number]).generate_state(1)[0])
    if sweep.sampler == "tpe":
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=sweep.n_startup_trials, seed=seed)
    else:
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    trial = open_trial(study, number) if number < len(study.trials) else study.ask()
    values: dict[str, Value] = {}
    for key, parameter in sweep.space.items():
        if not isinstance(parameter, SearchInterval):
            values[key] = trial.suggest_categorical(key, parameter.choices)
        elif parameter.is_whole:
            step = parameter.step or 1
            values[key] = trial.suggest_int(key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
        else:
            values[key] = trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
    return values


def open_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """Open a trial that was begun in this or another process."""
    return optuna.Trial(study, study.trials[number]._trial_id)


def tell_trial(study: optuna.Study, number: int, folder: Path) -> None:
    """Tell the study the result of a trial; a failed trial stays open, so that the next command runs it again."""
    record = read_job_record(folder, number + 1)
    if record is None or record.status == "failed":
        return
    if record.status == "pruned":
        study.tell(number, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(number, record.auroc_macro)


def mend_journal(path: Path) -> None:
    """Drop an incomplete last line, which Optuna would continue; a full disk or a power cut leaves one."""
    content = path.read_bytes() if path.is_file() else b""
    if not content.endswith(b"\n") and content:
        write_bytes(path, content[: content.rfind(b"\n") + 1])


class PruneTrial(Callback):
    """Reports the validation macro AUROC of each epoch of the goal, and stops a pruned trial.

    It has no state and changes nothing: a trial that is not pruned gives the same result as without it.

    Args:
        folder: The folder of the study.
        number: The number of the trial.
        sweep: Settings of the search.
    """

    def __init__(self, folder: Path, number: int, sweep: SweepConfig) -> None:
        self.folder, self.number, self.sweep = folder, number, sweep
        self.trial: optuna.Trial | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the trial."""
        self.trial = open_trial(open_study(self.folder, self.sweep), self.number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch to the study.

        Raises:
            Pruned: The study stops the trial, before its last epoch.
        """
        assert isinstance(pl_module, CXRModule)
        assert self.trial is not None
        epoch = trainer.current_epoch  # Optuna counts from 0
        if epoch not in self.trial.study.trials[self.number].intermediate_values:  # unless a resume repeats the epoch
            self.trial.report(pl_module.monitored, epoch)
        is_last = trainer.should_stop or epoch + 1 == trainer.max_epochs
        if not is_last and self.trial.should_prune():
            raise Pruned(Path(trainer.default_root_dir), epoch + 1)
