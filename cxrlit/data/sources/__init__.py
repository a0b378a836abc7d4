"""A file for each data set; each reads what lies on disk and yields a ``Source``."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """What a data set has on disk.

    Attributes:
        name: What it is called in messages and folder names.
        index: The checked index, sorted by image.
        dropped: Images of the table that cannot be used, with the columns ``image``, ``path``, ``reason``.
        official: (N,) ``train_val`` or ``test`` for each row of the index, where official lists are there.
    """

    name: str
    index: pd.DataFrame
    dropped: pd.DataFrame
    official: NDArray[np.object_] | None
