"""Draw a radiograph and the heatmap of each label in one PNG file."""

import io
from collections.abc import Mapping
from pathlib import Path

from cxrlit.core.console import make_printable
from cxrlit.evaluation.localisation.overlays import draw_panels, enlarge_image, overlay
from cxrlit.handoff.predictor import Prediction, count_digits

PANEL_PX, N_COLUMNS = 256, 3


def draw_prediction(prediction: Prediction, thresholds: Mapping[str, float | None]) -> bytes:
    """Draw the radiograph, then a panel for each label: its heatmap, calibrated prob and threshold.

    Args:
        prediction: A prediction with heatmaps.
        thresholds: Thresholds by label.

    Returns:
        The PNG file.
    """
    assert prediction.image is not None
    name = Path(prediction.path).name.encode("latin-1", "replace").decode("latin-1")  # characters of the font
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
    figure = draw_panels({divmod(number, N_COLUMNS): panel for number, panel in enumerate(panels)})
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
