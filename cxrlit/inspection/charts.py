"""The charts of the page, as what a table needs to draw them: lengths of bars and steps of colour."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrlit.html.text import format_number, format_share
from cxrlit.inspection.counts import IndexCounts, Numbers
from cxrlit.inspection.number_lists import format_part

HEAT_STEPS = 10
"""Steps of colour of a matrix; the style sheet has a class for each, and one for 0."""

PATIENT_STARTS = (1, 2, 3, 4, 5, 6, 11, 21, 51)
"""Where the bins of images per patient begin."""

AGE_STARTS = tuple(range(0, 121, 10))

CHART_HEIGHT = 100


class Bar(NamedTuple):
    """A row of a chart: its name, how long its bar is as a share of the longest, and the figures beside it."""

    name: str
    length: float
    cells: list[str]


class Heat(NamedTuple):
    """A cell of a matrix: images, their share, and its step of colour."""

    images: str
    share: str
    step: int


def chart_prevalence(parts: Sequence[IndexCounts], labels: Sequence[str]) -> list[tuple[str, list[Bar]]]:
    """For each label a bar for each part; the longest of all is as long as the chart is wide."""
    prevalence = np.array([part.prevalence for part in parts])
    lengths = _scale(prevalence)
    return [
        (label, [Bar(part.name, lengths[k][row], [format_share(prevalence[k, row])]) for k, part in enumerate(parts)])
        for row, label in enumerate(labels)
    ]


def chart_n_findings(parts: Sequence[IndexCounts]) -> list[Bar]:
    """Images by the number of labels that are present."""
    most = len(parts[0].n_findings)
    counts = [np.pad(part.n_findings, (0, most - len(part.n_findings))) for part in parts]
    return _chart([str(number) for number in range(most)], counts)


def chart_bins(values: Sequence[Numbers], starts: Sequence[int]) -> list[Bar]:
    """A histogram of whole numbers; a column of figures for each array of values, the bars are of the first.

    >>> [(bar.name, bar.cells) for bar in chart_bins([np.array([1, 1, 7])], (1, 2, 5))]
    [('1', ['2 (66.7 %)']), ('2–4', ['0 (0.0 %)']), ('5 or more', ['1 (33.3 %)'])]
    """
    ends = [*(start - 1 for start in starts[1:]), None]
    names = [
        f"{start} or more" if end is None else str(start) if end == start else f"{start}–{end}"
        for start, end in zip(starts, ends, strict=True)
    ]
    counts = [np.histogram(array, bins=[*starts, np.inf])[0] for array in values]
    there = np.flatnonzero(counts[0])
    if not len(there):
        return []
    used = slice(there[0], there[-1] + 1)
    return _chart(names[used], [count[used] for count in counts])


def heat_matrix(part: IndexCounts) -> list[list[Heat]]:
    """Images with the labels of the row and the column, and the share of the column's among the row's."""
    shares = part.conditional
    steps = np.ceil(np.nan_to_num(shares) * HEAT_STEPS).astype(int)
    return [
        [
            Heat(
                format_number(int(part.together[row, column])),
                format_share(shares[row, column]),
                int(steps[row, column]),
            )
            for column in range(len(shares))
        ]
        for row in range(len(shares))
    ]


def draw_levels(levels: NDArray[np.float64]) -> tuple[str, float]:
    """The outline of a histogram of gray levels as an SVG path, and the share that is as high as the picture.

    Black and white, which are often the background, are cut off where they are higher than all between them.

    Args:
        levels: (256,) share of the pixels by gray level.

    Returns:
        The path, in a box of 256 x 100.
    """
    highest = float(levels[1:-1].max()) or float(levels.max())
    tops = CHART_HEIGHT * (1 - np.minimum(levels / highest, 1)) if highest else np.full(len(levels), CHART_HEIGHT)
    steps = " ".join(f"V{top:.2f}H{level + 1}" for level, top in enumerate(tops))
    return f"M0 {CHART_HEIGHT}{steps}V{CHART_HEIGHT}Z", highest


def _chart(names: Sequence[str], counts: Sequence[NDArray[np.int64]]) -> list[Bar]:
    lengths = _scale(counts[0])
    shares = [[format_part(int(number), int(count.sum())) for number in count] for count in counts]
    return [Bar(name, lengths[row], [cells[row] for cells in shares]) for row, name in enumerate(names)]


def _scale(values: Numbers) -> Any:
    """Values as shares of the largest, as lists; 0 where they are undefined."""
    known = np.nan_to_num(values.astype(np.float64))
    return (known / (known.max() or 1)).tolist()
