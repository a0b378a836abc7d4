"""The objective for any Hydra sweeper: train a config and return its validation value."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cxrlit.config import MachineConfig, TrainConfig, read_config
from cxrlit.config.folders import find_own_modules
from cxrlit.core.errors import ConfigError, CXRLitError, first_line
from cxrlit.core.exit_on_error import name_fault

if TYPE_CHECKING:
    from cxrlit.training.phase_folder import Result


@dataclass(frozen=True)
class Objective:
    """Trains a composed config. Launchers may pickle it.

    Attributes:
        task: Trains a config and, if configured, evaluates it; takes callbacks that watch the goal.
    """

    task: "Callable[[TrainConfig, Sequence[Any]], tuple[Result, Path | None]]"

    def __call__(self, composed: DictConfig) -> float:
        """Train without a record, for sweepers of other packages.

        Returns:
            Value of ``monitor`` on validation after the best epoch of the goal.

        Raises:
            CXRLitError: The training failed, in one line.
        """
        try:
            config = read_job(composed)
            check_one_process(config.trainer)
            result, _ = self.task(config, ())
            return result.best_score
        except Exception as error:
            raise name_failure(error) from None


def read_job(composed: DictConfig) -> TrainConfig:
    """Check the config of a job, in any process.

    Raises:
        ConfigError: As for ``read_config``.
    """
    find_own_modules(composed, Path(HydraConfig.get().runtime.cwd))
    return read_config(composed, TrainConfig)


def check_one_process(machine: MachineConfig) -> None:
    """Check that a point of a sweep trains in one process.

    Raises:
        ConfigError: The point asks for several devices.
    """
    if machine.devices * machine.num_nodes > 1:
        raise ConfigError(
            f"trainer.devices={machine.devices} trainer.num_nodes={machine.num_nodes}: a sweep trains each point on "
            f"one device: drop it, or start each point by itself: torchrun --nproc-per-node={machine.devices} train.py"
        )


def name_failure(error: Exception) -> CXRLitError:
    """Say why a job failed, in one line; prints the traceback unless it is an error that the user can correct."""
    fault = name_fault(error)
    if fault is None:
        traceback.print_exception(error)
    return fault or CXRLitError(first_line(error))
