"""The jobs of a sweep by validation macro AUROC: a table, and a picture of it by parameter."""

from pathlib import Path

import pandas as pd
from rich.table import Table

from cxrlit.core.console import print_table, say, show_path
from cxrlit.core.files import hold_lock, write_csv
from cxrlit.sweeps.picture import draw_ranking
from cxrlit.sweeps.record import Record, read_records

STATUSES = ("done", "pruned", "failed")
"""In the order of the table."""
N_SHOWN = 20


def update_ranking(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Write ``ranking.csv`` and ``ranking.png`` of the jobs that have ended so far.

    Args:
        folder: The folder of the sweep.

    Returns:
        The table of ``ranking.csv``, and those of its columns that the sweep varies.
    """
    path = folder / "ranking.csv"
    with hold_lock(path, "waiting for another job that writes the ranking"):
        records = read_records(folder)
        table, keys = rank_records(records), list_keys(records)
        write_csv(path, table)
        draw_ranking(table, keys, folder / "ranking.png")
    return table, keys


def rank_records(records: list[Record]) -> pd.DataFrame:
    """A row a job, the best first; what is not done has no rank and comes after, failures last.

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
    keys = list_keys(records)
    ordered = sorted(
        records, key=lambda record: (STATUSES.index(record.status), -(record.auroc_macro or 0), record.job)
    )
    rows = [
        {
            "rank": rank if record.status == "done" else None,
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


def list_keys(records: list[Record]) -> list[str]:
    """The keys that a sweep varies."""
    return list(dict.fromkeys(key for record in records for key in record.values))


def print_ranking(ranking: pd.DataFrame, keys: list[str], folder: Path) -> None:
    """The first rows of a ranking on the screen, and where all of it is."""
    table = Table(title="By validation macro AUROC", title_justify="left")
    for column in ("rank", "job", *keys, "AUROC", "best epoch", "folder"):
        table.add_column(column, justify="left" if column == "folder" else "right", overflow="fold")
    for _, row in ranking.head(N_SHOWN).iterrows():
        score = "" if pd.isna(row["auroc_macro"]) else f"{row['auroc_macro']:.4f}"
        epoch = "" if pd.isna(row["best_epoch"]) else "start" if row["best_epoch"] < 0 else f"{row['best_epoch'] + 1}"
        where = f"{row['status']}: {row['reason']}" if row["status"] != "done" else row["folder"]
        rank = "" if pd.isna(row["rank"]) else str(row["rank"])
        table.add_row(rank, str(row["job"]), *(row[key] or "" for key in keys), score, epoch, where)
    print_table(table)
    more = f"; {len(ranking) - N_SHOWN} more are there" if len(ranking) > N_SHOWN else ""
    say(f"Ranking: {show_path(folder / 'ranking.csv')} and ranking.png{more}")
