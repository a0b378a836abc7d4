"""``python train.py`` and ``cxrlit train``: the phases up to a goal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig, MachineConfig, TrainConfig
from cxrlit.config.compose import compose_defaults

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from cxrlit.training.phase_folder import Result


def train_and_evaluate(config: TrainConfig, callbacks: "Sequence[Callback]" = ()) -> "Result":
    """Returns the goal; a sweep ranks it by its validation macro AUROC, and may give callbacks that watch it."""
    from cxrlit.evaluation.evaluate import evaluate
    from cxrlit.training.chain import train

    result = train(config, callbacks)
    if config.evaluate:
        machine = {f"trainer.{key}": getattr(config.trainer, key) for key in MachineConfig.model_fields}
        settings = {"ckpt": str(result.folder), "cache_dir": config.cache_dir, "logger": config.logger, **machine}
        evaluate(compose_defaults("evaluate", EvaluateConfig, settings))
    return result


def run(composed: DictConfig) -> Any:
    """What Hydra runs for each config of the command line."""
    return run_task(train_and_evaluate, composed, TrainConfig)


def main() -> None:
    """The command."""
    launch(run, "train", TrainConfig, train_and_evaluate)
