"""Fixed texts of model cards, and reading of their sections, for the demo page, which does not need the card writer."""

import html
import re

MISUSES = (
    "It is not a medical device. No person may be diagnosed, triaged, treated or sent home by what it says.",
    "Not for lateral views, for children where the training had none, for other organs, for photographs of films or "
    "screens. It gives a score to anything; a warning is a hint, and its absence no clearance.",
    "Not at another hospital without a test there: scores, calibration and thresholds shift with scanners, patients "
    "and prevalence. `cxrlit evaluate ckpt=... data=...` measures that before anything rests on them.",
    "A finding that is not among its labels is not looked for. Below every threshold does not mean healthy.",
)

LIMITS = (
    "The targets of the training are what its data set says. Those of NIH ChestX-ray14 were read out of reports by a "
    "program and are wrong for a part of the images; the metrics below are measured against such targets too.",
    "A model may look at a tube, a marker or a scanner's border in place of a finding. Heatmaps show where it looked, "
    "not why, and are coarse: a cell is 32 pixels wide.",
    "Intervals are over patients of the test part. They say how the numbers vary with who was tested, and nothing of "
    "other hospitals, other years or another training.",
)

SECTIONS = {"What it must not be used for": MISUSES, "Limits": LIMITS}
"""Sections of a card that the page shows, with the default for a card without the section."""


def read_sections(card: str) -> dict[str, list[str]]:
    """Read the items and paragraphs of ``SECTIONS``, by title.

    Args:
        card: The text of the bundle's ``README.md``.
    """
    return {
        title: _read_section(card, title) or [_strip_marks(text) for text in usual] for title, usual in SECTIONS.items()
    }


def _read_section(card: str, title: str) -> list[str]:
    """Read the items and paragraphs of a section; empty if it is missing.

    >>> _read_section("## Limits\\n\\n- Of `a` &amp; b.\\n- B.\\n\\nIt warns\\nof **c**.\\n\\n## Training", "Limits")
    ['Of a & b.', 'B.', 'It warns of c.']
    """
    _, _, rest = f"\n{card}".partition(f"\n## {title}\n")
    pieces = re.split(r"\n(?:\s*\n|(?=- ))", rest.partition("\n## ")[0])
    return [html.unescape(_strip_marks(piece.strip())) for piece in pieces if piece.strip()]


def _strip_marks(text: str) -> str:
    """Convert Markdown to one line of plain text."""
    return " ".join(re.sub(r"^- |[`*]", "", text).split())
