"""Texts that mean an unknown value in a cell."""

PLACEHOLDERS = frozenset(
    {
        "", "na", "n/a", "n.a.", "n.a", "<na>", "nan", "null", "none", "nil", "nat", "unknown", "unk", "not known",
        "unspecified", "not specified", "undefined", "missing", "not available", "not applicable", "not reported",
        "not recorded", "not labeled", "not labelled", "unlabeled", "unlabelled", "no data", "todo", "to do", "tbd",
        "to be done", "to be determined", "pending", "xxx", "#n/a", "#na", "#null!", "#ref!", "#value!", "#name?",
        "#num!", "#div/0!", "anonymous", "anonymized", "anonymised", "anon",
        "de-identified", "deidentified", "no id", "no patient", "(blank)", "n\\a",
    }
)  # fmt: skip
"""Words in lower case, with single spaces."""


def is_placeholder(text: str) -> bool:
    """Whether a cell says that the value is unknown: blank, a word for it, or only signs such as dashes.

    >>> [is_placeholder(text) for text in ("NA", "not_available", "--", "?", "0", "Mass")]
    [True, True, True, True, False, False]
    """
    return " ".join(text.casefold().replace("_", " ").split()) in PLACEHOLDERS or not text.strip("-–—.?*#_ \t")
