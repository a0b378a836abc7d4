"""Charts of the page; its tables contain the same numbers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from cxrlit.html.bar_chart import draw_bars
from cxrlit.html.figures import BLUE, GRAY, GREEN, ORANGE, make_axes
from cxrlit.html.section import Picture
from cxrlit.html.tables import Table, make_figures
from cxrlit.html.text import format_part, format_share
from cxrlit.inspection.counts import IndexCounts, Numbers

PATIENT_STARTS = (1, 2, 3, 4, 5, 6, 11, 21, 51)
"""Lower edges of the bins of images per patient."""

AGE_STARTS = tuple(range(0, 121, 10))

COLORS = (GRAY, BLUE, ORANGE, GREEN)
"""Colours of the whole data set, and of train, val and test."""


def draw_prevalence(parts: Sequence[IndexCounts], labels: Sequence[str]) -> Picture:
    """A bar chart of each label's prevalence in each part."""
    shares = {part.name: part.prevalence for part in parts}
    figure = draw_bars(labels, shares, COLORS, "prevalence", ticks=PercentFormatter(1))
    said = [
        f"{label} {', '.join(f'{format_share(of[row])} {name}' for name, of in shares.items())}"
        for row, label in enumerate(labels)
    ]
    caption = "Prevalence of each label, among the images of which it is known"
    return Picture(figure, "prevalence", f"{caption}: {'; '.join(said)}", f"{caption}.")


def chart_counts(
    name: str, caption: str, head: str, parts: Sequence[str], bins: Sequence[str], counts: Sequence[NDArray[np.int64]]
) -> tuple[Table, Picture]:
    """Counts per bin: a table of all parts, and a chart of the whole data set.

    Args:
        name: Name of the chart.
        caption: What is counted, and by what.
        head: Name of the binned quantity.
        parts: Names of the whole data set and its parts.
        bins: Names of the B bins.
        counts: (B,) for each part.
    """
    rows = [(bin_, [format_part(int(of[row]), int(of.sum())) for of in counts]) for row, bin_ in enumerate(bins)]
    figure = draw_bars(bins, {parts[0]: counts[0]}, COLORS, caption.split()[0].lower())
    said = "; ".join(f"{head} {bin_}: {cells[0]}" for bin_, cells in rows)
    return make_figures(caption, [head, *parts], rows), Picture(figure, name, f"{caption}: {said}", f"{caption}.")


def count_n_findings(parts: Sequence[IndexCounts]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Images by number of present labels: names of the bins, and counts for each part."""
    most = len(parts[0].n_findings)
    counts = [np.pad(part.n_findings, (0, most - len(part.n_findings))) for part in parts]
    return [str(number) for number in range(most)], counts


def count_bins(values: Sequence[Numbers], starts: Sequence[int]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Bin integers, from the first to the last bin that is not empty for the first array.

    Args:
        values: Arrays of integers.
        starts: Lower edges of the bins, ascending; the last bin is open.

    Returns:
        Names of the bins, and counts for each array.

    >>> count_bins([np.array([1, 1, 7]), np.array([2])], (1, 2, 5))
    (['1', '2–4', '5 or more'], [array([2, 0, 1]), array([0, 1, 0])])
    """
    ends = [*(start - 1 for start in starts[1:]), None]
    names = [
        f"{start} or more" if end is None else str(start) if end == start else f"{start}–{end}"
        for start, end in zip(starts, ends, strict=True)
    ]
    counts = [np.histogram(array, bins=[*starts, np.inf])[0] for array in values]
    there = np.flatnonzero(counts[0])
    used = slice(there[0], there[-1] + 1) if len(there) else slice(0)
    return names[used], [count[used] for count in counts]


def draw_levels(levels: NDArray[np.float64]) -> Picture:
    """A histogram of gray levels.

    Black and white are often background: their bars are cut off where they exceed all bars between.

    Args:
        levels: (256,) fraction of the pixels at each gray level.
    """
    highest = float(levels[1:-1].max()) or float(levels.max())
    figure, axes = make_axes(5.0, 2.6, left=0.65, right=0.2, top=0.1, bottom=0.45)
    axes.stairs(levels, np.linspace(0, 1, len(levels) + 1), color=BLUE, fill=True)
    axes.set(xlim=(0, 1), ylim=(0, highest), xlabel="gray value, from black (0) to white (1)", ylabel="share of pixels")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    caption = (
        "Gray values of the pixels of the sample, each image with the same weight. The highest step between black and "
        f"white is {format_share(highest)} of the pixels; black itself ({format_share(float(levels[0]))}) and white "
        f"itself ({format_share(float(levels[-1]))}) are cut off there."
    )
    return Picture(
        figure,
        "gray-values",
        "Histogram of the gray values of the sample's pixels from black to white; a "
        "table of this section has their percentiles",
        caption,
    )
