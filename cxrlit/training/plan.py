"""The chain of phases up to the goal: what each is, its id, and whether it is finished.

A phase's id is a hash of all that determines its result, known before any work. A finished phase with the same id
is reused; a changed setting has another id and another folder, so nothing is ever overwritten.
"""

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class

from cxrlit.config import PHASE_NAMES, PhaseConfig, PhaseName, Precision, PrecisionChoice, Target, TrainConfig
from cxrlit.data.decode import PREPROCESSING_VERSION
from cxrlit.data.load import LoadedData
from cxrlit.errors import CheckpointError, ConfigError, first_line
from cxrlit.files import hash_file, hash_value
from cxrlit.model.densenet import IMAGENET_FILE

TRAINING_VERSION = 2
"""Part of every phase's id. Rises when the same config would train to another result."""

REQUIRED_CALLBACKS = {
    "phased_unfreezing": "cxrlit.training.callbacks.PhasedUnfreezing",
    "freeze_batch_norm": "cxrlit.training.callbacks.FreezeBatchNorm",
    "epoch_report": "cxrlit.training.callbacks.EpochReport",
    "best_checkpoint": "pytorch_lightning.callbacks.ModelCheckpoint",
    "last_checkpoint": "pytorch_lightning.callbacks.ModelCheckpoint",
}
"""Callbacks that make a phase what it is. Their settings are the phase's: a run cannot change them."""

DISPLAY_TARGETS = frozenset(
    {
        "pytorch_lightning.callbacks.LearningRateMonitor",
        "pytorch_lightning.callbacks.RichProgressBar",
        "pytorch_lightning.callbacks.TQDMProgressBar",
    }
)
"""Callbacks that show what happens and change no result: they stay out of the id."""


@dataclass(frozen=True)
class PlannedPhase:
    """A phase of the chain.

    Attributes:
        name: scratch, frozen, finetune or highres.
        config: Its settings.
        callbacks: Its callbacks, those of all phases and its own.
        id: Hash of what determines its result.
        folder: Where it lives.
        status: ``done``; ``run``; ``start over`` where an earlier try was cut off; or ``not needed`` where a later
            phase is done.
    """

    name: PhaseName
    config: PhaseConfig
    callbacks: dict[str, Target]
    id: str
    folder: Path
    status: str


def plan_phases(config: TrainConfig, data: LoadedData, precision: Precision, start: str) -> list[PlannedPhase]:
    """The phases that lead to the goal, in order.

    Args:
        config: The resolved config.
        data: Index and split.
        precision: bf16 or fp32.
        start: What the first phase starts from, by content (``hash_start``).

    Raises:
        ConfigError: A callback, the optimizer or a scheduler cannot be what it says.
        CheckpointError: A finished phase's checkpoint is not the one that was written.
    """
    planned: list[PlannedPhase] = []
    for name in _chain(config):
        phase = config.phases.get(name)
        callbacks = merge_callbacks(config.callbacks, phase.callbacks)
        check_targets(config, name, callbacks)
        # What changes no result stays out: workers, logger, paths, what is only shown.
        deciding = {
            key: spec
            for key, spec in callbacks.items()
            if spec["_target_"] not in DISPLAY_TARGETS and key not in REQUIRED_CALLBACKS
        }
        id_ = hash_value(
            {
                "version": [TRAINING_VERSION, PREPROCESSING_VERSION],
                "phase": name,
                "config": {**phase.model_dump(mode="json"), "callbacks": deciding},
                "model": [config.model.name, config.model.normalize],
                "loss": config.loss.model_dump(),
                "augment": config.augment.model_dump(),
                "optimizer": config.optimizer,
                "gradient_clip_norm": config.trainer.gradient_clip_norm,
                "metrics": config.metrics.model_dump(),
                "data": [data.name, data.labels, data.index_hash, data.split_hash, config.data.resize],
                "sampler": config.sampler.model_dump(),
                "seed": config.seed,
                "precision": precision,
                "start": start,
            },
            digits=8,
        )
        folder = Path(config.runs_dir) / config.run / f"{name}-{id_}"
        planned.append(PlannedPhase(name, phase, callbacks, id_, folder, _read_status(folder)))
        start = id_
    last_done = max((number for number, phase in enumerate(planned) if phase.status == "done"), default=0)
    return [
        replace(phase, status="not needed") if number < last_done and phase.status != "done" else phase
        for number, phase in enumerate(planned)
    ]


def hash_start(config: TrainConfig) -> str:
    """What the chain starts from, by content and not by path.

    Raises:
        CheckpointError: The file of weights is not there.
    """
    weights = config.init_from or config.model.weights or ""
    if weights == "none":
        return "random"
    if weights == "imagenet":
        return IMAGENET_FILE
    path = Path(weights).expanduser()
    if not path.is_file():
        raise CheckpointError(f"model.weights={weights}: there is no such file; it may be imagenet, none or a file")
    return hash_file(path)


def choose_precision(wanted: PrecisionChoice, accelerator: str) -> Precision:
    """bf16 or fp32. ``auto`` is bf16 where the device computes in it: recent GPUs, CPUs with AVX512-BF16 or AMX.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(accelerator, True):
        raise ConfigError(f"trainer.accelerator={accelerator}: this machine has none; auto takes what is there")
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available() and accelerator in {"auto", "cuda"}:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if accelerator in {"auto", "mps"} and torch.backends.mps.is_available():
        return "fp32"
    in_bf16: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if in_bf16 else "fp32"


def merge_callbacks(shared: Mapping[str, Target | None], own: Mapping[str, Target | None]) -> dict[str, Target]:
    """The callbacks of a phase: those of all phases, with its own keys over them, without those that are null.

    Raises:
        ConfigError: One that makes a phase what it is is null or changed.
    """
    merged: dict[str, Target] = {}
    for name in [*shared, *(name for name in own if name not in shared)]:
        base, change = shared.get(name), own.get(name, {})
        if change is None or (base is None and not change):
            continue
        merged[name] = {**(base or {}), **change}
    for name, target in REQUIRED_CALLBACKS.items():
        if merged.get(name) != {"_target_": target}:
            raise ConfigError(f"callbacks.{name}: it makes a phase what it is: it stays, and takes no settings")
    return merged


def check_targets(config: TrainConfig, name: PhaseName, callbacks: Mapping[str, Target]) -> None:
    """Everything that is to be built exists and takes the arguments it is given.

    Raises:
        ConfigError: A ``_target_`` cannot be found, or an argument is not one of its own.
    """
    phase = config.phases.get(name)
    check_target("optimizer", config.optimizer, positional=1)
    if phase.scheduler is not None:
        check_target(f"phases.{name}.scheduler", phase.scheduler, positional=1)
    for key, spec in callbacks.items():
        if key not in REQUIRED_CALLBACKS:
            check_target(f"callbacks.{key}", spec)
    if config.logger is not None:
        check_target("logger", config.logger)
    elif any(spec["_target_"].endswith("LearningRateMonitor") for spec in callbacks.values()):
        raise ConfigError("logger=null: callbacks.lr_monitor has nothing to write to; add callbacks.lr_monitor=null")


def check_target(key: str, spec: Target, positional: int = 0) -> None:
    """One ``_target_`` with its arguments.

    Args:
        key: Its name in the config.
        spec: The dict.
        positional: Leading arguments that the program itself gives.

    Raises:
        ConfigError: As for ``check_targets``.
    """
    name = spec.get("_target_")
    if not isinstance(name, str):
        raise ConfigError(f"{key}._target_: it must be the dotted name of a class")
    try:
        parameters = list(inspect.signature(get_class(name)).parameters.values())[positional:]
    except Exception as error:  # importing a user's own module may raise anything
        raise ConfigError(f"{key}._target_={name}: {_say_import_fault(name, error)}") from None
    names = [parameter.name for parameter in parameters]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for argument in spec:
        if argument not in names and not argument.startswith("_") and not takes_any:
            raise ConfigError(f"{key}.{argument}: {name} has no such argument; it takes {', '.join(names)}")


def read_done(folder: Path) -> dict[str, Any] | None:
    """What a finished phase says of itself; None where it is not finished.

    Raises:
        CheckpointError: Its best checkpoint is not the file that training wrote.
    """
    path = folder / "phase.json"
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise CheckpointError(f"{path}: it is damaged: remove {folder}, the phase is trained anew") from None
    if not isinstance(facts, dict) or facts.get("status") != "done":
        return None
    if type(facts.get("best_epoch")) is not int or type(facts.get("best_val_auroc_macro")) is not float:
        raise CheckpointError(f"{path}: it is damaged: remove {folder}, the phase is trained anew")
    best = folder / "best.ckpt"
    if not best.is_file() or hash_file(best) != facts.get("best_sha256"):
        raise CheckpointError(f"{best}: it is not the file that training wrote: remove {folder} to train it anew")
    return facts


def _read_status(folder: Path) -> str:
    if read_done(folder) is not None:
        return "done"
    return "start over" if folder.exists() else "run"


def _chain(config: TrainConfig) -> list[PhaseName]:
    if config.init_from is not None:
        return [config.phase]
    names = list(PHASE_NAMES[: PHASE_NAMES.index(config.phase) + 1])
    return names if config.model.weights == "none" else [name for name in names if name != "scratch"]


def _say_import_fault(name: str, error: Exception) -> str:
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except Exception as fault:
        return first_line(fault)
    return f"{module} has no {attribute}" if not hasattr(found, attribute) else f"{attribute} is not a class"
