"""ONNX Runtime on the CPU: fp32 (equal to torch except for rounding) or int8, for any batch size and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import BundleError, first_line, format_count
from cxrlit.core.extras import import_extra
from cxrlit.handoff.backends.backend import Output, Precision
from cxrlit.handoff.backends.read_graphs import GRAPH_BATCH_SIZE, read_graphs
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.onnx_export import FEATURES, IMAGES, LOGITS


class OnnxBackend:
    """Runs each image on its own thread, which is faster than several threads on a batch."""

    def __init__(self, bundle: Bundle, precision: Precision, n_threads: int) -> None:
        onnxruntime = import_extra("onnxruntime", "onnx", "backend=onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = []
        for path, graph in read_graphs(bundle, precision):
            try:
                session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own error types
                raise BundleError(f"{path}: onnxruntime cannot load it: {first_line(error, 160)}") from None
            self._sessions.append(session)
        self._pool = ThreadPoolExecutor(n_threads)
        self.precision = precision
        self.batch_size, self.reads_ahead = GRAPH_BATCH_SIZE, True
        self.description = f"onnxruntime {onnxruntime.__version__}, {precision}, {format_count(n_threads, 'thread')}"

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """Compute the outputs of (B, S, S) images; features only if ``with_features``."""
        names = [LOGITS, FEATURES] if with_features else [LOGITS]

        def run_image(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            made = [session.run(names, {IMAGES: image[None, None]}) for session in self._sessions]
            return [np.stack(parts) for parts in zip(*made, strict=True)]

        made = self._pool.map(run_image, images)
        logits, *features = (np.concatenate(parts, axis=1) for parts in zip(*made, strict=True))
        return Output(logits, features[0] if features else None)
