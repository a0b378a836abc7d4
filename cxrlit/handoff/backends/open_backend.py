"""Open the requested backend."""

from cxrlit.core.cores import count_cores
from cxrlit.core.errors import ConfigError
from cxrlit.handoff.backends.backend import Backend, BackendName, DeviceName, Precision
from cxrlit.handoff.backends.onnx_backend import OnnxBackend
from cxrlit.handoff.backends.openvino_backend import OpenVinoBackend
from cxrlit.handoff.backends.torch_backend import TorchBackend
from cxrlit.handoff.bundle import Bundle


def open_backend(
    bundle: Bundle,
    name: BackendName,
    precision: Precision | None,
    n_threads: int | None,
    device: DeviceName = "auto",
    compiles: bool = False,
) -> Backend:
    """Open a backend with the networks of a bundle.

    Args:
        bundle: The bundle.
        name: Name of the backend.
        precision: Precision; None: that of the evaluation, if the backend and the machine have it; on a GPU that
            computes in it, bf16.
        n_threads: Threads; None: one per core.
        device: Device of torch.
        compiles: Whether torch compiles the networks.

    Raises:
        BundleError: A network of the bundle does not match its config.
        ConfigError: A package or device is missing, or does not support the precision.
    """
    threads = n_threads or count_cores()
    if name != "torch" and (device not in ("auto", "cpu") or compiles):
        asked = "compile" if compiles else f"device={device}"
        raise ConfigError(f"{asked}: the {name} backend computes on the CPU as it is: take backend=torch")
    if name == "openvino":
        return OpenVinoBackend(bundle, precision, threads)
    if name == "onnx":
        if precision == "bf16":
            raise ConfigError("precision=bf16: the onnx backend computes in fp32 or int8: take backend=openvino")
        return OnnxBackend(bundle, precision or "fp32", threads)
    if precision == "int8":
        raise ConfigError("precision=int8: the torch backend computes in fp32 or bf16: take backend=auto")
    return TorchBackend(bundle, precision, threads, device, compiles)
