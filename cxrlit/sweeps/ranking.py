"""Rank the jobs of a sweep by validation macro AUROC: a table, and a picture by parameter."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from rich.table import Table

from cxrlit.core.console import format_path, print_table, say
from cxrlit.core.files import hold_lock, replace_file, write_csv
from cxrlit.html.figures import drawing, wrap_name
from cxrlit.sweeps.record import FOLD, LEVER, Record, read_records

STATUSES = ("done", "pruned", "failed")
"""Statuses in the order of the table."""
N_SHOWN = 20
SEED = "seed"


def update_ranking(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Write ``ranking.csv`` and ``ranking.png`` for the jobs that have ended.

    Args:
        folder: The folder of the sweep.

    Returns:
        The table of ``ranking.csv``, and its columns that the sweep varies.
    """
    path = folder / "ranking.csv"
    with hold_lock(path, "waiting for another job that writes the ranking"):
        records = read_records(folder)
        table, keys = rank_records(records), list_swept_keys(records)
        write_csv(path, table)
        with drawing():
            draw_ranking(table, keys, folder / "ranking.png")
    return table, keys


def rank_records(records: list[Record]) -> pd.DataFrame:
    """Make a row per job, the best first; jobs that are not done follow without a rank, failed ones last.

    Folds, which test different patients, and ablations have no ranks, and stay in the order of their jobs.

    >>> rank_records([
    ...     Record(job=0, values={"lr": "1"}, status="failed", reason="no"),
    ...     Record(job=1, values={"lr": "2"}, status="done", auroc_macro=0.7),
    ...     Record(job=2, values={"lr": "3"}, status="done", auroc_macro=0.8),
    ... ])[["rank", "job", "lr", "status", "reason", "auroc_macro"]]
       rank  job lr  status reason  auroc_macro
    0     1    2  3    done                 0.8
    1     2    1  2    done                 0.7
    2  <NA>    0  1  failed     no          NaN
    """
    labels = list(dict.fromkeys(label for record in records for label in record.aurocs))
    keys = list_swept_keys(records)
    ranked = is_ranked(keys)
    ordered = sorted(
        records,
        key=lambda record: (STATUSES.index(record.status), -(record.auroc_macro or 0) * ranked, record.job),
    )
    rows = [
        {
            "rank": rank if ranked and record.status == "done" else None,
            "job": record.job,
            **{key: record.values.get(key) for key in keys},
            "status": record.status,
            "reason": record.reason,
            "auroc_macro": record.auroc_macro,
            **{f"auroc_{label}": record.aurocs.get(label) for label in labels},
            "best_epoch": record.best_epoch,
            "folder": record.folder,
        }
        for rank, record in enumerate(ordered, 1)
    ]
    numbers = ["auroc_macro", *(f"auroc_{label}" for label in labels)]
    return pd.DataFrame(rows).astype({"rank": "Int64", "best_epoch": "Int64", **dict.fromkeys(numbers, float)})


def is_ranked(keys: list[str]) -> bool:
    """Whether a sweep over these keys is ranked."""
    return not {FOLD, LEVER} & set(keys)


def list_swept_keys(records: list[Record]) -> list[str]:
    """List the keys that a sweep varies."""
    return list(dict.fromkeys(key for record in records for key in record.values))


def list_members(ranking: pd.DataFrame, keys: list[str]) -> list[str]:
    """List phase folders that differ from the best one, listed first, only in the seed; empty unless seeds are swept.

    A rejected phase hands on an earlier one at another image size, so it is no member unless the best is rejected too.

    Args:
        ranking: The table of ``ranking.csv``.
        keys: Its columns that the sweep varies.
    """
    if SEED not in keys or ranking["status"].iloc[0] != "done":
        return []
    same = ranking["status"].eq("done") & ranking["reason"].eq("").eq(ranking["reason"].iloc[0] == "")
    for key in keys:
        same &= (ranking[key] == ranking[key].iloc[0]) | (key == SEED)
    return ranking.loc[same, "folder"].tolist()


def print_ranking(ranking: pd.DataFrame, keys: list[str], folder: Path) -> None:
    """Print the first rows of a ranking, and the path of the full table."""
    ranked = is_ranked(keys)
    table = Table(title=f"{'By validation' if ranked else 'Validation'} macro AUROC", title_justify="left")
    for column in ("rank", "job", *keys, "AUROC", "best epoch", "folder"):
        table.add_column(column, justify="left" if column == "folder" else "right", overflow="fold")
    for _, row in ranking.head(N_SHOWN).iterrows():
        score = "" if pd.isna(row["auroc_macro"]) else f"{row['auroc_macro']:.4f}"
        epoch = "" if pd.isna(row["best_epoch"]) else str(row["best_epoch"])
        where = f"{row['status']}: {row['reason']}" if row["status"] != "done" else row["folder"]
        if row["status"] == "done" and row["reason"]:
            where += f" ({row['reason']})"
        rank = "" if pd.isna(row["rank"]) else str(row["rank"])
        table.add_row(rank, str(row["job"]), *(row[key] or "" for key in keys), score, epoch, where)
    print_table(table)
    more = f"; {len(ranking) - N_SHOWN} more are there" if len(ranking) > N_SHOWN else ""
    say(f"{'Ranking' if ranked else 'Jobs'}: {format_path(folder / 'ranking.csv')} and ranking.png{more}")


LOG_SPAN = 10
"""Ratio above which positive numbers are drawn on a log scale."""
LETTER = 0.034
"""Width of a tick label's letter, as a share of the panel's width."""
MAX_LETTERS = 30
"""Most letters of all names below a panel, else they are rotated; and of one rotated name."""
LOG_KEYS = ("lr", "weight_decay")


def draw_ranking(ranking: pd.DataFrame, keys: list[str], path: Path) -> None:
    """Draw a panel for each key that a sweep varies; nothing if no job has a score.

    Args:
        ranking: The table of ``ranking.csv``.
        keys: Its columns that are keys.
        path: PNG to write.
    """
    scored = ranking[ranking["auroc_macro"].notna()]
    if scored.empty or not keys:
        return
    n_columns = min(len(keys), 4)
    n_rows = -(-len(keys) // n_columns)
    figure = Figure(figsize=(1 + 3.6 * n_columns, 0.6 + 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(keys) :]:
        axes.set_visible(False)
    for key, axes in zip(keys, panels.flat, strict=False):
        _draw_panel(axes, scored, key)
    for row in panels:
        row[0].set_ylabel("validation macro AUROC")
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    with replace_file(path) as staged:
        figure.savefig(staged, dpi=110)


def is_log(key: str, values: "pd.Series[float]") -> bool:
    """Whether a parameter is drawn on a log scale."""
    lowest, highest = values.min(), values.max()
    return bool(lowest > 0 and (key.rpartition(".")[2] in LOG_KEYS or highest > LOG_SPAN * lowest))


def has_room(ticks: NDArray[Any], log: bool) -> bool:
    """Whether each of some sorted numbers has room for its own tick label.

    >>> has_room(np.array([1e-5, 1e-4, 1e-3]), log=True), has_room(np.array([1e-5, 1.2e-5, 1e-3]), log=True)
    (True, False)
    """
    places = np.log(ticks) if log else ticks
    letters = max(len(f"{tick:g}") for tick in ticks)
    return bool(np.all(np.diff(places) >= LETTER * letters * (places[-1] - places[0])))


def _draw_panel(axes: Axes, scored: pd.DataFrame, key: str) -> None:
    numbers = pd.to_numeric(scored[key], errors="coerce")
    is_number = bool(numbers.notna().all())
    names = sorted(scored[key].fillna("").unique())
    x = numbers if is_number else scored[key].fillna("").map(names.index)
    if is_number and is_log(key, numbers):
        axes.set_xscale("log")
    if not is_number:
        is_long = max(map(len, names)) * len(names) > MAX_LETTERS
        look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
        axes.set_xticks(range(len(names)), [wrap_name(name, MAX_LETTERS, 1) for name in names], **look)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif has_room(ticks := np.unique(numbers), log=axes.get_xscale() == "log"):
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    elif axes.get_xscale() == "log":
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if ticks[-1] < 100 * ticks[0] else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    done, pruned = (scored["status"] == status for status in ("done", "pruned"))
    axes.scatter(x[done], scored["auroc_macro"][done], color="C0", alpha=0.8, label="done")
    if pruned.any():
        axes.scatter(
            x[pruned], scored["auroc_macro"][pruned], facecolors="none", edgecolors="gray", label="pruned, best so far"
        )
    if done.any() and scored["rank"].notna().any():
        axes.scatter(
            x[done].iloc[0], scored["auroc_macro"][done].iloc[0], marker="*", s=180, color="C3", zorder=3, label="best"
        )
    axes.margins(y=0.12)  # keeps the star whole
    axes.set_xlabel(key)
    axes.grid(alpha=0.3)
