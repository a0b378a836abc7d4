"""Render a template as a page in one file.

The content security policy of a page lists its style sheet and its script, if any, by hash. If a name in a table
slipped through as markup, it could still neither run nor load anything.
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
    """Render a page.

    Args:
        folder: Folder of the template ``<stem>.html``, which extends ``base.html``, its style ``<stem>.css`` and, if
            any, its script ``<stem>.js``. The script may send requests to the page's own origin only.
        stem: File name of these files, without the ending.
        **values: Values for the template; ``title`` is the name of the page.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (SHARED / "base.css", folder / f"{stem}.css"))
    path = folder / f"{stem}.js"
    script = path.read_text(encoding="utf-8") if path.is_file() else ""
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    return make_environment(folder).get_template(f"{stem}.html").render(style=style, script=script, **hashes, **values)


def render_sections(title: str, lines: Sequence[str], sections: Sequence[Section], names_patients: bool = False) -> str:
    """Render a page of sections. The same input gives the same bytes.

    Args:
        title: Title and heading of the page.
        lines: Lines below the heading.
        sections: The sections; the heading links to them.
        names_patients: Whether the page names patients. A page with images counts as showing patients in any case.

    Raises:
        ValueError: An anchor, a picture name or a table caption is duplicate or invalid, or a table names a column that
            it lacks.
    """
    _check_names(sections)
    notice = make_notice(names_patients or any(section.images for section in walk(sections)))
    return render_page(SHARED, "sections", title=title, lines=lines, notice=notice, sections=sections)


def make_environment(folder: Path, finish: Callable[[Any], Any] | None = None) -> Environment:
    """A template environment: a folder plus the shared templates, with everything escaped.

    Args:
        folder: Folder of the templates.
        finish: Function applied to each value that a template shows; None: make its text printable.
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
    """Make text printable; leave our own HTML, which is marked as such."""
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
