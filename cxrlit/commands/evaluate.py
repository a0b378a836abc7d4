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
    """Evaluate a composed config; Hydra calls this."""
    return run_task(evaluate, composed, EvaluateConfig)


def main() -> None:
    """Run ``evaluate.py`` on the command line."""
    launch(run, "evaluate", EvaluateConfig)
