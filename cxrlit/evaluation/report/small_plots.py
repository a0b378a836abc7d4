"""What pictures of the report share: the small ones of a label each, colours of parts, names of files."""

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlit.html.figures import BLUE, FAINT, GREEN, ORANGE, make_axes, wrap_name

TILE = 3.3
"""Inches that a picture of one label is wide; as many as fit stand beside each other."""


def make_tile(label: str, detail: str, height: float = 3.5, bottom: float = 0.45) -> tuple[Figure, Axes]:
    """A picture of one label.

    Args:
        label: Its title.
        detail: The line below.
        height: Inches.
        bottom: Inches below the axes.
    """
    figure, axes = make_axes(TILE, height, left=0.57, top=0.48, bottom=bottom)
    looks: tuple[tuple[str, int, dict[str, Any]], ...] = (
        (wrap_name(label, 34, 1), 19, {"fontsize": 9.5, "fontweight": "bold"}),
        (detail, 6, {"color": FAINT}),
    )
    for text, points, look in looks:
        axes.annotate(text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", **look)
    return figure, axes


def color_parts(parts: Sequence[str]) -> dict[str, str]:
    """A colour for each part; the last one, which counts, has always the same."""
    return dict(zip(reversed(parts), (BLUE, ORANGE, GREEN, FAINT) * (len(parts) // 4 + 1), strict=False))


def name_files(labels: Sequence[str]) -> list[str]:
    """What the files of each label are called: letters and digits, no two alike.

    >>> name_files(["Pleural Effusion", "pleural/effusion", "../", "胸水"])
    ['pleural-effusion', 'pleural-effusion-2', 'label-3', 'label-4']
    """
    names: list[str] = []
    for number, label in enumerate(labels, start=1):
        name = re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or f"label-{number}"
        names.append(f"{name}-{number}" if name in names else name)
    return names
