"""From a template to a page of one file.

The content policy of a page names its one style sheet and its script, if it has one, by their hashes, so that a name in
a table that slipped through as markup could still neither run nor load anything.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxrlit.core.notice import make_notice
from cxrlit.html.section import Section, walk
from cxrlit.html.text import escape_unprintable

SHARED = Path(__file__).parent
NAME = re.compile("[a-z0-9][a-z0-9_-]*")


def render_page(folder: Path, stem: str, /, **values: Any) -> str:
    """A page.

    Args:
        folder: Where its template ``<stem>.html``, which extends ``base.html``, its own style ``<stem>.css`` and, if it
            has one, its script ``<stem>.js`` are. The script may ask the address that the page came from, no other.
        stem: See there.
        **values: What the template asks for; ``title`` is the name of the page.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (SHARED / "base.css", folder / f"{stem}.css"))
    path = folder / f"{stem}.js"
    script = path.read_text(encoding="utf-8") if path.is_file() else ""
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    return make_environment(folder).get_template(f"{stem}.html").render(style=style, script=script, **hashes, **values)


def render_sections(title: str, lines: Sequence[str], sections: Sequence[Section], names_patients: bool = False) -> str:
    """A page of sections. The same input gives the same bytes.

    Args:
        title: Its name, and its heading.
        lines: Below the heading.
        sections: What is on it; the heading links to them.
        names_patients: Whether patients are named on it. Where one of the sections has images, it shows them.

    Raises:
        ValueError: An anchor, the name of a picture or the caption of a table is there twice or cannot be one, or a
            table names a column that it lacks.
    """
    _check_names(sections)
    notice = make_notice(names_patients or any(section.images for section in walk(sections)))
    return render_page(SHARED, "sections", title=title, lines=lines, notice=notice, sections=sections)


def make_environment(folder: Path, finish: Callable[[Any], Any] | None = None) -> Environment:
    """Where templates are found: in a folder, and what all pages share; everything in them is escaped.

    Args:
        folder: Of the templates.
        finish: What is done to each value that a template shows; None: its text is made printable.
    """
    return Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finish or _finish,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finish(value: Any) -> Any:
    """Every text on the page is printable; what is marked as HTML is our own."""
    return escape_unprintable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _check_names(sections: Sequence[Section]) -> None:
    everything = list(walk(sections))
    anchors = [section.anchor for section in everything]
    pictures = [picture.name for section in everything for picture in section.pictures]
    captions = [table.caption for section in everything for table in section.tables]
    for what, names in (("anchor", anchors), ("picture", pictures), ("table", captions)):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two sections of the page have the {what} {twice[0]!r}")
        odd = [name for name in names if what != "table" and not NAME.fullmatch(name)]
        if odd:
            raise ValueError(
                f"{odd[0]!r} cannot be the name of a {what}: lower-case letters, digits, hyphens, underscores"
            )
