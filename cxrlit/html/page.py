"""From a template to a page of one file.

The content policy of a page names its one style sheet by its hash, so that a name in a table that slipped through as
markup could still neither run nor load anything.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxrlit.html.text import escape_unprintable

SHARED = Path(__file__).parent


def render_page(folder: Path, stem: str, /, **values: Any) -> str:
    """A page.

    Args:
        folder: Where its template ``<stem>.html``, which extends ``base.html``, and its own style ``<stem>.css`` are.
        stem: See there.
        **values: What the template asks for; ``title`` is the name of the page.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (SHARED / "base.css", folder / f"{stem}.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return make_environment(folder).get_template(f"{stem}.html").render(style=style, style_hash=digest, **values)


def make_environment(folder: Path) -> Environment:
    """Where templates are found: in a folder, and what all pages share; everything in them is escaped."""
    return Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finish,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finish(value: Any) -> Any:
    """Every text on the page is printable; what is marked as HTML is our own."""
    return escape_unprintable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
