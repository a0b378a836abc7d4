"""Errors that a user can fix. Each message is one line: what is wrong, where, and what to do."""


class CXRLitError(Exception):
    """Base class of the errors; the commands print the message as one line and exit with 2."""


class ConfigError(CXRLitError):
    """A key, value or combination of keys is invalid."""


class DataError(CXRLitError):
    """A table, an image, a split or a data folder cannot be used."""


class LeakageError(DataError):
    """A patient would be in two parts of a split."""


class CheckpointError(CXRLitError):
    """A checkpoint or a weights file is missing, damaged or in another format."""


class BundleError(CXRLitError):
    """A bundle is incomplete, was changed, or contradicts its own records."""


class DivergenceError(CXRLitError):
    """A loss or a weight is NaN or infinite: the training cannot continue."""


def name_some(names: list[str], limit: int = 5) -> str:
    """The first few of many names, for a message.

    >>> name_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    >>> name_some(["a"])
    'a'
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def format_count(number: int, one: str, many: str = "") -> str:
    """A count with its noun, for a message.

    Args:
        number: The count.
        one: The noun in the singular.
        many: The noun in the plural; empty: ``one`` and an s.

    >>> format_count(1, "image"), format_count(2000, "image"), format_count(1, "image is", "images are")
    ('1 image', '2,000 images', '1 image is')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def first_line(error: BaseException, limit: int | None = None) -> str:
    """The first line of another library's exception; its type where it has no text.

    Args:
        error: The exception.
        limit: Maximum number of characters; a longer line ends with a whole word and an ellipsis.

    >>> first_line(ValueError("short\\nlong"))
    'short'
    >>> first_line(EOFError())
    'EOFError'
    >>> first_line(ValueError("a line that is too long"), limit=16)
    'a line that is …'
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if limit is None or len(line) <= limit:
        return line
    return f"{line[: limit - 1].rpartition(' ')[0] or line[: limit - 1]} …"
