"""``cxrlit predict``: a bundle on files and folders, into one table. Killed at any moment, the same command goes on.

A hidden journal beside the table has a line for each batch, written whole and synced; the table is written from it at
the end. What a journal is of (bundle, files, backend, batches) is its first line: of anything else, it is begun anew.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import cxrlit
from cxrlit.core.console import format_path, make_printable, print_table, say
from cxrlit.core.errors import DataError
from cxrlit.core.files import NotAFileError, hash_value, hold_lock, open_regular, replace_file, sweep_staged, sync
from cxrlit.core.notice import RESEARCH_USE
from cxrlit.handoff.backends.backend import BackendName, Precision
from cxrlit.handoff.predictor import Prediction, Predictor
from cxrlit.handoff.read_inputs import Listed, list_files

Row = dict[str, Any]
TABLE_STARTS = (b"file,reason,warnings,", b'{"file": ')
"""Of a table, as CSV and as JSON."""
PICTURE = re.compile(r"\d{6}-.*\.png", re.DOTALL)


@dataclass(frozen=True)
class PredictOptions:
    """What ``cxrlit predict`` takes.

    Attributes:
        bundle: Folder of the bundle.
        files: Files and folders.
        out: The table.
        backend: torch or onnx.
        precision: fp32 or bf16; None: that of the evaluation, where the machine has it.
        batch_size: None: of torch the one that the model was evaluated with, of onnx 16.
        n_threads: None: one a core.
        heatmaps: Draw them, into a folder beside the table.
        as_json: A JSON object a line in place of CSV.
    """

    bundle: Path
    files: list[Path]
    out: Path
    backend: BackendName
    precision: Precision | None
    batch_size: int | None
    n_threads: int | None
    heatmaps: bool
    as_json: bool


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
    predictor = Predictor.load(
        options.bundle, options.backend, precision=options.precision, n_threads=options.n_threads
    )
    with hold_lock(out, f"waiting: another process is writing {format_path(out)}"):
        say(f"{predictor.bundle.config.title} on {len(files):,} files: {predictor.backend.description}")
        rows = predict_all(predictor, files, out, options)
        write_rows(out, rows, predictor.labels, options)
        name_journal(out).unlink()
    print_summary(rows, predictor)
    say(f"The predictions are in {format_path(out)}")
    if not any(not row["reason"] for row in rows):
        raise DataError(f"{out}: no file could be read; its column reason says why")


def predict_all(predictor: Predictor, files: list[Listed], out: Path, options: PredictOptions) -> list[Row]:
    """A row for each file, in their order; what the journal has is not done again."""
    batch_size = options.batch_size or predictor.backend.batch_size
    subject = {
        "cxrlit": cxrlit.__version__,
        "bundle": predictor.bundle.digest,
        "files": hash_value([stamp(file.path) for file in files], digits=64),
        "backend": predictor.backend.description,
        "batch_size": batch_size,
        "heatmaps": options.heatmaps,
    }
    pictures = name_pictures(out) if options.heatmaps else None
    with open_journal(name_journal(out), subject) as (rows, journal), progress_files(len(files), len(rows)) as advance:
        for batch in predictor.predict_batches(files[len(rows) :], options.heatmaps, batch_size):
            made = [make_row(one) for one in batch]
            if pictures is not None:
                for number, (row, one) in enumerate(zip(made, batch, strict=True), start=len(rows) + 1):
                    row["heatmap"] = draw(one, predictor, pictures, number)
            journal.write(json.dumps(made, allow_nan=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
            rows += made
            advance(len(made))
    if pictures is not None and pictures.is_dir():
        sweep_pictures(pictures, rows)
    return rows


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


def stamp(path: str) -> tuple[str, int, int]:
    """A file's name, and what changes when it does; zeros where it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return path, 0, 0
    return path, status.st_size, status.st_mtime_ns


def sweep_pictures(folder: Path, rows: list[Row]) -> None:
    """Remove the heatmaps of other rows than these, and what a killed command left under way."""
    kept = {Path(row["heatmap"]).name for row in rows}
    for path in folder.iterdir():
        if PICTURE.fullmatch(path.name) and path.name not in kept:
            path.unlink()
    sweep_staged(folder)


def make_row(prediction: Prediction) -> Row:
    """A prediction as plain types."""
    # A name may begin as a formula does, and hold what ends a line: a table is opened in programs that act on both.
    name = make_printable(prediction.path).replace("\n", "\\n")
    return {
        "file": f"./{name}" if name.startswith(("=", "+", "-", "@")) else name,
        "reason": prediction.reason,
        "warnings": list(prediction.warnings),
        "probs": prediction.probs,
        "calibrated": prediction.calibrated,
        "preds": prediction.preds,
    }


def draw(prediction: Prediction, predictor: Predictor, folder: Path, number: int) -> str:
    """Draw the heatmaps of a file; returns the picture's path relative to the table, empty where there is none."""
    from cxrlit.handoff.heatmap_picture import draw_prediction

    if prediction.reason:
        return ""
    name = "".join(c if c.isprintable() else "_" for c in Path(prediction.path).stem)
    path = folder / f"{number:06d}-{name[:80]}.png"
    draw_prediction(prediction, predictor.thresholds, path)
    return f"{folder.name}/{path.name}"


def name_journal(out: Path) -> Path:
    """The journal of a table."""
    return out.with_name(f".{out.name}.journal")


@contextmanager
def open_journal(path: Path, subject: Mapping[str, Any]) -> Iterator[tuple[list[Row], TextIO]]:
    """A journal to go on with, and the rows that it has: those of the batches that were written whole."""
    first = json.dumps(subject, sort_keys=True)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    whole = text.split("\n")[:-1]
    if whole and whole[0] != first:
        say(f"{format_path(path)} is of other files or settings: it is begun anew", style="yellow")
    rows: list[Row] = []
    kept = [first]
    for line in whole[1:] if whole[:1] == [first] else []:
        try:
            rows += json.loads(line)
        except ValueError:
            say(f"{format_path(path)} is damaged: what comes after its line {len(kept)} is done again", style="yellow")
            break
        kept.append(line)
    if rows:
        say(f"{len(rows):,} files are done")
    with replace_file(path) as staged:
        staged.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    with path.open("a", encoding="utf-8") as journal:
        yield rows, journal
    sync(path)


def write_rows(out: Path, rows: list[Row], labels: tuple[str, ...], options: PredictOptions) -> None:
    """The table; its floats read back to the same bits, also those of float32 where they are read as float64."""
    with replace_file(out) as staged, staged.open("w", encoding="utf-8", newline="") as file:
        if options.as_json:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
            return
        names = [f"{kind}_{label}" for kind in ("prob", "calibrated", "pred") for label in labels]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "reason", "warnings", *names, *(["heatmap"] if options.heatmaps else [])])
        for row in rows:
            cells: list[Any] = [row["file"], row["reason"], "; ".join(row["warnings"])]
            for kind in ("probs", "calibrated"):
                cells += [repr(row[kind][label]) if row[kind] else "" for label in labels]
            cells += [{True: "1", False: "0"}.get(row["preds"].get(label), "") for label in labels]
            writer.writerow([*cells, *([row["heatmap"]] if options.heatmaps else [])])


def print_summary(rows: list[Row], predictor: Predictor) -> None:
    """What was found: of one file its probs, of several how many are called present."""
    done = [row for row in rows if not row["reason"]]
    one = done[0] if len(rows) == 1 and done else None
    table = Table(
        *(["label", "probability", "calibrated", "threshold", "present"] if one else ["label", "threshold", "present"])
    )
    for label in predictor.labels:
        threshold = predictor.thresholds[label]
        cells = ["none" if threshold is None else f"{threshold:.3f}"]
        if one:
            pred = {True: "yes", False: "no", None: ""}[one["preds"][label]]
            table.add_row(label, f"{one['probs'][label]:.3f}", f"{one['calibrated'][label]:.3f}", *cells, pred)
        elif done:
            table.add_row(label, *cells, f"{sum(bool(row['preds'][label]) for row in done):,} of {len(done):,}")
    if done:
        print_table(table)
    for kind, chosen in (
        ("could not be read", [f"{row['file']}: {row['reason']}" for row in rows if row["reason"]]),
        (
            "may be no such radiographs",
            [f"{row['file']}: {'; '.join(row['warnings'])}" for row in done if row["warnings"]],
        ),
    ):
        if chosen:
            say(f"warning: {len(chosen):,} of {len(rows):,} files {kind}, such as {chosen[0]}", style="yellow")
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
