"""A bundle that predicts: ``Predictor.load(folder).predict(paths)``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.errors import BundleError
from cxrlit.handoff.backends import Backend, BackendName, Precision, open_backend
from cxrlit.handoff.bundle import WEIGHTS, Bundle, read_bundle
from cxrlit.handoff.read_inputs import Listed, Seen, list_files, read_content, read_inputs
from cxrlit.handoff.safetensors_file import read_head


@dataclass(frozen=True)
class Prediction:
    """What a model says of a file.

    Attributes:
        path: The file.
        reason: Why there is no prediction; empty where there is one. All that follows is empty then.
        warnings: Why the file may be no radiograph that the model was made for.
        probs: By label: the sigmoid of the logit, float32.
        calibrated: By label: what is held against the threshold.
        preds: By label: at or above the threshold; None where the label has none.
        image: (S, S) uint8, what the network was given.
        heatmaps: By label: (S / 32, S / 32) float32 in [0, 1], where they were asked for (Grad-CAM).
    """

    path: str
    reason: str
    warnings: tuple[str, ...]
    probs: dict[str, float]
    calibrated: dict[str, float]
    preds: dict[str, bool | None]
    image: NDArray[np.uint8] | None
    heatmaps: dict[str, NDArray[np.float32]]


class Predictor:
    """A bundle and what computes it.

    Args:
        bundle: The bundle.
        backend: With its network.

    Attributes:
        labels: In order.
        thresholds: By label, of the calibrated probs; None where it has none.
        threshold_probs: The same thresholds of the raw probs.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle, self.backend = bundle, backend
        self.labels = bundle.labels
        self.thresholds, self.threshold_probs = (
            {label: None if np.isnan(value) else value for label, value in zip(self.labels, values, strict=True)}
            for values in (bundle.point.thresholds.values.tolist(), bundle.point.threshold_probs().tolist())
        )
        head = read_head(bundle.contents[WEIGHTS], self.labels, bundle.folder / WEIGHTS)
        self._head = head.astype(np.float64)  # of large weights, sums overflow in float32

    @classmethod
    def load(
        cls,
        folder: str | Path,
        backend: BackendName = "torch",
        *,
        precision: Precision | None = None,
        n_threads: int | None = None,
    ) -> "Predictor":
        """Read a bundle, check it, and make it ready.

        Args:
            folder: The bundle.
            backend: ``torch``: as ``evaluate.py`` computes; ``onnx``: ONNX Runtime.
            precision: fp32 or bf16; None: that of the evaluation, where the machine has it.
            n_threads: None: one a core.

        Raises:
            BundleError: It is not whole, was changed, or is not what it says.
            ConfigError: What the backend needs is not installed.
        """
        bundle = read_bundle(Path(folder))
        return cls(bundle, open_backend(bundle, backend, precision, n_threads))

    def predict(
        self, paths: Sequence[str | Path] | str | Path, *, heatmaps: bool = False, batch_size: int | None = None
    ) -> list[Prediction]:
        """Predict files, and all files below folders, in their order. What cannot be read has a reason.

        Raises:
            DataError: A name is neither a file nor a folder.
        """
        named = [paths] if isinstance(paths, str | Path) else paths
        files = list_files([Path(path) for path in named])
        return [one for batch in self.predict_batches(files, heatmaps, batch_size) for one in batch]

    def predict_content(self, content: bytes, *, heatmaps: bool = False) -> Prediction:
        """Predict a file that is in memory; its ``path`` is empty. What cannot be read has a reason."""
        return self._predict_batch([read_content(content, self.bundle.config)], heatmaps)[0]

    def predict_batches(
        self, files: Sequence[Listed], heatmaps: bool = False, batch_size: int | None = None
    ) -> Iterator[list[Prediction]]:
        """Predict files batch by batch: so many images that can be read, and what lies between them that cannot.

        Args:
            files: From ``list_files``.
            heatmaps: Make them too.
            batch_size: None: of torch the one that the model was evaluated with, of onnx 16.
        """
        size = batch_size or self.backend.batch_size
        batch: list[Seen] = []
        for seen in read_inputs(files, self.bundle.config, size):
            batch.append(seen)
            if sum(one.image is not None for one in batch) == size:
                yield self._predict_batch(batch, heatmaps)
                batch = []
        if batch:
            yield self._predict_batch(batch, heatmaps)

    def _predict_batch(self, batch: list[Seen], heatmaps: bool) -> list[Prediction]:
        images = [seen.image for seen in batch if seen.image is not None]
        if not images:
            return [self._describe(seen) for seen in batch]
        output = self.backend.run(np.stack(images), heatmaps)
        if not np.isfinite(output.probs).all():
            raise BundleError(f"{self.bundle.folder}: its network computes no finite numbers: get the bundle anew")
        calibrated = self.bundle.point.calibrate(output.probs)
        values = self.bundle.point.thresholds.values
        predictions, row = [], 0
        for seen in batch:
            one = self._describe(seen)
            if seen.image is not None:
                decided = [
                    None if np.isnan(value) else bool(prob >= value)
                    for prob, value in zip(calibrated[row], values, strict=True)
                ]
                maps = () if output.features is None else self._make_heatmaps(output.features[row])
                one = replace(
                    one,
                    probs=dict(zip(self.labels, output.probs[row].tolist(), strict=True)),
                    calibrated=dict(zip(self.labels, calibrated[row].tolist(), strict=True)),
                    preds=dict(zip(self.labels, decided, strict=True)),
                    heatmaps=dict(zip(self.labels, maps, strict=False)),
                )
                row += 1
            predictions.append(one)
        return predictions

    def _describe(self, seen: Seen) -> Prediction:
        return Prediction(seen.path, seen.reason, seen.warnings, {}, {}, {}, seen.image, {})

    def _make_heatmaps(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1024, h, w) features to (L, h, w) heatmaps, as ``weigh_features`` and ``normalise`` make them."""
        maps = np.maximum(np.tensordot(self._head, features, axes=1), 0)
        highest = maps.max(axis=(1, 2), keepdims=True)
        return np.asarray(maps / np.where(highest > 0, highest, 1), np.float32)


MIN_DIGITS, MAX_DIGITS = 3, 6


def count_digits(prob: float, threshold: float | None) -> int:
    """Digits after the point at which a probability and its threshold look different, as few as do, from 3 to 6.

    Args:
        prob: What is held against the threshold: the calibrated probability.
        threshold: None where there is none.

    >>> count_digits(0.2109, 0.2111), count_digits(0.21099, 0.21101), count_digits(0.2, 0.7), count_digits(0.5, 0.5)
    (4, 5, 3, 3)
    """
    if threshold is None or prob == threshold:
        return MIN_DIGITS
    digits = range(MIN_DIGITS, MAX_DIGITS)
    return next((one for one in digits if f"{prob:.{one}f}" != f"{threshold:.{one}f}"), MAX_DIGITS)
