"""Forest plots: values with intervals, one row per label, for one series or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxrlit.html.figures import BLUE, FAINT, make_axes, name_rows

MARKERS = "osD^v<>pX*"


@dataclass(frozen=True)
class Series:
    """One dot per row.

    Attributes:
        name: Name in the legend.
        rows: ``value``, ``low``, ``high`` of each row, in the order of the names; NaN: no dot.
        color: Colour of the dots.
    """

    name: str
    rows: pd.DataFrame
    color: str = BLUE


def draw_forest(
    names: Sequence[str],
    series: Sequence[Series],
    x_label: str,
    *,
    chance: float | None = None,
    zero: bool = False,
    tolerated: float | None = None,
) -> Figure:
    """Draw dots with their intervals.

    Args:
        names: Names of the rows, top to bottom; the last row is the summary.
        series: The series to draw.
        x_label: Name of the x axis.
        chance: Value of chance level, marked if it is near the data.
        zero: Mark 0, which means no change.
        tolerated: Mark the largest tolerated change.
    """
    inches = 0.22 + 0.09 * len(series)
    n_lines = -(-len(series) // 3)
    bottom = 0.57 + 0.18 * n_lines
    figure, axes = make_axes(5.0, 0.1 + bottom + inches * len(names), left=1.45, top=0.1, bottom=bottom)
    shift = 0.7 / len(series)
    for number, one in enumerate(series):
        values, low, high = (one.rows[key].to_numpy(float) for key in ("value", "low", "high"))
        heights = np.arange(len(names)) + shift * (number - (len(series) - 1) / 2)
        marker = MARKERS[number % len(MARKERS)]
        axes.hlines(heights, low, high, color=one.color, linewidth=1.3)  # an interval need not contain its value
        axes.plot(values, heights, marker, color=one.color, markersize=4.5, label=one.name)
    axes.axhline(len(names) - 1.5, color=FAINT, linewidth=0.7)
    name_rows(axes, names)
    if zero:
        axes.axvline(0, color=FAINT, linewidth=1)
    if tolerated is not None:
        axes.axvline(tolerated, color=FAINT, linewidth=1, linestyle=":")
    if chance is not None and axes.get_xlim()[0] < chance + 0.05:
        axes.axvline(chance, color=FAINT, linewidth=1, linestyle=":")
    axes.set_xlabel(x_label)
    if len(series) > 1:
        figure.legend(loc="lower center", ncols=min(len(series), 3), frameon=False)
    return figure
