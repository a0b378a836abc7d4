"""Counts of an index, for the whole data set and each part of its split. No image is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.data.index import read_targets
from cxrlit.data.split import SPLITS
from cxrlit.metrics.division import divide_or_nan

Numbers = NDArray[np.int64] | NDArray[np.float64]

WHOLE = "all"
"""Name of the whole data set beside train, val and test."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class IndexCounts:
    """Counts of a whole data set with L labels, or of a part of its split.

    Attributes:
        name: ``all``, ``train``, ``val`` or ``test``.
        n_images: Number of images.
        per_patient: (P,) number of images of each of the P patients.
        positives: (L,) images with the label present.
        negatives: (L,) images with the label absent.
        unknown: (L,) images with the label unknown.
        patients_with: (L,) patients with at least one image with the label present.
        together: (L, L) images with both labels present.
        together_known: (L, L) images with the row's label present and the column's label known.
        n_findings: Images by number of present labels: 0, 1, 2, ...
        n_clear: Images with every label known to be absent.
        views: Images by view, most frequent first.
        sexes: Images by sex, most frequent first.
        ages: Ages of the images with a known age, years.
    """

    name: str
    n_images: int
    per_patient: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    unknown: NDArray[np.int64]
    patients_with: NDArray[np.int64]
    together: NDArray[np.int64]
    together_known: NDArray[np.int64]
    n_findings: NDArray[np.int64]
    n_clear: int
    views: Mapping[str, int]
    sexes: Mapping[str, int]
    ages: NDArray[np.float64]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(self.per_patient)

    @property
    def prevalence(self) -> NDArray[np.float64]:
        """(L,) positives / (positives + negatives); NaN for a label without known targets."""
        return divide_or_nan(self.positives, self.positives + self.negatives)

    @property
    def conditional(self) -> NDArray[np.float64]:
        """(L, L) fraction with the column's label among images with the row's label; NaN where there are none."""
        return divide_or_nan(self.together, self.together_known)

    @property
    def cardinality(self) -> float:
        """Mean number of present labels per image."""
        return float(self.positives.sum() / self.n_images)

    @property
    def n_open(self) -> int:
        """Number of images with no label present and at least one unknown."""
        return int(self.n_findings[0]) - self.n_clear


def count_parts(index: pd.DataFrame, labels: Sequence[str]) -> list[IndexCounts]:
    """Counts of the whole data set and, if the index has a column ``split``, of each part."""
    counts = [count_rows(index, labels, WHOLE)]
    if "split" in index:
        counts += [count_rows(index[index["split"] == part], labels, part) for part in SPLITS]
    return counts


def count_rows(index: pd.DataFrame, labels: Sequence[str], name: str) -> IndexCounts:
    """Count the rows of an index with at least one row."""
    targets = read_targets(index, labels)
    present, absent = targets == 1, targets == 0
    per_label, per_image = present.sum(axis=0), present.sum(axis=1)
    patients, n_patients = _number(index["patient"])
    floats = present.astype(np.float64)  # exact below 2**53 images, and fast
    known = (present | absent).astype(np.float64)
    return IndexCounts(
        name=name,
        n_images=len(index),
        per_patient=np.bincount(patients, minlength=n_patients),
        positives=per_label,
        negatives=absent.sum(axis=0),
        unknown=len(index) - per_label - absent.sum(axis=0),
        patients_with=np.array([len(np.unique(patients[column])) for column in present.T], dtype=np.int64),
        together=(floats.T @ floats).astype(np.int64),
        together_known=(floats.T @ known).astype(np.int64),
        n_findings=np.bincount(per_image),
        n_clear=int(absent.all(axis=1).sum()),
        views=count_values(index["view"].fillna(UNKNOWN)),
        sexes=count_values(index["sex"].fillna(UNKNOWN)),
        ages=index["age"].dropna().to_numpy(np.float64),
    )


def count_values(values: pd.Series) -> dict[str, int]:
    """Frequency of each value, most frequent first, then by name."""
    counts = values.value_counts()
    return dict(sorted(((str(value), int(n)) for value, n in counts.items()), key=lambda item: (-item[1], item[0])))


def compare_prevalence(part: IndexCounts, whole: IndexCounts) -> NDArray[np.float64]:
    """(L,) relative difference of a part's prevalence from the whole's: 0.05 is 5 % more; NaN where undefined."""
    return divide_or_nan(part.prevalence, whole.prevalence) - 1


def _number(names: pd.Series) -> tuple[NDArray[np.int64], int]:
    """An integer code for each name, from 0, and the number of different names."""
    numbers, distinct = pd.factorize(names)
    return numbers.astype(np.int64), len(distinct)
