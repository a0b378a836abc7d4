"""Every point of a sweep is a config that can be trained: known before the first trains."""

from collections.abc import Sequence

from omegaconf import DictConfig

from cxrlit.config import MachineConfig, SweepConfig, TrainConfig, read_config, read_sweep
from cxrlit.config.compose import compose_config, expand_sweep, list_swept, name_key
from cxrlit.core.errors import ConfigError


def check_points(overrides: Sequence[str]) -> tuple[TrainConfig, SweepConfig | None]:
    """Compose and check every point that a command line asks for, and of a search the ends of its space.

    Returns:
        The config of the first point, and how the points are searched; None: they are a grid.

    Raises:
        ConfigError: The first fault.
    """
    points = expand_sweep(overrides, multirun=True)
    for text in list_swept(overrides):
        if name_key(text).startswith("hydra"):
            raise ConfigError(f"{text}: what is Hydra's own has one value for all jobs")
    checked = []
    for point in points:
        composed = compose_config("train", point)
        config = read_config(composed, TrainConfig)
        check_one_process(config.trainer)
        checked.append((config, check_search(composed, overrides)))
    return checked[0]


def check_search(composed: DictConfig, overrides: Sequence[str]) -> SweepConfig | None:
    """How a point is searched, if at all; the ends of the space are checked, and that nothing else sets its keys.

    Raises:
        ConfigError: An end is no config, or an override sets a key of the space.
    """
    search = read_sweep(composed)
    if search is None:
        return None
    swept = list_swept(overrides)
    if swept:
        key, _, values = swept[0].partition("=")
        raise ConfigError(f"{swept[0]}: sweep={search.name} searches a space: +sweep.space.{key}.choices=[{values}]")
    for override in overrides:
        key = name_key(override)
        if key in search.space:
            raise ConfigError(f"{override}: sweep.space searches {key}: drop it here, or set sweep.space.{key}=null")
    for corner in search.list_corners():
        try:
            read_config(compose_config("train", [*overrides, *corner]), TrainConfig)
        except ConfigError as error:
            raise ConfigError(f"sweep.space: {error}") from None
    return search


def check_one_process(machine: MachineConfig) -> None:
    """A point of a sweep trains in the process that sweeps.

    Raises:
        ConfigError: It asks for several devices.
    """
    if machine.devices * machine.num_nodes > 1:
        raise ConfigError(
            f"trainer.devices={machine.devices} trainer.num_nodes={machine.num_nodes}: a sweep trains each point on "
            f"one device: drop it, or start each point by itself: torchrun --nproc-per-node={machine.devices} train.py"
        )
