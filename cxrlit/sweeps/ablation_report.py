"""Report an ablation: the change that each lever makes, over patients and trainings, as a table and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from cxrlit.core.console import format_path, print_table, progress_steps, say
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.files import write_bytes, write_csv
from cxrlit.evaluation.compare.changes import Metric
from cxrlit.evaluation.compare.inputs import pair_rows, read_model_predictions
from cxrlit.evaluation.compare.repeated import Pair, measure_repeated
from cxrlit.evaluation.predictions import list_labels, split_arrays
from cxrlit.html.figures import drawing, encode_png
from cxrlit.metrics.bootstrap import Replicates, bootstrap
from cxrlit.sweeps.ablation_plot import draw_ablation, say_share
from cxrlit.sweeps.folds import describe_missing, say_interval
from cxrlit.sweeps.record import BASELINE, FOLD, LEVER, Record, read_records

TABLE, PICTURE = "ablation.csv", "ablation.png"
PARTS = ("val", "test")
METRICS: tuple[Metric, ...] = ("auroc", "f1")

Training = tuple[Record, Record]
"""A job of the baseline, and the job of a lever with the same seed and fold."""


@dataclass(frozen=True)
class Measured:
    """Measurements of an evaluation.

    Attributes:
        metrics: Metrics on resampled patients, by part.
        caveat: Caveat for its results, else empty.
    """

    metrics: dict[tuple[str, Metric], Replicates]
    caveat: str


def report_ablation(folder: Path) -> None:
    """Write and print the change of each lever, and name excluded trainings.

    Args:
        folder: The folder of the sweep, for ``ablation.csv`` and ``ablation.png``.

    Raises:
        DataError: An evaluation cannot be read, or two of them have different images.
    """
    records = read_records(folder)
    for line in describe_missing(records):
        say(line, style="yellow")
    trainings = pair_trainings(records)
    if not trainings:
        say("No lever has a training that is evaluated beside its baseline: there is no table")
        return
    table = tabulate_ablation(trainings)
    write_csv(folder / TABLE, table)
    with drawing():
        write_bytes(folder / PICTURE, encode_png(draw_ablation(table)))
    print_ablation(table)
    if table["caveat"].iloc[0]:
        say(f"warning: {table['caveat'].iloc[0]}", style="yellow")
    say(f"The ablation: {format_path(folder / TABLE)} and {PICTURE}")


def pair_trainings(records: Sequence[Record]) -> dict[str, list[Training]]:
    """Pair each evaluated training of a lever with its baseline, if that is evaluated too."""
    evaluated = [record for record in records if record.evaluation is not None]

    def name(record: Record) -> tuple[tuple[str, str], ...]:
        return tuple((key, value) for key, value in record.values.items() if key != LEVER)

    baselines = {name(record): record for record in evaluated if record.values[LEVER] == BASELINE}
    paired: dict[str, list[Training]] = {}
    for record in evaluated:
        if record.values[LEVER] != BASELINE and name(record) in baselines:
            paired.setdefault(record.values[LEVER], []).append((baselines[name(record)], record))
    return paired


def tabulate_ablation(trainings: Mapping[str, Sequence[Training]]) -> pd.DataFrame:
    """Make the table of ``ablation.csv``.

    Returns:
        The rows of ``measure_repeated`` for each ``lever``, ``part`` and ``metric`` (AUROC; F1 at the thresholds of
        each training); then one with ``metric`` seconds, the training time of the phases up to the goal. ``caveat``
        applies to all of them.
    """
    measured: dict[str, Measured] = {}
    images: dict[tuple[str, str], pd.DataFrame] = {}
    jobs = {record.evaluation: record for pairs in trainings.values() for pair in pairs for record in pair}
    with progress_steps(len(jobs)) as step:
        for record in jobs.values():
            step(f"metrics of job {record.job}")
            measured[str(record.evaluation)] = measure_training(record, images)
    labels = list_labels(next(iter(images.values())))
    tables = []
    for lever, pairs in trainings.items():
        folds: dict[str, list[Training]] = {}
        for pair in pairs:
            folds.setdefault(pair[0].values.get(FOLD, ""), []).append(pair)
        for key in product(PARTS, METRICS):
            blocks: list[list[Pair]] = [
                [(measured[str(old.evaluation)].metrics[key], measured[str(new.evaluation)].metrics[key])
                 for old, new in block]
                for block in folds.values()
            ]  # fmt: skip
            changes = measure_repeated(blocks, labels)
            tables.append(changes.assign(lever=lever, part=key[0], metric=key[1]))
        tables.append(compare_seconds(pairs).assign(lever=lever, part="train", metric="seconds"))
    caveats = dict.fromkeys(one.caveat for one in measured.values() if one.caveat)
    table = pd.concat(tables, ignore_index=True).assign(caveat="; ".join(caveats))
    return table[["lever", "part", "metric", *table.columns.drop(["lever", "part", "metric"])]]


def measure_training(record: Record, images: dict[tuple[str, str], pd.DataFrame]) -> Measured:
    """Measure AUROC and F1 of an evaluation on resampled patients.

    Args:
        record: Record of the training.
        images: The images of each fold and part, filled in by the first training.

    Raises:
        DataError: It cannot be read, or its images or labels differ from those of earlier trainings.
    """
    found: dict[tuple[str, Metric], Replicates] = {}
    for part in PARTS:
        side = read_model_predictions(Path(str(record.evaluation)), part)
        first = images.setdefault((record.values.get(FOLD, ""), part), side.predictions)
        try:
            predictions = pair_rows(side.predictions, first, ("it", "the first training"))
        except DataError as error:
            raise DataError(
                f"{side.path}: other images or labels than those of the first training: remove its folder: {error}"
            ) from None
        if isinstance(side.point, str):
            raise DataError(f"{side.path}: {side.point}: evaluate it anew")
        probs, targets = split_arrays(predictions)
        patients, point = first["patient"].to_numpy(), side.point.only(list_labels(first))
        found[part, "auroc"] = bootstrap(["auroc"], probs, targets, patients)["auroc"]
        scores, thresholds = point.calibrate(probs), point.thresholds.values
        found[part, "f1"] = bootstrap(["f1"], scores, targets, patients, thresholds)["f1"]
    return Measured(found, side.caveat)


def compare_seconds(pairs: Sequence[Training]) -> pd.DataFrame:
    """Compare training times, if all are known, in a row like those of ``measure_repeated``, without label."""
    seconds = pd.DataFrame([(old.seconds, new.seconds) for old, new in pairs], columns=["old", "new"], dtype=float)
    changes = seconds["new"] - seconds["old"]
    unknown = "a phase of an earlier version does not say how long it trained"
    return pd.DataFrame(
        {
            "label": ["all"],
            "baseline": [seconds["old"].mean(skipna=False)],
            "value": [seconds["new"].mean(skipna=False)],
            "change": [changes.mean(skipna=False)],
            "sd": [changes.std(skipna=False)],
            "n_runs": [len(pairs)],
            "reason": [unknown if changes.isna().any() else ""],
        }
    )


def print_ablation(table: pd.DataFrame) -> None:
    """Print the changes of each macro, of the time, and of each label's test AUROC."""
    n_runs = " or ".join(map(str, sorted(set(table["n_runs"]))))
    trainings = "training" if n_runs == "1" else "trainings"
    shown = Table(title=f"Change by each lever, mean of {n_runs} {trainings} [95 %]", title_justify="left")
    heads = {f"{part} {name}": (part, metric) for metric, name in (("auroc", "AUROC"), ("f1", "F1")) for part in PARTS}
    for column in ("lever", *heads, "time"):
        shown.add_column(column, justify="left" if column == "lever" else "right")
    macros: Any = table[table["label"] == "macro"].set_index(["lever", "part", "metric"])
    seconds = table[table["metric"] == "seconds"].set_index("lever")
    levers = table["lever"].unique().tolist()
    for lever in levers:
        cells = [say_interval(macros.loc[(lever, *key)], "change", "+.4f") for key in heads.values()]
        time, share = seconds.loc[lever], say_share(seconds.loc[lever])
        shown.add_row(lever, *cells, share and f"{time['value']:,.0f} s, {share}")
    print_table(shown)
    by_label = Table(title="Change of test AUROC (* the interval excludes 0)", title_justify="left")
    areas = table[(table["part"] == "test") & (table["metric"] == "auroc")]
    labels = areas["label"].unique().tolist()
    for column in ("lever", *labels):
        by_label.add_column(column, justify="left" if column == "lever" else "right")
    for lever in levers:
        rows = areas[areas["lever"] == lever].set_index("label")
        by_label.add_row(lever, *(say_short(rows.loc[label]) for label in labels))
    print_table(by_label)
    bare = table[table["reason"] != ""]
    for reason, found in bare.groupby("reason", sort=False):
        names = (found["lever"] + " " + found["part"] + " " + found["metric"] + " of " + found["label"]).tolist()
        say(f"no interval: {name_some(names, limit=3)}: {reason}")


def say_short(row: "pd.Series[float]") -> str:
    """Format a change with three digits, and a star if its interval excludes 0; empty if undefined."""
    if pd.isna(row["change"]):
        return ""
    return f"{row['change']:+.3f}" + ("*" if row["low"] > 0 or row["high"] < 0 else "")
