"""What a sweep says on a command line."""

import re


def quote(text: str) -> str:
    """A text as a value of Hydra's grammar, quoted where it needs to be.

    >>> quote("adamw"), quote("it's"), quote("1")
    ('adamw', "'it\\\\'s'", "'1'")
    """
    if text.replace("_", "").isalpha() and text.lower() not in {"null", "true", "false", "nan", "inf"}:
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
