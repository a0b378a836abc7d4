"""Train a chest X-ray classifier: python train.py phase=highres img_size=320 (--help says more)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig, MachineConfig, TrainConfig
from cxrlit.config.compose import compose_defaults

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from cxrlit.training.phase_folder import Result

CONFIG_DIR = Path(__file__).resolve().parent / "conf"


def train_and_evaluate(config: TrainConfig, callbacks: "Sequence[Callback]" = ()) -> "Result":
    """Returns the goal; a sweep ranks it by its validation macro AUROC, and may give callbacks that watch it."""
    from cxrlit.evaluation.evaluate import evaluate
    from cxrlit.training.chain import train

    result = train(config, callbacks)
    if config.evaluate:
        machine = {f"trainer.{key}": getattr(config.trainer, key) for key in MachineConfig.model_fields}
        settings = {"ckpt": str(result.folder), "cache_dir": config.cache_dir, **machine}
        evaluate(compose_defaults("evaluate", CONFIG_DIR, EvaluateConfig, settings))
    return result


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(composed: DictConfig) -> Any:
    """What Hydra runs for each config of the command line."""
    return run_task(train_and_evaluate, composed, TrainConfig)


if __name__ == "__main__":
    launch(main, CONFIG_DIR, "train", TrainConfig, train_and_evaluate)
