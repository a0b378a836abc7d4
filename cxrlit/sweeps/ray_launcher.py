"""Run the jobs of a sweep on Ray.

Hydra's own Ray plugin (1.2.2) pins cloudpickle below 3 and installs boto3, for clusters that it starts itself.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cxrlit.core.extras import import_extra


class RayLauncher(Launcher):
    """Runs each job in a Ray process, in the folder of the command.

    Args:
        init: Arguments of ``ray.init``.
        remote: Options of ``ray.remote``: resources of each job.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        options: list[Any] = [OmegaConf.to_container(OmegaConf.create(dict(part))) for part in (init, remote)]
        self.init, self.remote = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes for the jobs.

        Raises:
            ConfigError: Ray is not installed.
        """
        import_extra("ray", "ray", "hydra/launcher=ray")
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and wait for all of them, even if one dies.

        Raises:
            ray.exceptions.RayError: A job's process died.
        """
        import ray

        ray.init(**self.init)
        try:
            run = ray.remote(**self.remote)(_run)
            place = (Singleton.get_state(), Path.cwd())
            jobs = [
                run.remote(self.hydra_context, self.task_function, self.config, list(overrides), number, *place)
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            ray.wait(jobs, num_returns=len(jobs))
            return list(ray.get(jobs))
        finally:
            ray.shutdown()


def _run(
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    overrides: list[str],
    number: int,
    singletons: Any,
    folder: Path,
) -> JobReturn:
    os.chdir(folder)
    Singleton.set_state(singletons)
    setup_globals()
    composed = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
