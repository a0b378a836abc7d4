"""A file for each data set; each reads what lies on disk and yields a ``Source``."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SAME_PATIENTS = {"nih_google": "nih"}
"""Data sets whose patients, and images, are those of another one under the same names."""


@dataclass(frozen=True)
class Source:
    """What a data set has on disk.

    Attributes:
        name: What it is called in messages and folder names.
        index: The checked index, sorted by image.
        dropped: Images of the table that cannot be used, with the columns ``image``, ``path``, ``reason``.
        official: (N,) the part of each row of the index in the data set's own split: ``train``, ``val``, ``test``, or
            ``train_val`` where validation is still to be carved out; None where it has no split.
        findings: Names of what it can tell of, for a label that it does not have.
        notes: What in its tables is used or not used otherwise than a user may expect, a line each.
    """

    name: str
    index: pd.DataFrame
    dropped: pd.DataFrame
    official: NDArray[np.object_] | None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
