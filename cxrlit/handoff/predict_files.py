"""``cxrlit predict``: a bundle on files and folders, into one table. Killed at any moment, the same command goes on.

The rows go into a journal beside the table, batch by batch, and into the table at the end. Memory holds the names of
the files and a few batches, however many files there are.
"""

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import cxrlit
from cxrlit.core.console import format_path, print_table, say
from cxrlit.core.errors import DataError, format_count
from cxrlit.core.files import NotAFileError, hold_lock, open_regular, replace_file, sweep_staged, write_bytes
from cxrlit.core.notice import RESEARCH_USE
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.engine import Engine, PredictOptions, open_local
from cxrlit.handoff.journal import Row, name_journal, open_journal, read_journal
from cxrlit.handoff.read_inputs import Listed, list_files

TABLE_STARTS = (b"file,reason,warnings,", b'{"file": ')
"""Of a table, as CSV and as JSON."""
UNREADABLE, DOUBTFUL = "could not be read", "may be no such radiographs"
PICTURE = re.compile(r"\d{6}-.*\.png", re.DOTALL)


def predict_files(options: PredictOptions) -> None:
    """Predict, write the table, and print a summary.

    Raises:
        CXRLitError: The bundle cannot be used, a name is not there, or no file at all could be read.
    """
    out = options.out.expanduser().absolute()
    check_out(out)
    own = (f"{out}{os.sep}", f"{name_pictures(out)}{os.sep}")  # the table of an earlier run, and its heatmaps
    listed = list_files(options.files)
    files = [file for file in listed if not f"{os.path.abspath(file.path)}{os.sep}".startswith(own)]
    if not files:
        raise DataError(f"{', '.join(map(str, options.files))}: there is no file in it")
    with _open_engine(options) as engine, hold_lock(out, f"waiting: another process is writing {format_path(out)}"):
        say(
            f"{engine.bundle.config.title} on {len(files):,} files: {engine.description}, "
            f"{format_count(engine.batch_size, 'image')} at once"
        )
        predict_all(engine, files, out, options)
        summary = Summary()
        journal = name_journal(out)
        write_rows(out, summary.count(read_journal(journal)), engine.bundle.labels, options)
        journal.unlink()
    print_summary(summary, engine.bundle)
    say(f"The predictions are in {format_path(out)}")
    if not summary.n_done:
        raise DataError(f"{out}: no file could be read; its column reason says why")


def _open_engine(options: PredictOptions) -> AbstractContextManager[Engine]:
    if options.engine == "local":
        return open_local(options)
    from cxrlit.handoff.ray_engine import open_ray

    return open_ray(options)


def predict_all(engine: Engine, files: Sequence[Listed], out: Path, options: PredictOptions) -> None:
    """Write a row for each file into the journal of the table, in their order; what it has is not done again."""
    subject = {
        "cxrlit": cxrlit.__version__,
        "bundle": engine.bundle.digest,
        "files": hash_files(files),
        "backend": engine.backend,
        "batch_size": options.batch_size,
        "heatmaps": options.heatmaps,
    }
    pictures = name_pictures(out)
    with open_journal(name_journal(out), subject) as journal, progress_files(len(files), journal.n_rows) as advance:
        for batch in engine.predict(files[journal.n_rows :]):
            if options.heatmaps:
                for place, one in enumerate(batch, start=journal.n_rows):
                    one.row["heatmap"] = keep_picture(one.picture, files[place], pictures, place + 1)
            journal.add([one.row for one in batch])
            advance(len(batch))
    if options.heatmaps and pictures.is_dir():
        sweep_pictures(pictures, {Path(row["heatmap"]).name for row in read_journal(name_journal(out))})


def check_out(out: Path) -> None:
    """Refuse to replace what is no table of predictions.

    Raises:
        DataError: The place of the table is taken, or cannot be.
    """
    if out.is_dir():
        raise DataError(f"--out {out}: it is a folder: name a file, such as {out / 'preds.csv'}")
    if os.path.lexists(out):
        try:
            with open_regular(out) as file:
                start = file.read(max(map(len, TABLE_STARTS)))
        except NotAFileError:
            raise DataError(f"--out {out}: it is no file: name another place") from None
        if start and not start.startswith(TABLE_STARTS):
            raise DataError(f"--out {out}: it exists, and is no table of predictions: name another file")


def name_pictures(out: Path) -> Path:
    """The folder of the heatmaps that belong to a table."""
    return out.with_name(f"{out.stem}-heatmaps")


def hash_files(files: Iterable[Listed]) -> str:
    """SHA-256 of the names of files, and of what changes when one of them does, as 64 hex digits."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file.path)
        except (OSError, ValueError):  # it is not there
            changing = [0, 0]
        else:
            changing = [status.st_size, status.st_mtime_ns]
        digest.update(json.dumps([file.path, *changing]).encode())
    return digest.hexdigest()


def sweep_pictures(folder: Path, kept: set[str]) -> None:
    """Remove the heatmaps of other names than these, and what a killed command left under way."""
    for path in folder.iterdir():
        if PICTURE.fullmatch(path.name) and path.name not in kept:
            path.unlink()
    sweep_staged(folder)


def keep_picture(picture: bytes, file: Listed, folder: Path, number: int) -> str:
    """Write the heatmaps of a file; returns the picture's path relative to the table, empty where there is none."""
    if not picture:
        return ""
    name = "".join(c if c.isprintable() else "_" for c in Path(file.path).stem)
    path = folder / f"{number:06d}-{name[:80]}.png"
    write_bytes(path, picture)
    return f"{folder.name}/{path.name}"


def write_rows(out: Path, rows: Iterable[Row], labels: tuple[str, ...], options: PredictOptions) -> None:
    """The table; its floats read back to the same bits, also those of float32 where they are read as float64."""
    with replace_file(out) as staged, staged.open("w", encoding="utf-8", newline="") as file:
        if options.as_json:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
            return
        names = [f"{kind}_{label}" for kind in ("prob", "calibrated", "pred") for label in labels]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "reason", "warnings", "precision", *names, *(["heatmap"] if options.heatmaps else [])])
        for row in rows:
            cells: list[Any] = [row["file"], row["reason"], "; ".join(row["warnings"]), row["precision"]]
            for kind in ("probs", "calibrated"):
                cells += [repr(row[kind][label]) if row[kind] else "" for label in labels]
            cells += [{True: "1", False: "0"}.get(row["preds"].get(label), "") for label in labels]
            writer.writerow([*cells, *([row["heatmap"]] if options.heatmaps else [])])


@dataclass
class Summary:
    """What the rows of a table say together.

    Attributes:
        n_rows: Files.
        n_done: Files that could be read.
        n_present: By label: files in which it is called present.
        n_faults: By kind of fault: files that have one.
        examples: By kind of fault: the first of them, and what is wrong.
        first: The first row of a file that could be read.
    """

    n_rows: int = 0
    n_done: int = 0
    n_present: Counter[str] = field(default_factory=Counter)
    n_faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    first: Row | None = None

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, counted on their way."""
        for row in rows:
            self.n_rows += 1
            if row["reason"]:
                self._note(UNREADABLE, row, row["reason"])
            else:
                self.n_done += 1
                self.first = self.first or row
                self.n_present.update(label for label, is_present in row["preds"].items() if is_present)
                if row["warnings"]:
                    self._note(DOUBTFUL, row, "; ".join(row["warnings"]))
            yield row

    def _note(self, kind: str, row: Row, what: str) -> None:
        self.n_faults[kind] += 1
        self.examples.setdefault(kind, f"{row['file']}: {what}")


def print_summary(summary: Summary, bundle: Bundle) -> None:
    """What was found: of one file its probs, of several how many are called present."""
    one = summary.first if summary.n_rows == 1 else None
    table = Table(
        *(["label", "probability", "calibrated", "threshold", "present"] if one else ["label", "threshold", "present"])
    )
    for label, threshold in bundle.thresholds.items():
        cells = ["none" if threshold is None else f"{threshold:.3f}"]
        if one:
            pred = {True: "yes", False: "no", None: ""}[one["preds"][label]]
            table.add_row(label, f"{one['probs'][label]:.3f}", f"{one['calibrated'][label]:.3f}", *cells, pred)
        else:
            table.add_row(label, *cells, f"{summary.n_present[label]:,} of {summary.n_done:,}")
    if summary.n_done:
        print_table(table)
    for kind, example in sorted(summary.examples.items()):
        n_faults = summary.n_faults[kind]
        say(f"warning: {n_faults:,} of {summary.n_rows:,} files {kind}, such as {example}", style="yellow")
    say(RESEARCH_USE)


@contextmanager
def progress_files(n_files: int, n_done: int) -> Iterator[Any]:
    """A progress bar over files; where the output is no terminal, nothing.

    Yields:
        A function that is told how many more are done.
    """
    columns = (TextColumn("Predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = get_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=n_files, completed=n_done)
        yield lambda n_more: progress.advance(task, n_more)
