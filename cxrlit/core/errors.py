"""Faults that a user can mend. Each message is one line: what is wrong, where, and what to do."""


class CXRLitError(Exception):
    """Base of all of them; the commands print it as one line and exit with 2."""


class ConfigError(CXRLitError):
    """A key, a value or a combination of them that cannot be."""


class DataError(CXRLitError):
    """A table, an image, a split or a data folder that cannot be used."""


class LeakageError(DataError):
    """A patient would stand on both sides of a split."""


class CheckpointError(CXRLitError):
    """A checkpoint, or a file of weights, that is missing, damaged or not ours."""


class BundleError(CXRLitError):
    """A bundle that is not whole, was changed, or is not what it says."""


class DivergenceError(CXRLitError):
    """A loss or a weight that is NaN or infinite: the training cannot go on."""


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
    """A number with what it counts, for a message.

    Args:
        number: Of what is counted.
        one: What it is called where there is one.
        many: What it is called otherwise; empty: ``one`` and an s.

    >>> format_count(1, "image"), format_count(2000, "image"), format_count(1, "image is", "images are")
    ('1 image', '2,000 images', '1 image is')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def first_line(error: BaseException, limit: int | None = None) -> str:
    """What an exception of another library says, cut to a line; its type where it says nothing.

    Args:
        error: The exception.
        limit: Characters at most; what is longer ends with a whole word and an ellipsis.

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
