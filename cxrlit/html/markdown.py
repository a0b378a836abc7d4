"""Escaping of names in Markdown."""

import html
import re
from typing import Any

from markupsafe import Markup

from cxrlit.html.text import escape_unprintable

SPECIAL = re.compile(r"[|`*\[\]\\~@$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
"""Characters that may start markup or a link; ``_`` within a word does neither."""


def escape_markdown(value: Any) -> Any:
    """A name as plain text on one line: no markup, no links.

    Args:
        value: A value that a template shows; all but plain strings are returned unchanged.

    >>> str(escape_markdown("a|<b>")), str(escape_markdown("[x](http://y) p_q"))
    ('a&#124;&lt;b&gt;', '&#91;x&#93;(http&#58;//y) p_q')
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = html.escape(escape_unprintable(value.replace("\n", " ")), quote=False)
    return Markup(SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text))
