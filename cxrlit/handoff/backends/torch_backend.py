"""torch: the networks of the training, in the precision of their evaluation.

Where batches, threads and precision are those of ``evaluate.py``, so are the logits, to the bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import BundleError, CheckpointError, first_line, format_count
from cxrlit.handoff.backends.backend import Output, Precision
from cxrlit.handoff.bundle import Bundle


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
