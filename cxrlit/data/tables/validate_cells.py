"""What the cells of a table may hold: refused where they hold something else, with their lines; read as numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import Uncertain
from cxrlit.core.errors import ConfigError, DataError, say_count
from cxrlit.data.tables.text_table import say_lines, show


def check_unique(names: pd.Series, path: Path) -> None:
    """No image stands in a table twice.

    Raises:
        DataError: One does; the message names the lines.
    """
    again = names.duplicated(keep=False)
    if not again.any():
        return
    first = names[again].iloc[0]
    lines = say_lines(path, np.flatnonzero((names == first).to_numpy()))
    raise DataError(
        f"{path}: {say_count(names[again].nunique(), 'image stands', 'images stand')} "
        f"in it twice ({show(first)} in {lines}): keep one row"
    )


def refuse_cells(odd: pd.Series | NDArray[np.bool_], cells: pd.Series, fault: str, path: Path) -> None:
    """Stop at the cells of a column that are odd.

    Args:
        odd: (N,) which are.
        cells: The column, as ``read_table`` gave it.
        fault: What is wrong with them: "is no age".
        path: The table's file.

    Raises:
        DataError: One is; the message names the lines and shows the first.
    """
    rows = np.flatnonzero(np.asarray(odd, dtype=bool))
    if len(rows):
        name, example = show(str(cells.name)), show(cells.iloc[rows[0]])
        raise DataError(f"{path}, {say_lines(path, rows)}: {name} {example!r} {fault}")


def read_marks(table: pd.DataFrame, columns: Sequence[str], marks: Mapping[str, float], path: Path) -> NDArray[Any]:
    """Columns of marks such as ``1.0``, ``-1.0`` and blank as numbers.

    Args:
        table: What ``read_table`` gave.
        columns: The C columns.
        marks: The number of each text that may stand in them.
        path: The table's file, for the message.

    Returns:
        (N, C) float32.

    Raises:
        DataError: Another text stands in one of them; the message names the line.
    """
    numbers = np.empty((len(table), len(columns)), dtype=np.float32)
    for column, name in enumerate(columns):
        codes, texts = pd.factorize(table[name])
        odd = [text for text in texts if text not in marks]
        if odd:
            row = int((table[name] == odd[0]).to_numpy().argmax())
            may = ", ".join(text or "blank" for text in marks)
            raise DataError(f"{path}, {say_lines(path, [row])}: {name} is {show(odd[0])!r}; it may be {may}")
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
