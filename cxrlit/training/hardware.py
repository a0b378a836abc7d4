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
from cxrlit.core.instruction_sets import computes_bf16
from cxrlit.training.phase_folder import read_versions

AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What layers compute in under autocast."""


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


def check_compiler(setting: str = "trainer.compile=true") -> None:
    """Refuse to compile a network without a C++ compiler.

    Args:
        setting: Asks for it.

    Raises:
        ConfigError: There is none.
    """
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(f"{setting}: torch.compile needs a C++ compiler, such as g++; there is none")


@contextmanager
def without_tf32() -> Iterator[None]:
    """Have a GPU predict in fp32 where that is asked for: its convolutions would take TF32, of 10 bits.

    Only what cuDNN computes the same way each time is used. bf16 and a CPU do not notice.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def compare_versions(record: Mapping[str, Any]) -> None:
    """Say where a phase goes on with other versions than it was begun with."""
    then, now = record["versions"], read_versions()
    changed = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if changed:
        say(f"warning: it was begun with {', '.join(changed)}: the last digits may differ", style="yellow")


def find_accelerators() -> dict[str, bool]:
    """Which of the accelerators that a config may name are there, in the order in which ``auto`` takes them."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def check_accelerator(accelerator: str, setting: str = "trainer.accelerator") -> None:
    """Refuse one that is not there.

    Args:
        accelerator: Its name, or auto.
        setting: What it was asked for by.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    if not find_accelerators().get(accelerator, True):
        raise ConfigError(f"{setting}={accelerator}: this machine has none; auto takes what is there")


def choose_device(accelerator: str) -> str:
    """What a trainer with that accelerator computes on."""
    return next(name for name, is_there in find_accelerators().items() if is_there and accelerator in ("auto", name))


@contextmanager
def computing_on(network: torch.nn.Module, accelerator: str, precision: Precision) -> Iterator[str]:
    """Have a network on the device of a trainer with that accelerator, in its precision, inside the block."""
    device = choose_device(accelerator)
    home = next(network.parameters()).device
    network.to(device)
    with torch.autocast(device, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        yield device
    network.to(home)


def choose_precision(wanted: PrecisionChoice, accelerator: str) -> Precision:
    """The precision that a phase computes in. ``auto`` is bf16 where the device computes in it, else fp32.

    Those are GPUs from Ampere on (A100, RTX 30), and CPUs with AVX512-BF16 or AMX, on which bf16 was faster at 64, 224
    and 320 px, with all layers training and with the last 100: the size does not matter. A CPU without emulates bf16
    several times more slowly (``benchmarks/precision.py``). Nothing is timed: a result does not depend on how busy the
    machine is.

    Raises:
        ConfigError: This machine has no such accelerator, or the device does not train in fp16.
    """
    check_accelerator(accelerator)
    device = choose_device(accelerator)
    if wanted == "fp16" and device != "cuda":
        raise ConfigError(
            f"trainer.precision=fp16: it needs a CUDA GPU, and this trains on {device}: take precision=auto or fp32"
        )
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and computes_bf16() else "fp32"
