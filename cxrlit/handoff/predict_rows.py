"""Predictions as rows of a table, each with the picture of its heatmaps."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cxrlit.core.console import make_printable
from cxrlit.handoff.backends.backend import Precision
from cxrlit.handoff.journal import Row
from cxrlit.handoff.predictor import Prediction, Predictor
from cxrlit.handoff.read_inputs import Listed


class Done(NamedTuple):
    """A file that is done.

    Attributes:
        row: Its row.
        picture: Its heatmaps as PNG; empty where there are none.
    """

    row: Row
    picture: bytes


def predict_rows(
    predictor: Predictor, files: Sequence[Listed], heatmaps: bool, batch_size: int | None
) -> Iterator[list[Done]]:
    """Predict files batch by batch, in their order.

    Args:
        predictor: A bundle that is ready.
        files: From ``list_files``.
        heatmaps: Draw them.
        batch_size: None: that of the backend.
    """
    for batch in predictor.predict_batches(files, heatmaps, batch_size):
        yield [
            Done(make_row(one, predictor.backend.precision), draw(one, predictor) if heatmaps else b"") for one in batch
        ]


def make_row(prediction: Prediction, precision: Precision) -> Row:
    """A prediction as plain types, and the precision that made it."""
    # A name may begin as a formula does, and hold what ends a line: a table is opened in programs that act on both.
    name = make_printable(prediction.path).replace("\n", "\\n")
    return {
        "file": f"./{name}" if name.startswith(("=", "+", "-", "@")) else name,
        "reason": prediction.reason,
        "warnings": list(prediction.warnings),
        "precision": "" if prediction.reason else precision,
        "probs": prediction.probs,
        "calibrated": prediction.calibrated,
        "preds": prediction.preds,
    }


def draw(prediction: Prediction, predictor: Predictor) -> bytes:
    """The heatmaps of a file as PNG; empty where it could not be read."""
    from cxrlit.handoff.heatmap_picture import draw_prediction

    return b"" if prediction.reason else draw_prediction(prediction, predictor.thresholds)
