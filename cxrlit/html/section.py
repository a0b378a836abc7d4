"""What a page is made of: sections, and the tables, pictures and images in them."""

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
        figure: Made within ``figures.drawing``, so that it looks like the others.
        name: Of its file, without the ending: lower-case letters, digits, hyphens, underscores.
        alt: What it shows, for who cannot see it: the finding, not the kind of chart.
        caption: Beside it; empty: none.
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
        """``tile``: several stand beside each other; ``wide``: it has a row of its own."""
        return "tile" if self.figure.get_figwidth() <= TILE else "wide"


@dataclass(frozen=True)
class Image:
    """A PNG or JPEG, such as a radiograph or a heatmap over it.

    Attributes:
        content: Bytes of the file.
        alt: What it shows.
        caption: Lines below it.
        width: Pixels on the page; None: as wide as there is room.
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
    """A section; what it holds is shown in this order.

    Attributes:
        title: Its heading.
        anchor: Its address on the page: lower-case letters, digits, hyphens, underscores.
        paragraphs: Sentences.
        concerns: What a reader must not overlook.
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
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    images: Sequence[Image] = ()
    listings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sections: Sequence["Section"] = ()


def walk(sections: Sequence[Section]) -> Iterator[Section]:
    """Each section, then those below it."""
    for section in sections:
        yield section
        yield from walk(section.sections)
