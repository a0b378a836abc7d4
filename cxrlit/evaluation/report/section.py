"""What a section of the report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Column:
    """A column of a table on the page.

    Attributes:
        name: Of the frame's column.
        head: What it is called on the page; None: its name, with spaces.
        low, high: The frame's columns of its interval, which stands beside each number.
        digits: Decimals at least; a number that would be left with fewer than two digits has more. Its interval has
            as many.
        signed: A positive number has a plus.
        is_p: The numbers are p-values.
    """

    name: str
    head: str | None = None
    low: str | None = None
    high: str | None = None
    digits: int = 3
    signed: bool = False
    is_p: bool = False


def span(name: str, head: str | None = None, digits: int = 3, signed: bool = False) -> Column:
    """A column whose interval is in ``<name>_low`` and ``<name>_high``."""
    return Column(name, head, f"{name}_low", f"{name}_high", digits, signed)


@dataclass(frozen=True)
class Table:
    """A table, whose numbers are on the page in full behind the rounded ones, as ``write_csv`` would write them.

    Attributes:
        caption: What it shows; no two tables of a page have the same.
        frame: The numbers. Its column ``x_reason`` says why a cell of ``x`` is blank or lacks its interval; or
            ``reason`` does, of all cells of a row.
        columns: Which of them, in order; None: all, those called ``x_low`` and ``x_high`` as the interval of ``x``.
        n_heads: How many columns name a row.
        n_totals: How many of the last rows stand for all others.
        folded: The reader has to unfold it.
    """

    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column] | None = None
    n_heads: int = 1
    n_totals: int = 0
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        figure: Made within ``pages.pictures.drawing``, so that it looks like the others.
        name: Of its file in ``figures/``, without the ending: lower-case letters, digits, hyphens, underscores.
        alt: What it shows, for who cannot see it: the finding, not the kind of chart.
        caption: Beside it; empty: none.
    """

    figure: Figure
    name: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Image:
    """A PNG or JPEG file that is there already, such as a heatmap over its radiograph.

    Attributes:
        path: Of the file.
        alt: What it shows.
        caption: Beside it; empty: none.
    """

    path: Path
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A section; what it holds is shown in this order.

    Attributes:
        title: Its heading.
        anchor: Its address on the page: lower-case letters, digits, hyphens, underscores.
        paragraphs: Sentences.
        concerns: What a reader must not overlook.
        facts: Names and texts; ``facts_caption`` says of what.
        tables: See ``Table``.
        pictures: See ``Picture``.
        images: See ``Image``.
        listings: Text of many lines by its name, which the reader has to unfold.
        notes: Small print.
        sections: Those below it.
    """

    title: str
    anchor: str
    paragraphs: Sequence[str] = ()
    concerns: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    facts_caption: str = "Facts"
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    images: Sequence[Image] = ()
    listings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sections: Sequence["Section"] = ()
