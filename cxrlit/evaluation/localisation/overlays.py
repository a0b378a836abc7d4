"""Draw heatmaps over radiographs, as PNG files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrlit.core.files import replace_file
from cxrlit.evaluation.localisation.shown_images import KINDS, ShownImage
from cxrlit.metrics.types import Floats

COLORS = "inferno"
"""A perceptually uniform colour map, also in gray and for colour-blind readers."""

MAX_ALPHA = 0.6
"""Opacity at a map's maximum; a map of 0 is transparent."""

BOX_COLOR = (57, 215, 255)
PICTURE_PX, SHEET_PX, GAP_PX = 360, 220, 6
"""Side of a single radiograph, side on a sheet, and the gap between two; pixels."""

LINE_PX, DPI = 16, 100
"""Height of a line of text, pixels; and pixels per inch."""


class Shown(NamedTuple):
    """Pixels, heatmap and boxes of an example.

    Attributes:
        pixels: (S, S) uint8.
        heatmap: (h, w) in [0, 1].
        boxes: (G, 4) left, top, right, bottom in pixels; G may be 0.
    """

    pixels: NDArray[np.uint8]
    heatmap: NDArray[np.float32]
    boxes: Floats


class Overlay(NamedTuple):
    """A PNG file.

    Attributes:
        path: The file.
        label: Its label.
        kind: A key of ``KINDS``; empty for a sheet.
        caption: A line that says what it shows.
    """

    path: Path
    label: str
    kind: str
    caption: str


def draw_overlays(shown: Mapping[ShownImage, Shown], folder: Path) -> tuple[list[Overlay], list[Overlay]]:
    """Draw each example, plain and with its heatmap, and a sheet for each label.

    Args:
        shown: The examples in the order of the sheets, with what is drawn of each.
        folder: Folder of the files. Pictures of an earlier evaluation are removed.

    Returns:
        The pictures of the examples, and the sheets.
    """
    pictures, sheets = [], []
    names: dict[str, str] = {}
    for label in dict.fromkeys(example.label for example in shown):
        name = name_file(label)
        names[label] = f"{name}-{len(names) + 1}" if name in names.values() else name
    for example, what in shown.items():
        name = f"{names[example.label]}-{example.kind.replace('_', '-')}-{example.rank}.png"
        caption = describe_overlay(example, what)
        panel = caption.replace(": ", ":\n", 1), compose_pair(what, PICTURE_PX)
        _save(draw_panels({(0, 0): panel}), folder / name)
        pictures.append(Overlay(folder / name, example.label, example.kind, caption))
    for label, name in names.items():
        path = folder / f"{name}.png"
        _save(draw_sheet(label, {example: what for example, what in shown.items() if example.label == label}), path)
        sheets.append(Overlay(path, label, "", f"{label}: the most certain images, plain and with the heatmap"))
    kept = {picture.path for picture in (*pictures, *sheets)}
    for path in set(folder.glob("*.png")) - kept:
        path.unlink()
    return pictures, sheets


def draw_sheet(label: str, shown: Mapping[ShownImage, Shown]) -> Figure:
    """Draw all examples of a label: a row for each kind, the most certain at the left."""
    kinds = [kind for kind in KINDS if any(example.kind == kind for example in shown)]
    panels = {}
    for example, what in shown.items():
        caption = f"{KINDS[example.kind]}, probability {example.prob:.3f}\n{clip_name(example.image, 48)}"
        panels[kinds.index(example.kind), example.rank - 1] = caption, compose_pair(what, SHEET_PX)
    return draw_panels(panels, label)


def draw_panels(panels: Mapping[tuple[int, int], tuple[str, NDArray[np.uint8]]], title: str = "") -> Figure:
    """Draw pictures in a grid, pixel by pixel, each under its caption.

    Args:
        panels: By row and column, both from 0: a caption of at most two lines, and (H, W, 3) pixels, all of one size.
        title: Title above the grid.
    """
    height, width = next(iter(panels.values()))[1].shape[:2]
    head, cell_height, cell_width = 2 * LINE_PX * bool(title), height + 2 * LINE_PX + 3 * GAP_PX, width + 3 * GAP_PX
    n_rows, n_columns = (1 + max(place) for place in zip(*panels, strict=True))
    full_height, full_width = head + n_rows * cell_height, n_columns * cell_width
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI)
    texts = [(GAP_PX, GAP_PX, title, 13)]
    for (row, column), (caption, pixels) in panels.items():
        left, top = column * cell_width + GAP_PX, head + row * cell_height
        texts.append((left, top, caption, 9))
        figure.figimage(pixels, left, full_height - top - 2 * LINE_PX - GAP_PX - height, origin="upper")
    for left, top, text, size in texts:  # no maths in names
        place = left / full_width, 1 - top / full_height
        figure.text(*place, text, fontsize=size, verticalalignment="top", parse_math=False)
    return figure


def compose_pair(what: Shown, side: int) -> NDArray[np.uint8]:
    """Make (side, 2 side + gap, 3) pixels: the radiograph, and beside it with its heatmap; boxes on both."""
    plain = enlarge_image(what.pixels, side)
    heated = overlay(what.pixels, what.heatmap, side)
    for panel in (plain, heated):
        for box in what.boxes:
            left, top, right, bottom = np.rint(box * side / len(what.pixels)).astype(int).tolist()
            for color, thickness in (((0, 0, 0), 4), (BOX_COLOR, 2)):  # visible on bright and dark
                cv2.rectangle(panel, (left, top), (right - 1, bottom - 1), color, thickness)
    gap = np.full((side, GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([plain, gap, heated], axis=1)


def overlay(image: NDArray[np.uint8], heatmap: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Make (side, side, 3) pixels of a radiograph (S, S) under its heatmap (h, w)."""
    colors = color_heatmap(enlarge(heatmap, side))
    alpha = colors[..., 3:]
    return np.rint((1 - alpha) * enlarge_image(image, side) + alpha * 255 * colors[..., :3]).astype(np.uint8)


def enlarge_image(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize (S, S) gray pixels to (side, side, 3)."""
    smooth = cv2.INTER_AREA if side < len(image) else cv2.INTER_CUBIC
    return np.repeat(cv2.resize(image, (side, side), interpolation=smooth)[..., None], 3, axis=2).astype(np.uint8)


def enlarge(heatmap: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize a map (h, w) to its image, (S, S), by bilinear interpolation, with the nearest value at the edges."""
    return np.asarray(cv2.resize(heatmap, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def describe_overlay(example: ShownImage, what: Shown) -> str:
    """Write the caption of an example."""
    target = {1.0: "present", 0.0: "absent"}.get(example.target, "unknown")
    decided = "no threshold" if np.isnan(example.threshold) else f"threshold {example.threshold:.3f}"
    n_boxes = len(what.boxes)
    boxes = {0: "", 1: ", box drawn"}.get(n_boxes, f", {n_boxes} boxes drawn")
    return (
        f"{example.label}, {KINDS[example.kind]}: {example.image}, probability {example.prob:.3f} ({decided}), "
        f"label {target}{boxes}"
    )


def color_heatmap(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map (S, S) values in [0, 1] to (S, S, 4) colour and opacity; opacity grows with the value from 0."""
    colors = np.array(matplotlib.colormaps[COLORS](heatmap), dtype=np.float32)
    colors[..., 3] = MAX_ALPHA * heatmap
    return colors


def name_file(label: str) -> str:
    """Make a label usable in a file name.

    >>> name_file("A b/c")
    'A_b_c'
    """
    return re.sub(r"[^\w.+()-]", "_", label)


def clip_name(name: str, length: int) -> str:
    """Shorten a name in its middle if it is longer than ``length``.

    >>> clip_name("00000001_000.png", 9), clip_name("a.png", 9)
    ('0000….png', 'a.png')
    """
    return name if len(name) <= length else f"{name[: (length - 1) // 2]}…{name[-(length - 1) // 2 :]}"


def _save(figure: Figure, path: Path) -> None:
    with replace_file(path) as staged:
        figure.savefig(staged)
