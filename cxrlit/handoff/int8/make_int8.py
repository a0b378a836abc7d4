"""Make the int8 networks of a bundle, with the figures of the gate."""

from dataclasses import replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from cxrlit.core.cores import count_cores
from cxrlit.core.errors import BundleError, format_count
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import read_targets
from cxrlit.data.tta import cut_views
from cxrlit.handoff.backends.backend import Precision
from cxrlit.handoff.backends.onnx_backend import OnnxBackend
from cxrlit.handoff.bundle import Bundle, name_int8_files
from cxrlit.handoff.int8.gate import average_agreement, compare_labels, is_judged
from cxrlit.handoff.int8.quantise import quantise_graph
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.handoff.predictor import run_views

MIN_CALIBRATION, MAX_CALIBRATION = 100, 256
"""Fewest and most training images that fix the ranges of activations, evenly spaced over the table."""
PRECISIONS: tuple[Precision, Precision] = ("fp32", "int8")
CHUNK = 64
"""Validation images in memory at once."""


def check_calibration(images: CXRDataModule) -> None:
    """Refuse a training part that is too small to calibrate on.

    Raises:
        BundleError: It has fewer than ``MIN_CALIBRATION`` images.
    """
    n_images = len(images.parts["train"])
    if n_images < MIN_CALIBRATION:
        raise BundleError(
            f"--int8: the training part has {format_count(n_images, 'image')}, and {MIN_CALIBRATION} are needed to "
            "calibrate: export without --int8"
        )


def make_int8(
    bundle: Bundle, calibration: NDArray[np.uint8], images: CXRDataModule, max_auroc_loss: float, is_forced: bool
) -> tuple[dict[str, bytes], Int8Record]:
    """Quantise the networks of a bundle, and compare them with those in fp32 on the validation images.

    Args:
        bundle: Bundle with its fp32 graphs.
        calibration: (N, H, H) training images, at the side from which the views are cut.
        images: Datamodule with the validation part, at that side.
        max_auroc_loss: Largest AUROC that a label may lose.
        is_forced: Include int8 even if no label can be judged.

    Returns:
        The int8 graphs by file, and the figures.
    """
    views = cut_views(calibration, bundle.config.preprocessing.img_size, bundle.config.tta)
    seen = np.concatenate([view[number :: len(views)] for number, view in enumerate(views)])  # one view of each image
    graphs = [graph for _, graph in bundle.member_files]
    made = {
        name: quantise_graph(bundle.contents[graph], seen)
        for graph, name in zip(graphs, name_int8_files(len(graphs)), strict=True)
    }
    bundle = replace(bundle, contents={**bundle.contents, **made})
    exact, quantised = (predict_part(bundle, images, "val", precision) for precision in PRECISIONS)
    labels = compare_labels(exact, quantised, read_targets(images.parts["val"], bundle.labels), bundle.point)
    return made, Int8Record(
        onnxruntime=version("onnxruntime"),
        n_calibration=len(calibration),
        n_val=len(exact),
        max_auroc_loss=max_auroc_loss,
        is_forced=is_forced and not any(map(is_judged, labels)),
        agreement=average_agreement(labels),
        labels=labels,
    )


def predict_part(bundle: Bundle, images: CXRDataModule, part: str, precision: Precision) -> NDArray[np.float32]:
    """Predict (N, L) probs of a part by ONNX Runtime, in the order of its table."""
    backend = OnnxBackend(bundle, precision, count_cores())
    rows = images.parts[part]["row"].to_numpy(np.int64)
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([run_views(backend, bundle.config, images.store.take(chunk))[0] for chunk in chunks])
