"""Choose the backend of ``--backend auto`` by rules, not by measuring, so that a machine always gives the same."""

import ctypes
from importlib.util import find_spec
from typing import NamedTuple

from cxrlit.core.instruction_sets import computes_bf16
from cxrlit.handoff.backends.backend import BackendName, DeviceName, Precision
from cxrlit.handoff.bundle_config import BundleConfig

PACKAGES: dict[BackendName, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "torch": (),
}
"""Packages that each backend needs from an extra."""

ORDER: dict[Precision, tuple[BackendName, ...]] = {
    "int8": ("openvino", "onnx"),
    "bf16": ("openvino", "torch"),
    "fp32": ("onnx", "openvino", "torch"),
}
"""Backends of each precision, best first: by throughput, then by start-up time."""


class Choice(NamedTuple):
    """The choice of ``auto``.

    Attributes:
        backend: The backend.
        precision: Its precision; None: the backend chooses by its device.
        reason: The reason, in words.
    """

    backend: BackendName
    precision: Precision | None
    reason: str


def choose_backend(
    config: BundleConfig, asked: Precision | None, device: DeviceName = "auto", compiles: bool = False
) -> Choice:
    """Choose the backend and its precision.

    A GPU and compiling need torch; ``device=auto`` takes a CUDA GPU, unless int8 is requested. On a CPU, a requested
    precision is used. Otherwise it is int8, if the bundle has it, its gate could judge it and a package that runs it is
    installed; else that of the evaluation, with fp32 in place of a bf16 that this CPU would emulate. The backend is the
    first of ``ORDER`` that is installed.

    Args:
        config: Config of the bundle.
        asked: The requested precision, if any.
        device: The requested device.
        compiles: Whether torch compiles the networks.
    """
    if device in ("cuda", "mps") or compiles:
        return Choice("torch", asked, f"auto: {f'device={device}' if device != 'auto' else 'compile'} takes torch")
    if device == "auto" and asked != "int8" and has_cuda():
        return Choice("torch", asked, "auto: a CUDA GPU")
    precision, why = (asked, "") if asked is not None else _choose_precision(config)
    backends = ORDER[precision]
    # If none is installed, opening the last one says which package is missing.
    backend = next((name for name in backends if is_installed(name)), backends[-1])
    better = [name for name in backends[: backends.index(backend)] if not is_installed(name)]
    reasons = [*([why] if why else []), *([f"{' and '.join(better)} not installed"] if better else [])]
    return Choice(backend, precision, f"auto: {', '.join(reasons) or f'the best backend in {precision}'}")


def has_cuda() -> bool:
    """Whether there is a CUDA GPU. This asks the driver, since importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    n_gpus = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(n_gpus)) == 0 and n_gpus.value > 0


def is_installed(name: BackendName) -> bool:
    """Whether the packages of a backend are installed."""
    return all(find_spec(package) is not None for package in PACKAGES[name])


def _choose_precision(config: BundleConfig) -> tuple[Precision, str]:
    if config.int8 is not None and not config.int8.is_forced and any(map(is_installed, ORDER["int8"])):
        return "int8", "the bundle has int8 that passed its gate"
    if config.precision == "bf16" and not computes_bf16():
        return "fp32", "evaluated in bf16, which this CPU would emulate"
    return config.precision, f"evaluated in {config.precision}"
