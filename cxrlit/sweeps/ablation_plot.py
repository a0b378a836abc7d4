"""Draw an ablation: the macros with their intervals, and each label's change."""

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cxrlit.html.figures import BLUE, FAINT, GREEN, INK, ORANGE, PAPER, RED, name_rows, wrap_name

SERIES = (
    ("test", "auroc", "test AUROC", "o", BLUE),
    ("val", "auroc", "validation AUROC", "s", GREEN),
    ("test", "f1", "test F1", "D", ORANGE),
    ("val", "f1", "validation F1", "^", FAINT),
)
ROW, CELL = 0.62, 0.72
"""Height of a lever's row and width of a label's cell, inches."""
LEFT, PANEL, GAP, RIGHT, TOP, BOTTOM = 1.5, 3.4, 0.25, 0.7, 0.95, 0.85


def draw_ablation(table: pd.DataFrame) -> Figure:
    """Draw the changes: a row per lever, with its time below its name.

    Args:
        table: The table of ``ablation.csv``.
    """
    levers = table["lever"].unique().tolist()
    areas = table[(table["part"] == "test") & (table["metric"] == "auroc")]
    labels = [label for label in areas["label"].unique() if label != "macro"]
    inner = ROW * len(levers)
    width, height = LEFT + PANEL + GAP + CELL * len(labels) + RIGHT, TOP + inner + BOTTOM
    figure = Figure(figsize=(width, height))

    def place(left: float, inches: float) -> tuple[float, float, float, float]:
        return left / width, BOTTOM / height, inches / width, inner / height

    forest = figure.add_axes(place(LEFT, PANEL))
    for number, (part, metric, name, marker, color) in enumerate(SERIES):
        rows = table[(table["part"] == part) & (table["metric"] == metric) & (table["label"] == "macro")]
        rows = rows.set_index("lever").loc[levers]
        heights = np.arange(len(levers)) + 0.18 * (number - (len(SERIES) - 1) / 2)
        forest.hlines(heights, rows["low"], rows["high"], color=color, linewidth=1.3)
        forest.plot(rows["change"], heights, marker, color=color, markersize=4.5, label=name)
    forest.axvline(0, color=FAINT, linewidth=1)
    seconds = table[table["metric"] == "seconds"].set_index("lever")
    name_rows(forest, levers)
    shares = {lever: say_share(seconds.loc[lever]) for lever in levers}
    forest.set_yticks(
        range(len(levers)),
        [f"{wrap_name(lever, 21, 1)}\n{share and f'{share} time'}" for lever, share in shares.items()],
    )
    forest.set_xlabel("change of the macro, 95 % over patients and trainings")
    figure.legend(loc="lower left", bbox_to_anchor=(0.02, 0), ncols=len(SERIES), frameon=False)

    grid = figure.add_axes(place(LEFT + PANEL + GAP, CELL * len(labels)))
    cells = areas.set_index(["lever", "label"]).reindex(pd.MultiIndex.from_product([levers, labels]))
    changes, low, high = (cells[key].to_numpy(float).reshape(len(levers), -1) for key in ("change", "low", "high"))
    reach = max(np.nanmax(np.abs(changes), initial=0), 0.01)
    colors = LinearSegmentedColormap.from_list("change", [RED, PAPER, BLUE])
    grid.imshow(changes, cmap=colors, vmin=-1.6 * reach, vmax=1.6 * reach, aspect="auto")  # pale, for legible text
    excludes = (low > 0) | (high < 0)
    for (row, column), change in np.ndenumerate(changes):
        if not np.isnan(change):
            weight = "bold" if excludes[row, column] else "normal"
            grid.text(column, row, f"{change:+.3f}", ha="center", va="center", color=INK, fontsize=8, fontweight=weight)
    grid.set_xticks(
        range(len(labels)), [wrap_name(label, 20, 1) for label in labels], rotation=35, ha="left",
        rotation_mode="anchor", color=INK,
    )  # fmt: skip
    grid.xaxis.tick_top()
    grid.tick_params(length=0)
    grid.set_yticks([])
    grid.set_ylim(*forest.get_ylim())
    grid.grid(visible=False)
    grid.spines[:].set_visible(False)
    grid.set_xlabel("change of test AUROC; bold: its interval excludes 0")
    return figure


def say_share(row: "pd.Series[float]") -> str:
    """Format how much more time a lever takes than the baseline; empty if unknown.

    >>> say_share(pd.Series({"value": 90.0, "baseline": 120.0}))
    '-25 %'
    """
    if pd.isna(row["value"]) or not row["baseline"]:
        return ""
    return f"{row['value'] / row['baseline'] - 1:+.0%}".replace("%", " %")
