"""The parts of a page: sections with tables, pictures and images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from matplotlib.figure import Figure

from cxrlit.html.figures import TILE, embed, encode_svg
from cxrlit.html.tables import Table


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        figure: Made within ``figures.drawing``, for the shared style.
        name: File name without the ending: lower-case letters, digits, hyphens, underscores.
        alt: Text for readers who cannot see it: the finding, not the kind of chart.
        caption: Text beside it; empty: none.
    """

    figure: Figure
    name: str
    alt: str
    caption: str = ""

    @cached_property
    def address(self) -> str:
        """The ``src`` of an ``img``: the drawing as SVG, made once for all pages that show it."""
        return embed(encode_svg(self.figure))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page, pixels."""
        width, height = self.figure.get_size_inches()
        return round(96 * width), round(96 * height)

    @property
    def kind(self) -> str:
        """``tile``: several stand side by side; ``wide``: it has a row of its own."""
        return "tile" if self.figure.get_figwidth() <= TILE else "wide"


@dataclass(frozen=True)
class Image:
    """A PNG or JPEG, such as a radiograph or a heatmap over it.

    Attributes:
        content: Bytes of the file.
        alt: Text for readers who cannot see it.
        caption: Lines below it.
        width: Width on the page, pixels; None: all the room there is.
    """

    content: bytes
    alt: str
    caption: Sequence[str] = ()
    width: int | None = None

    @property
    def address(self) -> str:
        """The ``src`` of an ``img``."""
        return embed(self.content)


@dataclass(frozen=True)
class Section:
    """A section; its parts are shown in the order of the attributes.

    Attributes:
        title: Heading of the section.
        anchor: Address on the page: lower-case letters, digits, hyphens, underscores.
        paragraphs: Paragraphs of text.
        concerns: Warnings that a reader must not overlook.
        tables: Tables, see ``Table``.
        pictures: Charts, see ``Picture``.
        images: Radiographs and heatmaps, see ``Image``.
        listings: Long texts by name, folded until the reader opens them.
        notes: Small print.
        sections: Subsections.
    """

    title: str
    anchor: str
    paragraphs: Sequence[str] = ()
    concerns: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    images: Sequence[Image] = ()
    listings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sections: Sequence["Section"] = ()


def walk(sections: Sequence[Section]) -> Iterator[Section]:
    """Yield each section, followed by its subsections."""
    for section in sections:
        yield section
        yield from walk(section.sections)
