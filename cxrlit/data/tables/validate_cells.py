"""Validate cells of a table, with messages that name their lines, and settle uncertain targets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import Uncertain
from cxrlit.core.errors import ConfigError, DataError, format_count
from cxrlit.data.tables.text_table import TextTable, clip


def check_unique(names: pd.Series, table: TextTable) -> None:
    """Check that no image is in a table twice.

    Args:
        names: (N,) names of the images.
        table: The table, for messages.

    Raises:
        DataError: An image is; the message names the lines.
    """
    again = names.duplicated(keep=False)
    if not again.any():
        return
    first = names[again].iloc[0]
    lines = table.format_lines(np.flatnonzero((names == first).to_numpy()))
    raise DataError(
        f"{table.path}: {format_count(names[again].nunique(), 'image stands', 'images stand')} "
        f"in it twice ({clip(first)} in {lines}): keep one row"
    )


def refuse_cells(odd: pd.Series | NDArray[np.bool_], cells: pd.Series, fault: str, table: TextTable) -> None:
    """Raise an error if cells of a column are invalid.

    Args:
        odd: (N,) which cells are invalid.
        cells: (N,) the column.
        fault: What is wrong with them: "is no age".
        table: The table, for messages.

    Raises:
        DataError: A cell is invalid; the message names the lines and shows the first.
    """
    rows = np.flatnonzero(np.asarray(odd, dtype=bool))
    if len(rows):
        name, example = clip(str(cells.name)), clip(cells.iloc[rows[0]])
        raise DataError(f"{table.path}, {table.format_lines(rows)}: {name} {example!r} {fault}")


def settle_uncertain(
    values: NDArray[np.float32],
    uncertain: NDArray[np.bool_],
    labels: Sequence[str],
    rule: Uncertain | dict[str, Uncertain],
) -> NDArray[np.float32]:
    """Apply the rule for uncertain targets.

    Args:
        values: (N, L) targets; uncertain entries may have any value.
        uncertain: (N, L) which targets are uncertain.
        labels: The L labels.
        rule: ``data.uncertain``.

    Raises:
        ConfigError: The rule names a label that is not in use.
    """
    by_label = rule if isinstance(rule, dict) else dict.fromkeys(labels, rule)
    unknown = [name for name in by_label if name not in labels]
    if unknown:
        raise ConfigError(f"data.uncertain: {unknown[0]} is none of the labels; they are {', '.join(labels)}")
    number = {"ignore": np.nan, "zero": 0.0, "one": 1.0}
    fills = np.array([number[by_label.get(label, "ignore")] for label in labels], dtype=np.float32)
    return np.where(uncertain, fills, values).astype(np.float32)
