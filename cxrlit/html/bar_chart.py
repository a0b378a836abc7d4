"""Horizontal bar charts, one row per name: single, grouped or stacked bars."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from cxrlit.html.figures import make_axes, name_rows
from cxrlit.html.text import format_number

COUNTS = FuncFormatter(lambda value, _: format_number(round(value)))


def draw_bars(
    names: Sequence[str],
    values: Mapping[str, ArrayLike],
    colors: Sequence[str],
    x_label: str,
    *,
    stacked: bool = False,
    ticks: Formatter = COUNTS,
) -> Figure:
    """Draw the bars.

    Args:
        names: Names of the N rows, top to bottom.
        values: (N,) bar lengths by legend entry; NaN: no bar.
        colors: Colour of each legend entry, in order; extra colours are ignored.
        x_label: Name of the x axis.
        stacked: Stack the bars of a row.
        ticks: Number format of the x axis; by default counts.
    """
    n_beside = 1 if stacked else len(values)
    bottom = 0.8 if len(values) > 1 else 0.55
    inches = 0.23 + 0.1 * n_beside
    figure, axes = make_axes(5.0, 0.1 + bottom + inches * len(names), left=1.45, right=0.2, top=0.1, bottom=bottom)
    left = np.zeros(len(names))
    for number, ((name, of), color) in enumerate(zip(values.items(), colors, strict=False)):
        lengths = np.nan_to_num(np.asarray(of, float))
        places = np.arange(len(names)) + 0.7 / n_beside * (0 if stacked else number - (n_beside - 1) / 2)
        axes.barh(places, lengths, 0.7 / n_beside, left, color=color, label=name)
        left += lengths if stacked else 0
    name_rows(axes, names)
    axes.xaxis.set_major_formatter(ticks)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=ticks is COUNTS, steps=[1, 2, 5, 10]))
    axes.set_xlabel(x_label)
    if len(values) > 1:
        figure.legend(loc="lower center", ncols=len(values), frameon=False, handlelength=1, columnspacing=1.2)
    return figure
