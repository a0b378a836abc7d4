"""Readers of data sets, one file each; each reader yields a ``Source``."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SAME_PATIENTS = {"nih_google": "nih"}
"""Data sets that share patients and images with another one, under the same names."""


@dataclass(frozen=True)
class Source:
    """Contents of a data set on disk.

    Attributes:
        name: Name in messages and folder names.
        index: The checked index, sorted by image.
        dropped: Unusable images of the table, with the columns ``image``, ``path``, ``reason``.
        official: (N,) part of each index row in the data set's own split: ``train``, ``val``, ``test``, or
            ``train_val`` if validation must still be split off; None if it has no split.
        findings: Names of the data set's findings, for messages about labels that it lacks.
        notes: How its tables were read where a user may expect otherwise, one line each.
    """

    name: str
    index: pd.DataFrame
    dropped: pd.DataFrame
    official: NDArray[np.object_] | None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
