"""``python evaluate.py`` and ``cxrlit evaluate``: checkpoints, or predictions."""

from typing import Any

from omegaconf import DictConfig

from cxrlit.commands.hydra_main import launch, run_task
from cxrlit.config import EvaluateConfig


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate, importing the heavy libraries only after the config was checked."""
    from cxrlit.evaluation.evaluate import evaluate

    evaluate(config)


def run(composed: DictConfig) -> Any:
    """What Hydra runs."""
    return run_task(evaluate, composed, EvaluateConfig)


def main() -> None:
    """The command."""
    launch(run, "evaluate", EvaluateConfig)
