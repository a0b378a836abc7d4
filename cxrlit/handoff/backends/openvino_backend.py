"""OpenVINO on the CPU: fp32 (equal to torch except for rounding), bf16 if the CPU has it, or int8."""

import sys
from contextlib import redirect_stderr
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import BundleError, ConfigError, first_line, format_count
from cxrlit.core.extras import import_extra
from cxrlit.handoff.backends.backend import Output, Precision
from cxrlit.handoff.backends.read_graphs import GRAPH_BATCH_SIZE, read_graphs
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.onnx_export import FEATURES, IMAGES, LOGITS


class OpenVinoBackend:
    """Runs each image on its own thread, so that values depend neither on the batch nor on the number of threads.

    Args:
        bundle: The bundle.
        precision: Precision; None: that of the evaluation, if the CPU has it.
        n_threads: Images at once.
    """

    def __init__(self, bundle: Bundle, precision: Precision | None, n_threads: int) -> None:
        with redirect_stderr(sys.__stderr__):  # absl, if installed, would close a replaced stderr
            openvino = import_extra("openvino", "openvino", "backend=openvino")
        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not has_bf16:
            raise ConfigError("precision=bf16: this CPU would emulate it, more slowly than fp32: take precision=fp32")
        evaluated: Precision = "bf16" if bundle.config.precision == "bf16" and has_bf16 else "fp32"
        self.precision: Precision = precision or evaluated
        size = bundle.config.preprocessing.img_size
        settings = {
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": n_threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
        }
        self._queues = []
        for path, graph in read_graphs(bundle, self.precision):
            try:
                model = core.read_model(graph)
                model.reshape({IMAGES: [1, 1, size, size]})
                queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings), n_threads)
            except Exception as error:  # openvino's own error types
                raise BundleError(f"{path}: openvino cannot load it: {first_line(error, 160)}") from None
            self._queues.append(queue)
        self.batch_size, self.reads_ahead = GRAPH_BATCH_SIZE, True
        release = openvino.__version__.partition("-")[0]
        self.description = f"openvino {release}, {self.precision}, {format_count(n_threads, 'thread')}"

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """Compute the outputs of (B, S, S) images; features only if ``with_features``."""
        names = [LOGITS, FEATURES] if with_features else [LOGITS]
        made = [self._run_network(queue, images, names) for queue in self._queues]
        logits, *features = (np.stack(parts) for parts in zip(*made, strict=True))
        return Output(logits, features[0] if features else None)

    def _run_network(self, queue: Any, images: NDArray[np.uint8], names: list[str]) -> list[NDArray[np.float32]]:
        """Run one network on images; returns a (B, ...) array per output."""
        made: list[list[NDArray[np.float32]]] = [[]] * len(images)

        def keep(request: Any, place: int) -> None:
            made[place] = [request.get_tensor(name).data.copy() for name in names]

        queue.set_callback(keep)
        for place, image in enumerate(images):
            queue.start_async({IMAGES: image[None, None]}, place)
        queue.wait_all()
        return [np.concatenate(parts) for parts in zip(*made, strict=True)]
