"""A prediction as the pieces of the page: its picture, its bars, its numbers, its words."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment

from cxrlit.evaluation.localisation.overlays import enlarge_image, overlay
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.demo.card_text import read_sections
from cxrlit.handoff.predictor import Prediction, count_digits
from cxrlit.html.figures import embed
from cxrlit.html.page import make_environment

FOLDER = Path(__file__).parent
SIDE = 512
"""Of the picture, pixels."""

THUMBNAIL = 160

PRESENT, BELOW, UNDECIDED = "present", "below threshold", "no threshold"


def describe_model(bundle: Bundle) -> str:
    """What the model is, what it must not be used for and its limits."""
    card = bundle.contents["README.md"].decode("utf-8", "replace")
    return _render("model.html", config=bundle.config, sections=read_sections(card))


def show_picture(prediction: Prediction, label: str | None) -> str:
    """The radiograph as the network is given it, under the heatmap of a label where one is named."""
    assert prediction.image is not None
    heatmap = prediction.heatmaps.get(label or "")
    pixels: Any
    if heatmap is None:
        label, pixels = None, enlarge_image(prediction.image, SIDE)[..., :1]
    else:
        pixels = cv2.cvtColor(overlay(prediction.image, heatmap, SIDE), cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".png", pixels)
    return _render(
        "picture.html",
        label=label,
        is_empty=heatmap is not None and not heatmap.any(),
        size=len(prediction.image),
        side=SIDE,
        address=embed(content.tobytes()),
    )


def show_findings(prediction: Prediction, thresholds: Mapping[str, float | None]) -> str:
    """What speaks against the image, then each label against its threshold, as bars and as a table."""
    verdicts = {True: PRESENT, False: BELOW, None: UNDECIDED}
    rows = [
        {
            "label": label,
            "prob": prediction.probs[label],
            "calibrated": prob,
            "threshold": thresholds[label],
            "digits": count_digits(prob, thresholds[label]),
            "verdict": verdicts[prediction.preds[label]],
        }
        for label, prob in prediction.calibrated.items()
    ]
    return _render("findings.html", rows=rows, warnings=prediction.warnings, present=PRESENT)


def say_findings(prediction: Prediction, name: str) -> str:
    """One line that says the result, which a screen reader reads out when it comes."""
    found = [label for label, present in prediction.preds.items() if present]
    text = f"present: {', '.join(found)}" if found else "nothing at or above its threshold, which does not mean healthy"
    doubt = " This may be no radiograph that the model was made for." if prediction.warnings else ""
    return _render("said.html", name=name, text=f"{text}.{doubt}", refused=False)


def say_refusal(reason: str, name: str) -> str:
    """One line that says why a file has no result."""
    return _render("said.html", name=name, text=f"cannot be used: {reason}", refused=True)


def embed_thumbnail(path: Path) -> str:
    """A picture on a button, as an address."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    _, content = cv2.imencode(".jpg", cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))
    return embed(content.tobytes())


def _render(template: str, **values: object) -> str:
    return _open_templates().get_template(template).render(**values)


@cache
def _open_templates() -> Environment:
    return make_environment(FOLDER)
