"""Hardware settings that affect results (threads, precision), fixed when a phase starts and kept on resume."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from cxrlit.config import Precision, PrecisionChoice
from cxrlit.core.console import say
from cxrlit.core.cores import count_cores
from cxrlit.core.errors import ConfigError, format_count
from cxrlit.training.phase_folder import read_versions


@contextmanager
def use_threads(n_threads: int) -> Iterator[None]:
    """Compute with so many threads inside the block: sums depend on how they are divided."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    n_cores = count_cores()
    if torch.get_num_threads() != n_threads:
        say(
            f"warning: the phase was begun with {format_count(n_threads, 'thread')}, and this machine gives "
            f"{torch.get_num_threads()}: the last digits may differ",
            style="yellow",
        )
    elif n_threads > n_cores:
        say(f"warning: {n_threads} threads, as it was begun with, share {n_cores} cores: it is slow", style="yellow")
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_compiler() -> None:
    """Refuse ``trainer.compile`` without a C++ compiler.

    Raises:
        ConfigError: There is none.
    """
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError("trainer.compile=true: torch.compile needs a C++ compiler, such as g++; there is none")


def compare_versions(record: Mapping[str, Any]) -> None:
    """Say where a phase goes on with other versions than it was begun with."""
    then, now = record["versions"], read_versions()
    changed = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if changed:
        say(f"warning: it was begun with {', '.join(changed)}: the last digits may differ", style="yellow")


def find_accelerators() -> dict[str, bool]:
    """Which of the accelerators that a config may name are there, in the order in which ``auto`` takes them."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def check_accelerator(accelerator: str) -> None:
    """Refuse one that is not there.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    if not find_accelerators().get(accelerator, True):
        raise ConfigError(f"trainer.accelerator={accelerator}: this machine has none; auto takes what is there")


def choose_device(accelerator: str) -> str:
    """What a trainer with that accelerator computes on."""
    return next(name for name, is_there in find_accelerators().items() if is_there and accelerator in ("auto", name))


@contextmanager
def computing_on(network: torch.nn.Module, accelerator: str, precision: Precision) -> Iterator[str]:
    """Have a network on the device of a trainer with that accelerator, in its precision, inside the block."""
    device = choose_device(accelerator)
    home = next(network.parameters()).device
    network.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        yield device
    network.to(home)


def choose_precision(wanted: PrecisionChoice, accelerator: str) -> Precision:
    """bf16 or fp32. ``auto`` is bf16 where the device computes in it: recent GPUs, CPUs with AVX512-BF16 or AMX.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    check_accelerator(accelerator)
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available() and accelerator in {"auto", "cuda"}:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if accelerator in {"auto", "mps"} and torch.backends.mps.is_available():
        return "fp32"
    in_bf16: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if in_bf16 else "fp32"
