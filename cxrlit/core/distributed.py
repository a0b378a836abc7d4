"""Helpers for distributed runs; no-ops with a single process."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from rich import get_console
from torch import Tensor

from cxrlit.core.errors import ConfigError, first_line
from cxrlit.core.ranks import RankZeroError, n_ranks, rank, set_ranks

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long rank 0 may take to prepare images or wait for a lock. A process that dies is noticed at once."""


class Devices(Protocol):
    """The settings of the devices, such as ``MachineConfig``."""

    @property
    def accelerator(self) -> str:
        """Accelerator, as Lightning names it."""
        ...

    @property
    def devices(self) -> int:
        """Number of devices per node."""
        ...

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        ...


class _Met:
    """State that ``join_ranks`` has set.

    Attributes:
        environment: The launcher of the processes.
        waiting: Their CPU process group, for waiting for rank 0.
    """

    environment: ClusterEnvironment | None = None
    waiting: Any = None


def join_ranks(machine: Devices) -> None:
    """Join the other processes, once; only rank 0 prints from then on.

    Raises:
        ConfigError: The number of processes differs from the number of devices.
    """
    if n_ranks() > 1:
        return
    wanted = machine.devices * machine.num_nodes
    environment = find_environment(wanted)
    found = environment.world_size() if environment is not None else 1
    if found != wanted:
        raise ConfigError(
            f"trainer.devices={machine.devices} trainer.num_nodes={machine.num_nodes}: one process per device is "
            f"needed, but {found} {'was' if found == 1 else 'were'} started: "
            f"torchrun --nproc-per-node={machine.devices} "
            f"{f'--nnodes={machine.num_nodes} ' if machine.num_nodes > 1 else ''}SCRIPT ..., or srun with as many tasks"
        )
    if wanted == 1 or environment is None:
        return
    on_cuda = machine.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    if on_cuda:
        if environment.local_rank() >= torch.cuda.device_count():
            raise ConfigError(f"trainer.devices={machine.devices}: this node has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(environment.local_rank())
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo", rank=environment.global_rank(), world_size=wanted
    )
    _Met.environment, _Met.waiting = environment, dist.new_group(backend="gloo", timeout=PATIENCE)
    set_ranks(environment.global_rank(), wanted, machine.devices, broadcast_result)
    get_console().quiet = rank() > 0


def find_environment(n_wanted: int) -> ClusterEnvironment | None:
    """The launcher of this process: torchrun, or Slurm where several processes are wanted; None: a single process.

    Raises:
        ConfigError: Slurm's settings do not let the processes meet.
    """
    if TorchElasticEnvironment.detect():  # first: torchrun may run inside a Slurm job
        return TorchElasticEnvironment()
    try:
        return SLURMEnvironment() if n_wanted > 1 and SLURMEnvironment.detect() else None
    except RuntimeError as error:
        raise ConfigError(first_line(error)) from None


def device_options(machine: Devices, find_unused_parameters: bool = False) -> dict[str, Any]:
    """Device settings as arguments of a Trainer.

    Args:
        machine: The devices.
        find_unused_parameters: Whether some parameters start training later.
    """
    options: dict[str, Any] = {
        "accelerator": machine.accelerator,
        "devices": machine.devices,
        "num_nodes": machine.num_nodes,
        "use_distributed_sampler": False,
    }
    if n_ranks() > 1:  # the buffers are already equal on all ranks
        options["strategy"] = DDPStrategy(
            cluster_environment=_Met.environment,
            broadcast_buffers=False,
            find_unused_parameters=find_unused_parameters,
        )
    return options


def broadcast_result(function: Callable[[], T]) -> T:
    """Call a function on rank 0 alone; all ranks get its result, plain data.

    Raises:
        RankZeroError: On the other ranks, where the function raises on rank 0.
    """
    answer: list[Any] = [None, False]
    if rank() > 0:
        dist.broadcast_object_list(answer, group=_Met.waiting)
        if not answer[1]:
            raise RankZeroError("rank 0 has failed, and says why")
        value: T = answer[0]
        return value
    try:
        answer = [function(), True]
    except BaseException:
        with suppress(RuntimeError):  # the other ranks may have ended
            dist.broadcast_object_list(answer, group=_Met.waiting)
        raise
    dist.broadcast_object_list(answer, group=_Met.waiting)
    value = answer[0]
    return value


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without autograd."""
    total = tensor.detach().clone()
    if n_ranks() > 1:
        dist.all_reduce(total)
    return total


def max_over_ranks(number: int) -> int:
    """The largest of the ranks' numbers."""
    if n_ranks() == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=_Met.waiting)
    return int(largest)


def gather_over_ranks(value: T) -> list[T]:
    """Plain data of every rank, by rank."""
    if n_ranks() == 1:
        return [value]
    values: list[Any] = [None] * n_ranks()
    dist.all_gather_object(values, value, group=_Met.waiting)
    return values
