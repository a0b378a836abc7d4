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
"""Type that layers compute in under autocast."""


@contextmanager
def use_threads(n_threads: int) -> Iterator[None]:
    """Compute with ``n_threads`` threads inside the block, since sums depend on how they are divided."""
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
        setting: The setting that asks for it, for the message.

    Raises:
        ConfigError: There is no compiler.
    """
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(f"{setting}: torch.compile needs a C++ compiler, such as g++; there is none")


@contextmanager
def without_tf32() -> Iterator[None]:
    """Predict in full fp32 on a GPU, whose convolutions would use TF32 with its 10-bit mantissa.

    Only deterministic cuDNN algorithms are used. No effect on bf16 or a CPU.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def compare_versions(record: Mapping[str, Any]) -> None:
    """Print which package versions differ from those that the phase began with."""
    then, now = record["versions"], read_versions()
    changed = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if changed:
        say(f"warning: it was begun with {', '.join(changed)}: the last digits may differ", style="yellow")


def find_accelerators() -> dict[str, bool]:
    """Find which accelerators are available, in the order in which ``auto`` tries them."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def check_accelerator(accelerator: str, setting: str = "trainer.accelerator") -> None:
    """Refuse an accelerator that is not available.

    Args:
        accelerator: Name of the accelerator, or auto.
        setting: The setting that asks for it, for the message.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    if not find_accelerators().get(accelerator, True):
        raise ConfigError(f"{setting}={accelerator}: this machine has none; auto takes what is there")


def choose_device(accelerator: str) -> str:
    """Return the device of a trainer with this accelerator."""
    return next(name for name, is_there in find_accelerators().items() if is_there and accelerator in ("auto", name))


@contextmanager
def computing_on(network: torch.nn.Module, accelerator: str, precision: Precision) -> Iterator[str]:
    """Move a network to the accelerator's device and compute in the precision, inside the block."""
    device = choose_device(accelerator)
    home = next(network.parameters()).device
    network.to(device)
    with torch.autocast(device, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        yield device
    network.to(home)


def choose_precision(wanted: PrecisionChoice, accelerator: str) -> Precision:
    """Choose the precision that a phase computes in. ``auto`` is bf16 if the device computes in it, else fp32.

    GPUs compute in bf16 from Ampere on (A100, RTX 30), and CPUs with AVX512-BF16 or AMX. On those CPUs bf16 was faster
    at 64, 224 and 320 px, with all layers training and with the last 100. Other CPUs emulate bf16 several times more
    slowly (``benchmarks/precision.py``). Nothing is timed here, so the result does not depend on the machine's load.

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
