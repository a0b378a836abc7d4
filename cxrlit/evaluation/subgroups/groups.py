"""Assign images to subgroups by sex, age band and view, from the columns of a predictions table."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNKNOWN = "unknown"
MAX_GROUPS = 20
"""Most groups of a column: more make an unreadable table, and few would have enough patients."""


@dataclass(frozen=True)
class Attribute:
    """An attribute that divides images into groups.

    Attributes:
        name: ``sex``, ``age`` or ``view``.
        groups: Groups with an image: ages ascending, names in alphabetical order, ``unknown`` last.
        codes: (N,) the group of each image.
    """

    name: str
    groups: tuple[str, ...]
    codes: NDArray[np.intp]

    @property
    def known(self) -> list[int]:
        """Indices of the groups other than ``unknown``."""
        return [code for code, group in enumerate(self.groups) if group != UNKNOWN]


def find_attributes(
    predictions: pd.DataFrame, names: Sequence[str], age_bands: Sequence[int]
) -> tuple[list[Attribute], dict[str, str]]:
    """Find the attributes of a predictions table.

    Args:
        predictions: May have the columns ``sex``, ``age`` (years) and ``view``; an empty cell is unknown.
        names: The attributes to find.
        age_bands: Starts of the age bands after the first, which starts at 0; years, ascending.

    Returns:
        The attributes, and the reasons for excluded ones, by name.
    """
    found, excluded = [], {}
    for name in names:
        if name not in predictions:
            excluded[name] = f"the predictions have no column {name}"
            continue
        column = predictions[name]
        parted = (_band(column, age_bands) if name == "age" else _name(column)).remove_unused_categories()
        unknown = parted.codes < 0
        groups = (*parted.categories, *([UNKNOWN] if unknown.any() else []))
        codes = np.where(unknown, len(parted.categories), parted.codes).astype(np.intp)
        if groups in ((), (UNKNOWN,)):
            excluded[name] = f"the {name} of every image is unknown"
        elif len(groups) > MAX_GROUPS:
            excluded[name] = f"{name} has {len(groups)} values: at most {MAX_GROUPS} are told apart"
        else:
            found.append(Attribute(name, groups, codes))
    return found, excluded


def name_bands(age_bands: Sequence[int]) -> list[str]:
    """Name the age bands that start at 0 and at these years.

    >>> name_bands([18, 40])
    ['0 to 17', '18 to 39', '40 or more']
    """
    starts = [0, *(start for start in age_bands if start > 0)]
    between = [str(start) if end == start + 1 else f"{start} to {end - 1}" for start, end in pairwise(starts)]
    return [*between, f"{starts[-1]} or more"]


def _band(ages: pd.Series, age_bands: Sequence[int]) -> pd.Categorical:
    """Return the age band of each image; missing without an age."""
    years = pd.to_numeric(ages, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    edges = [0, *(start for start in age_bands if start > 0), np.inf]
    return pd.cut(years, edges, right=False, labels=name_bands(age_bands))


def _name(values: pd.Series) -> "pd.Categorical[str]":
    """Return the group of each image by name; missing without a value."""
    texts = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    return pd.Categorical(texts.mask(texts.str.casefold().isin(["", UNKNOWN])))
