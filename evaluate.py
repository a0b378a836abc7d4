"""Evaluate a checkpoint, or predictions: python evaluate.py ckpt=PATH [out=DIR] (--help says more)."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig

CONFIG_DIR = Path(__file__).resolve().parent / "conf"


def run(config: EvaluateConfig) -> None:
    """Evaluate, importing the heavy libraries only after the config was checked."""
    from cxrlit.evaluation.evaluate import evaluate

    evaluate(config)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="evaluate")
def main(composed: DictConfig) -> Any:
    """What Hydra runs."""
    return run_task(run, composed, EvaluateConfig)


if __name__ == "__main__":
    launch(main, CONFIG_DIR, "evaluate", EvaluateConfig)
