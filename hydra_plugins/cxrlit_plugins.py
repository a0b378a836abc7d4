"""The sweepers and the launcher that ``conf/hydra/`` names. Hydra builds plugins from the package hydra_plugins alone.

Hydra imports this file whenever it starts, so what sweeps is imported when it sweeps.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cxrlit.sweeps import ray_launcher


class GridSweeper(Sweeper):
    """Every combination of the values on the command line, ranked (``hydra/sweeper=grid``).

    Args:
        settings: ``hydra.sweeper``, which is checked as a part of the config.
    """

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def __init__(self, **settings: Any) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        # Jobs get one of their own. A launcher that cannot be built is known here, before anything runs.
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        from cxrlit.sweeps.sweep import Multirun, run_grid

        run_grid(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class OptunaSweeper(GridSweeper):
    """Trials that Optuna chooses (``hydra/sweeper=optuna``)."""

    def sweep(self, arguments: list[str]) -> None:
        from cxrlit.sweeps.sweep import Multirun, run_study

        run_study(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class AblationSweeper(GridSweeper):
    """A baseline and each lever alone (``hydra/sweeper=ablation``, ``cxrlit ablate``)."""

    def sweep(self, arguments: list[str]) -> None:
        from cxrlit.sweeps.ablation import run_ablation
        from cxrlit.sweeps.sweep import Multirun

        run_ablation(Multirun(arguments, self.config, self.hydra_context, self.task_function))


class RayLauncher(ray_launcher.RayLauncher):
    """Jobs as processes of Ray (``hydra/launcher=ray``)."""
