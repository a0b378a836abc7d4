"""Weight of the positives of each label in the loss, computed from the training part."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import say
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import read_targets


def capped_pos_weight(
    targets: NDArray[np.float32], cap: float = 10.0, draws: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Weight of the positive term of BCE for each label: negatives / positives, at most ``cap``.

    Args:
        targets: (N, L), 1 present, 0 absent, NaN unknown. Training rows only.
        cap: Upper bound, > 0.
        draws: (N,) number of times that an epoch draws each image; None: once.

    Returns:
        (L,) float32, in [0, cap]. A label without a positive gets ``cap``, one without a known target 1.

    >>> capped_pos_weight(np.array([[1, 0], [0, 0], [0, np.nan], [0, 0]], dtype=np.float32))
    array([ 3., 10.], dtype=float32)
    """
    weights = np.ones(len(targets)) if draws is None else draws
    positives, negatives = weights @ (targets == 1), weights @ (targets == 0)
    ratio = negatives / np.where(positives == 0, 1, positives)
    weight = np.where(positives == 0, cap, np.minimum(ratio, cap))
    return np.where(positives + negatives == 0, 1, weight).astype(np.float32)


def weigh_positives(datamodule: CXRDataModule, cap: float | None) -> pd.DataFrame:
    """Count the training part and weigh the positives of each label; print the weights.

    Args:
        datamodule: Datamodule after ``setup``.
        cap: Upper bound of negatives / positives; None: each weight is 1.

    Returns:
        The table of ``pos_weight.csv``: ``label``, ``positives``, ``negatives``, ``weight``; a row per label.
    """
    labels = datamodule.data.labels
    targets = read_targets(datamodule.parts["train"], labels)
    weight = (
        capped_pos_weight(targets, cap, datamodule.repeats) if cap is not None else np.ones(len(labels), np.float32)
    )
    table = pd.DataFrame(
        {
            "label": labels,
            "positives": (targets == 1).sum(axis=0),
            "negatives": (targets == 0).sum(axis=0),
            "weight": weight,
        }
    )
    trained = table[table["positives"] + table["negatives"] > 0]
    shown = ", ".join(f"{row.label} {row.weight:.2f}" for row in trained.itertuples())
    if cap is not None:
        say(f"Weight of positives, at most {cap:g}: {shown}")
    return table
