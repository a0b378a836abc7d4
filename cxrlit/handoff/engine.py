"""An engine of ``cxrlit predict``: what predicts the files, and where. This is the one of this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxrlit.handoff.backends.backend import BackendChoice, DeviceName, Precision
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.predict_rows import Done, predict_rows
from cxrlit.handoff.predictor import Predictor
from cxrlit.handoff.read_inputs import Listed

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class PredictOptions:
    """What ``cxrlit predict`` takes.

    Attributes:
        bundle: Folder of the bundle.
        files: Files and folders.
        out: The table.
        backend: torch, onnx, openvino, or auto.
        precision: fp32, bf16 or int8; None: as ``Predictor.load`` chooses.
        batch_size: None: of torch the one that the model was evaluated with, on a GPU by its free memory; else 16.
        n_threads: None: one a core.
        device: Where torch computes.
        compiles: Whether torch compiles the networks.
        heatmaps: Draw them, into a folder beside the table.
        as_json: A JSON object a line in place of CSV.
        engine: This machine, or a Ray cluster.
    """

    bundle: Path
    files: list[Path]
    out: Path
    backend: BackendChoice
    precision: Precision | None
    batch_size: int | None
    n_threads: int | None
    heatmaps: bool
    as_json: bool
    device: DeviceName = "auto"
    compiles: bool = False
    engine: EngineName = "local"


@dataclass(frozen=True)
class Engine:
    """Predicts files with a bundle.

    Attributes:
        bundle: The bundle.
        backend: Program, version, precision and device: the same ones make the same rows.
        description: The same for the screen, with why it was chosen and where it runs.
        batch_size: Images at once.
        predict: Files to batches of what is done, in the order of the files.
    """

    bundle: Bundle
    backend: str
    description: str
    batch_size: int
    predict: Callable[[Sequence[Listed]], Iterator[list[Done]]]


@contextmanager
def open_local(options: PredictOptions) -> Iterator[Engine]:
    """The engine of this machine.

    Raises:
        CXRLitError: The bundle cannot be used.
    """
    predictor = Predictor.load(
        options.bundle,
        options.backend,
        precision=options.precision,
        n_threads=options.n_threads,
        device=options.device,
        compiles=options.compiles,
    )
    yield make_local(predictor, options)


def make_local(predictor: Predictor, options: PredictOptions) -> Engine:
    """The engine of a predictor."""
    return Engine(
        predictor.bundle,
        predictor.backend.description,
        predictor.description,
        options.batch_size or predictor.backend.batch_size,
        lambda files: predict_rows(predictor, files, options.heatmaps, options.batch_size),
    )
