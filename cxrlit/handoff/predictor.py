"""A bundle that predicts: ``Predictor.load(folder).predict(paths)``."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.cores import open_pool
from cxrlit.core.errors import BundleError
from cxrlit.data.tta import average_logits, cut_views
from cxrlit.handoff.backends.backend import Backend, BackendChoice, DeviceName, Precision
from cxrlit.handoff.backends.choose_backend import choose_backend
from cxrlit.handoff.backends.open_backend import open_backend
from cxrlit.handoff.bundle import Bundle, read_bundle
from cxrlit.handoff.bundle_config import BundleConfig
from cxrlit.handoff.read_inputs import Listed, Seen, list_files, read_content, read_inputs
from cxrlit.handoff.safetensors_file import read_head


@dataclass(frozen=True)
class Prediction:
    """What a model says of a file.

    Attributes:
        path: The file.
        reason: Why there is no prediction; empty where there is one. All that follows is empty then.
        warnings: Why the file may be no radiograph that the model was made for.
        probs: By label: the sigmoid of the logit, or the mean over networks and views, float32.
        calibrated: By label: what is held against the threshold.
        preds: By label: at or above the threshold; None where the label has none.
        image: (S, S) uint8, what the networks were given; with ``tta=crops``, the whole image at that size.
        heatmaps: By label: (S / 32, S / 32) float32 in [0, 1], where they were asked for (Grad-CAM): of ``image``, of
            several networks the mean of their maps, as ``average_heatmaps`` makes it.
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
        backend: With its networks.
        reason: Why this backend was chosen; empty where it was named.

    Attributes:
        labels: In order.
        thresholds: By label, of the calibrated probs; None where it has none.
        threshold_probs: The same thresholds of the raw probs.
        n_readers: Threads that read files; None: one a core.
    """

    def __init__(self, bundle: Bundle, backend: Backend, reason: str = "") -> None:
        self.bundle, self.backend, self.reason = bundle, backend, reason
        self.labels = bundle.labels
        self.thresholds = bundle.thresholds
        self.threshold_probs = bundle.name_values(bundle.point.threshold_probs())
        self.n_readers: int | None = None
        self._heads = [
            read_head(bundle.contents[name], self.labels, bundle.folder / name).astype(np.float64)
            for name, _ in bundle.member_files
        ]  # of large weights, sums overflow in float32

    @classmethod
    def load(
        cls,
        folder: str | Path,
        backend: BackendChoice = "auto",
        *,
        precision: Precision | None = None,
        n_threads: int | None = None,
        device: DeviceName = "auto",
        compiles: bool = False,
    ) -> "Predictor":
        """Read a bundle, check it, and make it ready.

        Args:
            folder: The bundle.
            backend: ``auto``: by the rule of ``choose_backend``, ``torch``: as ``evaluate.py`` computes, ``onnx``: ONNX
                Runtime, or ``openvino``.
            precision: fp32, bf16 or int8; None: on a GPU bf16, where it computes in it; with ``auto`` on a CPU int8,
                where the bundle has it; else that of the evaluation, where the backend and the machine have it.
            n_threads: None: one a core.
            device: Where torch computes. ``auto``: on a GPU, where there is one.
            compiles: Whether torch compiles the networks: it takes a minute, and pays off over many images.

        Raises:
            BundleError: It is not whole, was changed, or is not what it says.
            ConfigError: What the backend needs is not there or not installed, or it cannot do the precision.
        """
        bundle = read_bundle(Path(folder))
        return cls.from_bundle(
            bundle, backend, precision=precision, n_threads=n_threads, device=device, compiles=compiles
        )

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        backend: BackendChoice = "auto",
        *,
        precision: Precision | None = None,
        n_threads: int | None = None,
        device: DeviceName = "auto",
        compiles: bool = False,
    ) -> "Predictor":
        """Make a bundle ready that was read; takes and raises what ``load`` does."""
        if backend != "auto":
            return cls(bundle, open_backend(bundle, backend, precision, n_threads, device, compiles))
        name, chosen, reason = choose_backend(bundle.config, precision, device, compiles)
        return cls(bundle, open_backend(bundle, name, chosen, n_threads, device, compiles), reason)

    @property
    def description(self) -> str:
        """What computes and, where that was not named, why."""
        return f"{self.backend.description} ({self.reason})" if self.reason else self.backend.description

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
        """Predict files batch by batch, those that cannot be read among them.

        A batch is so many files and not so many images: no row depends on whether the files of other batches can be
        read.

        Args:
            files: From ``list_files``.
            heatmaps: Make them too.
            batch_size: None: that of the backend.
        """
        batches = self._read_batches(files, batch_size or self.backend.batch_size)
        if not self.backend.reads_ahead:
            for batch in batches:
                yield self._predict_batch(batch, heatmaps)
            return
        running: Future[list[Prediction]] | None = None
        with open_pool(1) as pool:  # whoever takes a batch has time for it while the next one is computed
            for batch in batches:
                before, running = running, pool.submit(self._predict_batch, batch, heatmaps)
                if before is not None:
                    yield before.result()
            if running is not None:
                yield running.result()

    def _read_batches(self, files: Sequence[Listed], size: int) -> Iterator[list[Seen]]:
        batch: list[Seen] = []
        for seen in read_inputs(files, self.bundle.config, size, self.backend.reads_ahead, self.n_readers):
            batch.append(seen)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _predict_batch(self, batch: list[Seen], heatmaps: bool) -> list[Prediction]:
        usable = [seen for seen in batch if seen.image is not None]
        if not usable:
            return [self._describe(seen) for seen in batch]
        probs, features = self._run(usable, heatmaps)
        if not np.isfinite(probs).all():
            raise BundleError(f"{self.bundle.folder}: its network computes no finite numbers: get the bundle anew")
        calibrated = self.bundle.point.calibrate(probs)
        values = self.bundle.point.thresholds.values
        predictions, row = [], 0
        for seen in batch:
            one = self._describe(seen)
            if seen.image is not None:
                decided = [
                    None if np.isnan(value) else bool(prob >= value)
                    for prob, value in zip(calibrated[row], values, strict=True)
                ]
                maps = () if features is None else self._make_heatmaps(features[:, row])
                one = replace(
                    one,
                    probs=dict(zip(self.labels, probs[row].tolist(), strict=True)),
                    calibrated=dict(zip(self.labels, calibrated[row].tolist(), strict=True)),
                    preds=dict(zip(self.labels, decided, strict=True)),
                    heatmaps=dict(zip(self.labels, maps, strict=False)),
                )
                row += 1
            predictions.append(one)
        return predictions

    def _run(self, usable: list[Seen], heatmaps: bool) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """(B, L) probs, and the (M, B, 1024, h, w) features of the whole images where heatmaps are to be made."""
        config = self.bundle.config
        opened = np.stack([seen.opened for seen in usable if seen.opened is not None])
        crops = config.tta == "crops"  # else the first view is the whole image
        probs, features = run_views(self.backend, config, opened, heatmaps and not crops)
        if heatmaps and crops:
            whole = np.stack([seen.image for seen in usable if seen.image is not None])
            features = self.backend.run(whole, True).features
        return probs, features

    def _describe(self, seen: Seen) -> Prediction:
        return Prediction(seen.path, seen.reason, seen.warnings, {}, {}, {}, seen.image, {})

    def _make_heatmaps(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(M, 1024, h, w) features to (L, h, w) heatmaps, as ``weigh_features`` and ``average_heatmaps`` make them."""
        maps = [
            _normalise(np.maximum(np.tensordot(head, one, axes=1), 0))
            for head, one in zip(self._heads, features, strict=True)
        ]
        return np.asarray(_normalise(np.mean(maps, axis=0)), np.float32)


def run_views(
    backend: Backend, config: BundleConfig, opened: NDArray[np.uint8], with_features: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Probs of images, the mean over the networks and views of a bundle, and the features of the first view.

    Args:
        backend: With the networks.
        config: Of the bundle.
        opened: (B, H, H), of the side that the views are cut from.
        with_features: Whether to return features.

    Returns:
        (B, L) probs, and (M, B, 1024, h, w) features or None.
    """
    outputs = [
        backend.run(np.ascontiguousarray(view), with_features and number == 0)
        for number, view in enumerate(cut_views(opened, config.preprocessing.img_size, config.tta))
    ]
    logits = np.concatenate(np.stack([output.logits for output in outputs], axis=1))  # member by member
    return average_logits(logits, config.average), outputs[0].features


def _normalise(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each map (..., h, w) divided by its maximum; one of zeros stays so."""
    highest = maps.max(axis=(-2, -1), keepdims=True)
    return np.asarray(maps / np.where(highest > 0, highest, 1))


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
