"""Report a sweep over the folds of a cross-validation: out-of-fold predictions and a table, without ranks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, print_table, progress_steps, say
from cxrlit.core.errors import name_some
from cxrlit.core.files import write_csv
from cxrlit.evaluation.cross_validation import measure_folds, pool_folds, read_fold, summarize_folds
from cxrlit.evaluation.predictions import list_labels, write_predictions
from cxrlit.sweeps.ranking import list_swept_keys
from cxrlit.sweeps.record import FOLD, Record, read_records

TABLE = "folds.csv"


def report_folds(folder: Path) -> None:
    """Write and print the table over the folds for each setting of the other keys, and name missing folds.

    Args:
        folder: The folder of the sweep, for ``folds.csv`` and the out-of-fold predictions of each setting.

    Raises:
        DataError: An evaluation cannot be read.
    """
    records = read_records(folder)
    for line in describe_missing(records):
        say(line, style="yellow")
    others = [key for key in list_swept_keys(records) if key != FOLD]
    settings = group_folds([record for record in records if record.evaluation is not None])
    if not settings:
        say("No fold was evaluated, so there is no table over the folds: evaluate=true asks for it")
        return
    tables = []
    with progress_steps(len(settings)) as step:
        for number, (values, members) in enumerate(settings.items(), start=1):
            step(f"folds of {' '.join(values)}" if values else "folds")
            name = "out_of_fold.csv" if len(settings) == 1 else f"out_of_fold-{number}.csv"
            table = measure_setting(members, folder / name)
            for place, (key, value) in enumerate(zip(others, values, strict=True)):
                table.insert(place, key, value)
            tables.append(table.assign(predictions=name))
    table = pd.concat(tables, ignore_index=True)
    write_csv(folder / TABLE, table)
    print_folds(table, others)
    for caveat in filter(None, table["caveat"].unique()):
        say(f"warning: {caveat}", style="yellow")
    say(f"Table over the folds: {format_path(folder / TABLE)}; out-of-fold predictions are beside it")
    command = format_command(f"evaluate predictions={format_path(folder / tables[0]['predictions'].iloc[0])}")
    say(f"A report of them: {command}")


def group_folds(records: list[Record]) -> dict[tuple[str, ...], list[Record]]:
    """Group the folds by setting (the values of the other keys), in order of first appearance."""
    settings: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings.setdefault(tuple(value for key, value in record.values.items() if key != FOLD), []).append(record)
    return settings


def describe_missing(records: Sequence[Record]) -> list[str]:
    """Write a line on each job that is excluded from a table, or that enters it with the model of an earlier phase."""
    lines = []
    for record in records:
        name = f"job {record.job} ({' '.join(f'{key}={value}' for key, value in record.values.items())})"
        if record.status != "done":
            lines.append(f"warning: {name} {record.status} and is left out: {record.reason}")
        elif record.reason:
            lines.append(f"{name} was {record.reason}: it counts with the model of that phase")
    return lines


def measure_setting(records: list[Record], path: Path) -> pd.DataFrame:
    """Make the table over the folds of one setting.

    Args:
        records: Its evaluated jobs.
        path: File for the out-of-fold predictions.

    Returns:
        The rows of ``measure_folds``, with ``part`` test; before them validation AUROC, which has no pooled value; and
        the caveats as ``caveat``.
    """
    folds = [read_fold(record.values[FOLD], Path(str(record.evaluation))) for record in records]
    pooled = pool_folds(folds)
    write_predictions(path, pooled)
    labels = list_labels(pooled)
    on_validation = [
        pd.Series({**{label: record.aurocs.get(label) for label in labels}, "macro": record.auroc_macro}, dtype=float)
        for record in records
    ]
    validation = pd.DataFrame({"part": "val", "metric": "auroc", "label": [*labels, "macro"]})
    validation = validation.assign(**summarize_folds([values.to_numpy() for values in on_validation]))
    test = measure_folds(folds, pooled).assign(part="test")
    table = pd.concat([validation, test], ignore_index=True)[["part", *test.columns.drop("part")]]
    return table.assign(caveat="; ".join(dict.fromkeys(fold.caveat for fold in folds if fold.caveat)))


def print_folds(table: pd.DataFrame, others: list[str]) -> None:
    """Print the labels of a single setting, or the macros of several, the highest on validation first."""
    is_single = len(set(table["predictions"])) == 1
    names = ["label"] if is_single else [*others, "folds"]
    shown = Table(title="Mean ± standard deviation over the folds; over all patients [95 %]", title_justify="left")
    for name in (*names, "val AUROC", "test AUROC", "over patients", "test F1", "over patients"):
        shown.add_column(name, justify="right")
    rows = table if is_single else table[table["label"] == "macro"]
    lines = []
    for (_, label), found in rows.groupby(["predictions", "label"], sort=False):
        cells: Any = found.set_index(["part", "metric"])
        val, area, score = (cells.loc[key] for key in (("val", "auroc"), ("test", "auroc"), ("test", "f1")))
        head = [str(label)] if is_single else [*map(str, val[others]), str(val["n_folds"])]
        texts = [text for row in (area, score) for text in (_say_spread(row), say_interval(row, "pooled"))]
        lines.append((0 if is_single else -np.nan_to_num(val["mean"]), [*head, _say_spread(val), *texts]))
    for _, line in sorted(lines, key=lambda line: line[0]):
        shown.add_row(*line)
    print_table(shown)
    bare = table[(table["reason"].fillna("") != "") & (table["part"] == "test")]
    for (metric, reason), found in bare.groupby(["metric", "reason"], sort=False):
        say(f"{metric} over patients of {name_some(found['label'].unique().tolist())} has no interval: {reason}")


def _say_spread(row: "pd.Series[float]") -> str:
    if pd.isna(row["mean"]):
        return ""
    return f"{row['mean']:.4f}" + ("" if pd.isna(row["sd"]) else f" ± {row['sd']:.4f}")


def say_interval(row: "pd.Series[float]", name: str, form: str = ".4f") -> str:
    """Format a value with its interval; empty if it is undefined.

    Args:
        row: The value, and the bounds ``low`` and ``high``.
        name: Name of the value.
        form: Format of the numbers.

    >>> say_interval(pd.Series({"change": 0.01, "low": -0.002, "high": 0.022}), "change", "+.3f")
    '+0.010 [-0.002, +0.022]'
    """
    if pd.isna(row[name]):
        return ""
    return f"{row[name]:{form}}" + ("" if pd.isna(row["low"]) else f" [{row['low']:{form}}, {row['high']:{form}}]")
