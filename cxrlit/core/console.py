"""Printing for the commands: lines that never wrap, tables that are never cut."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich import get_console, progress
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table

T = TypeVar("T")


def format_path(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def make_printable(text: str) -> str:
    """Escape control characters and lone surrogates: a name may contain any character."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def say(text: str, style: str | None = None) -> None:
    """Print one line, never wrapped."""
    get_console().print(make_printable(text), style=style, soft_wrap=True, highlight=False, markup=False)


def print_table(table: Table) -> None:
    """Print a table of plain text, without markup; at full width where the output is no terminal."""
    console = get_console()
    if not console.is_terminal:
        unlimited = console.options.update(max_width=10_000, markup=False)
        console = Console(width=Measurement.get(console, unlimited, table).maximum, quiet=console.quiet)
    console.print(_Printable(table), markup=False, crop=False)


class _Printable:
    """A table whose text passes through ``make_printable`` when it is shown."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self.table, options):
            yield Segment(make_printable(text), style, control)


def track(
    steps: Iterable[T],
    description: str,
    *,
    total: float | None = None,
    disable: bool = False,
    transient: bool = False,
) -> Iterable[T]:
    """Rich's progress bar; none in a notebook, where it needs ipywidgets and warns without it.

    Args:
        steps: What to iterate over.
        description: Text before the bar.
        total: Number of steps; None: the length of ``steps``.
        disable: Whether to show no bar.
        transient: Whether the bar disappears at the end.
    """
    disable = disable or get_console().is_jupyter
    return progress.track(steps, description, total=total, disable=disable, transient=transient)


@contextmanager
def progress_steps(n_steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar over a few long steps; none where the output is no terminal, or a notebook.

    Yields:
        A function to call with the name of each step as it begins.
    """
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=get_console(),
        transient=True,
        disable=not get_console().is_terminal or get_console().is_jupyter,
    ) as bar:
        task = bar.add_task("", total=n_steps, completed=-1)

        def begin(name: str) -> None:
            bar.update(task, description=make_printable(name), advance=1)

        yield begin
