"""A radiograph and the heatmap of each label, as one PNG file."""

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from cxrlit.core.console import make_printable
from cxrlit.core.files import replace_file
from cxrlit.evaluation.localisation.overlays import enlarge_image, overlay
from cxrlit.handoff.predictor import Prediction, count_digits

PANEL_PX, HEAD_PX, GAP_PX, DPI = 256, 40, 6, 100
N_COLUMNS = 3


def draw_prediction(prediction: Prediction, thresholds: Mapping[str, float | None], path: Path) -> None:
    """The radiograph, then a panel for each label: its heatmap, calibrated prob and threshold.

    Args:
        prediction: With heatmaps.
        thresholds: By label.
        path: The PNG file.
    """
    assert prediction.image is not None
    name = Path(prediction.path).name.encode("latin-1", "replace").decode("latin-1")  # what the font has
    panels = [(make_printable(name)[:34], enlarge_image(prediction.image, PANEL_PX))]
    for label, heatmap in prediction.heatmaps.items():
        threshold = thresholds[label]
        prob = prediction.calibrated[label]
        digits = count_digits(prob, threshold)
        decided = "no threshold" if threshold is None else f"threshold {threshold:.{digits}f}"
        present = ": present" if prediction.preds[label] else ""
        nowhere = "" if heatmap.any() else " (no positive evidence to show)"
        caption = f"{label}{present}{nowhere}\n{prob:.{digits}f}, {decided}"
        panels.append((caption, overlay(prediction.image, heatmap, PANEL_PX)))
    n_rows = math.ceil(len(panels) / N_COLUMNS)
    width, height = PANEL_PX + GAP_PX, PANEL_PX + HEAD_PX + GAP_PX
    full = (N_COLUMNS * width + GAP_PX, n_rows * height)
    figure = Figure(figsize=(full[0] / DPI, full[1] / DPI), dpi=DPI)
    for number, (caption, panel) in enumerate(panels):
        row, column = divmod(number, N_COLUMNS)
        left, top = column * width + GAP_PX, row * height
        figure.text(
            left / full[0], 1 - (top + 4) / full[1], caption, fontsize=9, verticalalignment="top", parse_math=False
        )
        figure.figimage(panel, left, full[1] - top - HEAD_PX - PANEL_PX, origin="upper")
    with replace_file(path) as staged:
        figure.savefig(staged)
