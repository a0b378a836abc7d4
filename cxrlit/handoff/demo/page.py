"""Make the page, which is static: its script sends requests to the service, and shows the answers."""

from pathlib import Path

from cxrlit.core.notice import make_notice
from cxrlit.data.tta import VIEWS
from cxrlit.handoff.card_text import read_sections
from cxrlit.handoff.demo.examples import draw_examples
from cxrlit.handoff.demo.intake import MIB
from cxrlit.handoff.predictor import Predictor
from cxrlit.html.figures import embed
from cxrlit.html.page import render_page
from cxrlit.html.tables import make_figures

HEADS = ["Finding", "Model's probability", "Calibrated", "Threshold", "Result"]
"""Header of the table of all numbers; the script fills the cells."""


def make_page(predictor: Predictor, file_bytes: int) -> str:
    """Make the page of a bundle: the model, its misuses, its labels, and drawn examples.

    Args:
        predictor: Predictor of the bundle.
        file_bytes: Largest accepted file, bytes.
    """
    bundle = predictor.bundle
    return render_page(
        Path(__file__).parent,
        "page",
        title="Try the model on a chest radiograph",
        notice=make_notice(shows_patients=True),
        file_bytes=file_bytes,
        file_mib=file_bytes // MIB,
        labels=predictor.labels,
        table=make_figures("Probability and threshold", HEADS, [(label, [""] * 4) for label in predictor.labels]),
        examples=[(example.caption, embed(example.content)) for example in draw_examples()],
        config=bundle.config,
        precision=predictor.backend.precision,
        views="" if bundle.config.tta == "none" else VIEWS[bundle.config.tta],
        sections=read_sections(bundle.contents["README.md"].decode("utf-8", "replace")),
    )
