"""torch: the networks of the training, on the CPU or a GPU.

With the device, batches, threads and precision of ``evaluate.py``, the logits are bit-identical to its own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import BundleError, CheckpointError, ConfigError, first_line, format_count
from cxrlit.handoff.backends.backend import DeviceName, Output, Precision
from cxrlit.handoff.bundle import Bundle


class TorchBackend:
    """Runs torch on a device. A batch that does not fit into a GPU's memory is halved."""

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision | None,
        n_threads: int,
        device: DeviceName = "auto",
        compiles: bool = False,
    ) -> None:
        import torch
        from safetensors.torch import load

        from cxrlit.model.densenet import build_network
        from cxrlit.model.device_memory import FittingBatches, choose_batch_size, read_free_memory
        from cxrlit.model.load_state import load_or_describe
        from cxrlit.model.weights.finite import check_finite
        from cxrlit.training.hardware import check_accelerator, check_compiler, choose_device

        check_accelerator(device, "device")
        if compiles:
            check_compiler("compile")
        config = bundle.config
        self._torch: Any = torch
        self._device, self._compiles = choose_device(device), compiles
        self._n_threads = n_threads
        self.precision: Precision = self._choose_precision(precision, config.precision)
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
            except Exception as error:  # safetensors' own error type
                raise BundleError(f"{fault}: {first_line(error, 160)}") from None
            check_finite(weights, str(path))
            if compiles:
                network.compile_parts()
            self._networks.append(network.requires_grad_(False).eval().to(self._device))
        self.reads_ahead = self._device != "cpu"
        self.batch_size, where = config.batch_size, format_count(n_threads, "thread")
        if self._device == "cuda":
            self.batch_size = choose_batch_size(read_free_memory(), config.preprocessing.img_size)
            where = torch.cuda.get_device_name()
        elif self._device == "mps":
            where = "mps"
        compiled = ", compiled" if compiles else ""
        self.description = f"torch {torch.__version__}, {self.precision}, {where}{compiled}"
        self._batches = FittingBatches(pads=compiles)

    def _choose_precision(self, wanted: Precision | None, evaluated: Precision) -> Precision:
        """Return the wanted precision; without one, bf16 on a GPU that has it, or the evaluation's on a bf16 CPU."""
        from cxrlit.training.hardware import choose_precision

        has_bf16 = choose_precision("auto", self._device) == "bf16"
        if wanted == "bf16" and not has_bf16:
            kind = "CPU" if self._device == "cpu" else "GPU"
            raise ConfigError(
                f"precision=bf16: this {kind} would emulate it, more slowly than fp32: take precision=fp32"
            )
        # A CPU without bf16 emulates it many times more slowly, so fp32 replaces an evaluation in bf16.
        return wanted or ("bf16" if has_bf16 and (self._device == "cuda" or evaluated == "bf16") else "fp32")

    def run(self, images: NDArray[np.uint8], with_features: bool) -> Output:
        """Compute the outputs of (B, S, S) images; features only if ``with_features``."""
        torch = self._torch
        before = torch.get_num_threads()
        torch.set_num_threads(self._n_threads)  # a setting of this thread
        batch = torch.from_numpy(images).unsqueeze(1)
        if self._device == "cuda":
            batch = batch.pin_memory()
        if self._compiles:
            self._batches.grow(len(batch))
        try:
            parts = self._batches.run(lambda few: self._compute(few, with_features), batch)
        finally:
            torch.set_num_threads(before)
        logits = np.concatenate([part.logits for part in parts], axis=1)[:, : len(images)]
        features = [part.features for part in parts if part.features is not None]
        return Output(logits, np.concatenate(features, axis=1)[:, : len(images)] if features else None)

    def _compute(self, images: Any, with_features: bool) -> Output:
        from cxrlit.training.hardware import without_tf32

        torch = self._torch
        with (
            torch.inference_mode(),
            torch.autocast(self._device, torch.bfloat16, enabled=self.precision == "bf16"),
            without_tf32(),
        ):
            batch = images.to(self._device, non_blocking=True)
            features = [network.forward_features(batch) for network in self._networks]
            logits = [network.forward_head(maps) for network, maps in zip(self._networks, features, strict=True)]
            return Output(
                torch.stack(logits).float().cpu().numpy(),
                torch.stack(features).float().cpu().numpy() if with_features else None,
            )
