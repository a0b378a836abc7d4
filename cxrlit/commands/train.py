"""``python train.py`` and ``cxrlit train``: the phases up to a goal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig, MachineConfig, TrainConfig
from cxrlit.config.compose import compose_defaults

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from cxrlit.training.phase_folder import Result


def train_and_evaluate(config: TrainConfig, callbacks: "Sequence[Callback]" = ()) -> "tuple[Result, Path | None]":
    """Train the goal and, with ``evaluate``, evaluate it; finished phases are reused.

    Args:
        config: From ``read_config``.
        callbacks: Callbacks that watch the goal and change no result.

    Returns:
        The result of the goal, and the folder of its evaluation, if any.
    """
    from cxrlit.evaluation.evaluate import evaluate_once
    from cxrlit.training.chain import train

    result = train(config, callbacks)
    if not config.evaluate:
        return result, None
    machine = {f"trainer.{key}": getattr(config.trainer, key) for key in MachineConfig.model_fields}
    settings = {"ckpt": str(result.folder), "cache_dir": config.cache_dir, "logger": config.logger, **machine}
    return result, evaluate_once(compose_defaults("evaluate", EvaluateConfig, settings))


def run(composed: DictConfig) -> Any:
    """Train a composed config; Hydra calls this for each config of the command line."""
    return run_task(train_and_evaluate, composed, TrainConfig)


def main() -> None:
    """Run ``train.py`` on the command line."""
    launch(run, "train", TrainConfig, train_and_evaluate)
