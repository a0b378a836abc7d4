"""What the cells of a table may hold: refused where they hold something else, with their lines; read as numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import Uncertain
from cxrlit.core.errors import ConfigError, DataError, format_count
from cxrlit.data.tables.text_table import TextTable, clip


def check_unique(names: pd.Series, table: TextTable) -> None:
    """No image stands in a table twice.

    Args:
        names: (N,) of the images.
        table: Where they stand.

    Raises:
        DataError: One does; the message names the lines.
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
    """Stop at the cells of a column that are odd.

    Args:
        odd: (N,) which are.
        cells: (N,) the column.
        fault: What is wrong with them: "is no age".
        table: The table.

    Raises:
        DataError: One is; the message names the lines and shows the first.
    """
    rows = np.flatnonzero(np.asarray(odd, dtype=bool))
    if len(rows):
        name, example = clip(str(cells.name)), clip(cells.iloc[rows[0]])
        raise DataError(f"{table.path}, {table.format_lines(rows)}: {name} {example!r} {fault}")


def read_marks(
    cells: pd.DataFrame, columns: Sequence[str], marks: Mapping[str, float], table: TextTable
) -> NDArray[Any]:
    """Columns of marks such as ``1.0``, ``-1.0`` and blank as numbers.

    Args:
        cells: The cells of the table, or what was made of them.
        columns: The C columns.
        marks: The number of each text that may stand in them.
        table: The table, for the message.

    Returns:
        (N, C) float32.

    Raises:
        DataError: Another text stands in one of them; the message names the line.
    """
    numbers = np.empty((len(cells), len(columns)), dtype=np.float32)
    for column, name in enumerate(columns):
        codes, texts = pd.factorize(cells[name])
        odd = [text for text in texts if text not in marks]
        if odd:
            row = int((cells[name] == odd[0]).to_numpy().argmax())
            may = ", ".join(text or "blank" for text in marks)
            raise DataError(f"{table.path}, {table.format_lines([row])}: {name} is {clip(odd[0])!r}; it may be {may}")
        numbers[:, column] = np.array([marks[text] for text in texts], dtype=np.float32)[codes]
    return numbers


def settle_uncertain(
    values: NDArray[np.float32],
    uncertain: NDArray[np.bool_],
    labels: Sequence[str],
    rule: Uncertain | dict[str, Uncertain],
) -> NDArray[np.float32]:
    """Targets after the rule for uncertain ones.

    Args:
        values: (N, L) targets; what is uncertain may hold anything.
        uncertain: (N, L) which are uncertain.
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
