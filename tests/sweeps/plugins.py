"""Plugins of Hydra as a user may write them: a sweeper that is not of cxrlit, a launcher whose process dies."""

import importlib
import inspect
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

SWEEPER = """
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class TinySweeper(Sweeper):
    def __init__(self, values):
        self.values = values

    def setup(self, *, hydra_context, task_function, config):
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments):
        jobs = self.launcher.launch([[*arguments, f"lr={value}"] for value in self.values], 0)
        scores = [repr(job.return_value) for job in jobs]
        Path(self.config.hydra.sweep.dir, "scores.txt").write_text(" ".join(scores))


settings = {"_target_": f"{__name__}.TinySweeper", "values": [1e-3, 1e-2]}
ConfigStore.instance().store(group="hydra/sweeper", name="tiny", node=settings)
"""

LAUNCHER = '''
from hydra._internal.core_plugins import basic_launcher


class DyingLauncher(basic_launcher.BasicLauncher):
    """The process of its last job dies, after the others have ended."""

    def launch(self, job_overrides, initial_job_idx):
        super().launch(job_overrides[:-1], initial_job_idx)
        raise RuntimeError("job 7 died")
'''


def write_plugin(folder: Path, name: str, source: str) -> None:
    """Write a module where Hydra looks for plugins, once the folder is on Python's path."""
    (folder / "hydra_plugins").mkdir(parents=True)
    (folder / "hydra_plugins" / f"{name}.py").write_text(source)


def add_plugin(folder: Path, name: str, source: str, patch: pytest.MonkeyPatch) -> None:
    """The same for this process, whose Hydra has looked for plugins already."""
    write_plugin(folder, name, source)
    patch.syspath_prepend(folder)
    module = importlib.import_module(f"hydra_plugins.{name}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Plugin) and not inspect.isabstract(found):
            Plugins.instance().register(found)
