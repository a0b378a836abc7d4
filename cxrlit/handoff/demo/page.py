"""The page, the same for everybody who looks at it: its script asks the service, and fills in what it answers."""

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
"""Of the table of all numbers, whose cells the script fills."""


def make_page(predictor: Predictor, file_bytes: int) -> str:
    """The page of a bundle: what the model is, what it must not be used for, its labels, and drawn examples.

    Args:
        predictor: With the bundle.
        file_bytes: The largest file that is taken.
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
