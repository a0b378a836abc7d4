"""Limit on missing and corrupt images."""

import math

import pandas as pd

from cxrlit.core.errors import DataError
from cxrlit.data.image_files import NOT_ON_DISK
from cxrlit.data.near_files import describe_tried
from cxrlit.data.tables.text_table import clip

MAX_ADVISED = 0.5
"""Messages never suggest excluding a larger share of the images."""


def check_dropped(dropped: pd.DataFrame, n_usable: int, max_dropped: float) -> None:
    """Stop if more images are missing or corrupt than the user allows.

    ``dropped`` has display names (``name_rows``).

    Raises:
        DataError: More than ``max_dropped`` of the images are dropped; the message counts the reasons.
    """
    total = len(dropped) + n_usable
    if not total or len(dropped) / total <= max_dropped:
        return
    share = len(dropped) / total
    needed = math.ceil(100 * share) / 100
    remedy = f", or set data.max_dropped={needed:g}" if share <= MAX_ADVISED else ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped["reason"].value_counts().head(3).items())
    example = clip(dropped["image"].iloc[0])
    if dropped["reason"].iloc[0] == NOT_ON_DISK:
        example = ": ".join(filter(None, [example, describe_tried(dropped["path"].iloc[0])]))
    raise DataError(
        f"{len(dropped)} of {total} images cannot be used ({reasons}; such as {example}), more than "
        f"data.max_dropped={max_dropped:g} allows: complete the folder{remedy}"
    )
