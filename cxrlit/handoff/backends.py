"""What computes a bundle's networks: torch, or ONNX Runtime, which needs no torch.

``torch`` runs the very networks of the training, in the precision of their evaluation: the logits of ``evaluate.py``,
to the bit where batches, threads and precision are the same. ``onnx`` runs the graphs in fp32, the same within
rounding, image by image: its values do not depend on the batch or on the threads.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.cores import count_cores
from cxrlit.core.errors import BundleError, CheckpointError, ConfigError, first_line, format_count
from cxrlit.core.extras import import_extra
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.onnx_export import FEATURES, IMAGES, LOGITS, check_graph

BackendName = Literal["torch", "onnx"]
Precision = Literal["bf16", "fp32"]

ONNX_BATCH_SIZE = 16
"""Enough that the threads seldom wait for the last image of a batch."""


class Output(NamedTuple):
    """Of a batch.

    Attributes:
        logits: (M, B, L) float32, of M networks.
        features: (M, B, 1024, h, w) float32; None where they were not asked for.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None


class Backend(Protocol):
    """Computes the networks of a bundle."""

    description: str
    """What it is, for a summary."""
    batch_size: int
    """Images at once, unless somebody says otherwise."""

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """(B, S, S) images to logits, and to the features that heatmaps are made of."""


def open_backend(bundle: Bundle, name: BackendName, precision: Precision | None, n_threads: int | None) -> Backend:
    """A backend with the networks of a bundle.

    Args:
        bundle: The bundle.
        name: Which.
        precision: None: that of the evaluation, where the machine has it.
        n_threads: None: one a core.

    Raises:
        BundleError: A network of the bundle is not what its config says.
        ConfigError: What it needs is not installed, or cannot do the precision.
    """
    threads = n_threads or count_cores()
    if name == "onnx":
        if precision == "bf16":
            raise ConfigError("precision=bf16: the onnx backend computes in fp32: take backend=torch")
        return OnnxBackend(bundle, threads)
    return TorchBackend(bundle, precision, threads)


class OnnxBackend:
    """ONNX Runtime on the CPU: each image on a thread of its own, which beats several threads on a batch."""

    def __init__(self, bundle: Bundle, n_threads: int) -> None:
        onnxruntime = import_extra("onnxruntime", "onnx", "backend=onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = []
        for _, name in bundle.member_files:
            path, graph = bundle.folder / name, bundle.contents[name]
            check_graph(graph, len(bundle.labels), bundle.config.preprocessing.img_size, path)
            try:
                session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own kinds of error
                raise BundleError(f"{path}: onnxruntime cannot load it: {first_line(error, 160)}") from None
            self._sessions.append(session)
        self._pool = ThreadPoolExecutor(n_threads)
        self.batch_size = ONNX_BATCH_SIZE
        self.description = f"onnxruntime {onnxruntime.__version__}, fp32, {format_count(n_threads, 'thread')}"

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        names = [LOGITS, FEATURES] if with_features else [LOGITS]

        def run_image(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            made = [session.run(names, {IMAGES: image[None, None]}) for session in self._sessions]
            return [np.stack(parts) for parts in zip(*made, strict=True)]

        made = self._pool.map(run_image, images)
        logits, *features = (np.concatenate(parts, axis=1) for parts in zip(*made, strict=True))
        return Output(logits, features[0] if features else None)


class TorchBackend:
    """torch on the CPU."""

    def __init__(self, bundle: Bundle, precision: Precision | None, n_threads: int) -> None:
        import torch
        from safetensors.torch import load

        from cxrlit.model.densenet import build_network
        from cxrlit.model.load_state import load_or_describe
        from cxrlit.model.weights.finite import check_finite
        from cxrlit.training.hardware import choose_precision

        config = bundle.config
        self._torch: Any = torch
        self._n_threads = n_threads
        self._networks = []
        for name, _ in bundle.member_files:
            path = bundle.folder / name
            network = build_network("none", config.preprocessing.normalize, len(config.labels), seed=0)
            fault = f"{path}: not the weights of a network of {len(config.labels)} labels"
            try:
                weights = load(bundle.contents[name])
                load_or_describe(network, weights, fault)
            except CheckpointError as error:
                raise BundleError(str(error)) from None
            except Exception as error:  # safetensors' own kind of error
                raise BundleError(f"{fault}: {first_line(error, 160)}") from None
            check_finite(weights, str(path))
            self._networks.append(network.requires_grad_(False).eval())
        # Where the machine has no bf16, that of the evaluation would be slower many times over.
        evaluated = "fp32" if config.precision == "fp32" else choose_precision("auto", "cpu")
        self._in_bf16 = (precision or evaluated) == "bf16"
        self.batch_size = config.batch_size
        self.description = (
            f"torch {torch.__version__}, {'bf16' if self._in_bf16 else 'fp32'}, {format_count(n_threads, 'thread')}"
        )

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        torch = self._torch
        before = torch.get_num_threads()
        torch.set_num_threads(self._n_threads)  # of the thread that computes
        try:
            return self._run(images, with_features)
        finally:
            torch.set_num_threads(before)

    def _run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        torch = self._torch
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            batch = torch.from_numpy(images).unsqueeze(1)
            features = [network.forward_features(batch) for network in self._networks]
            logits = [network.forward_head(maps) for network, maps in zip(self._networks, features, strict=True)]
            return Output(
                torch.stack(logits).float().numpy(),
                torch.stack(features).float().numpy() if with_features else None,
            )
