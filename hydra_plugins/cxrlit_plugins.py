"""The sweepers and the launcher that ``conf/hydra/`` names. Hydra finds plugins only in the package hydra_plugins.

Hydra imports this file at every start, so the sweeps are imported only when needed.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cxrlit.sweeps import ray_launcher


class GridSweeper(Sweeper):
    """Trains every combination of the values on the command line, and ranks them (``hydra/sweeper=grid``).

    Args:
        settings: ``hydra.sweeper``, which is checked as part of the config.
    """

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def __init__(self, **settings: Any) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes, and check that the launcher can be built."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        # Jobs get their own launcher. One that cannot be built fails here, before anything runs.
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run a job for each combination of the values in ``arguments``."""
        from cxrlit.sweeps.sweep import Multirun, run_grid

        run_grid(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class OptunaSweeper(GridSweeper):
    """Runs trials that Optuna chooses (``hydra/sweeper=optuna``)."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials of a study over the ranges in ``arguments``."""
        from cxrlit.sweeps.sweep import Multirun, run_study

        run_study(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class AblationSweeper(GridSweeper):
    """Trains a baseline, and each lever alone (``hydra/sweeper=ablation``, ``cxrlit ablate``)."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the baseline and one job for each lever in ``arguments``."""
        from cxrlit.sweeps.ablation import run_ablation
        from cxrlit.sweeps.sweep import Multirun

        run_ablation(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class RayLauncher(ray_launcher.RayLauncher):
    """Jobs as processes of Ray (``hydra/launcher=ray``)."""
