"""What a bundle's model card says in its sections, as plain texts."""

import html
import re

from cxrlit.handoff.model_card import LIMITS, MISUSES

SECTIONS = {"What it must not be used for": MISUSES, "Limits": LIMITS}
"""What the page shows of a card, and what it shows where a card of other hands has no such section."""


def read_sections(card: str) -> dict[str, list[str]]:
    """The items and paragraphs of ``SECTIONS``, by title.

    Args:
        card: The text of the bundle's ``README.md``.
    """
    return {
        title: _read_section(card, title) or [_strip_marks(text) for text in usual] for title, usual in SECTIONS.items()
    }


def _read_section(card: str, title: str) -> list[str]:
    """The items and paragraphs of a section; none where it is not there.

    >>> _read_section("## Limits\\n\\n- Of `a` &amp; b.\\n- B.\\n\\nIt warns\\nof **c**.\\n\\n## Training", "Limits")
    ['Of a & b.', 'B.', 'It warns of c.']
    """
    _, _, rest = f"\n{card}".partition(f"\n## {title}\n")
    pieces = re.split(r"\n(?:\s*\n|(?=- ))", rest.partition("\n## ")[0])
    return [html.unescape(_strip_marks(piece.strip())) for piece in pieces if piece.strip()]


def _strip_marks(text: str) -> str:
    """Markdown as a plain text of one line."""
    return " ".join(re.sub(r"^- |[`*]", "", text).split())
