"""Survey of a data set's tables, and concerns that a user should check before training."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import SplitConfig
from cxrlit.core.errors import DataError
from cxrlit.data.concerns import name_label_concerns
from cxrlit.data.copies import name_damaged, name_image_concerns
from cxrlit.data.dataset import SplitData, UnsplitData, split_data
from cxrlit.data.dropped import check_dropped
from cxrlit.data.index import DataTables
from cxrlit.inspection.counts import IndexCounts, count_parts
from cxrlit.inspection.sample import Sample


@dataclass(frozen=True)
class Survey:
    """Facts about a data set that need no image.

    Attributes:
        data: The data, with their split unless ``split_fault`` says why there is none.
        rows: The index with display names (``name_rows``), and the column ``split`` if there is a split.
        counts: Counts of the whole data set and of each part.
        split_fault: Why the data cannot be split; empty if they can.
        concerns: Warnings that the user should check before training, one line each.
    """

    data: DataTables
    rows: pd.DataFrame
    counts: list[IndexCounts]
    split_fault: str
    concerns: list[str]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,) whether the image is a file on disk, rather than part of a prepared store."""
        return ~self.data.index["source"].isin(list(self.data.stores)).to_numpy()

    def describe_split(self) -> str:
        """The split's name and hash, or why there is none."""
        if isinstance(self.data, SplitData):
            return self.data.describe_split()
        return f"no split: {self.split_fault}"


def survey_data(read: UnsplitData, config: SplitConfig) -> Survey:
    """Split and count the data. A split that cannot be made is a finding, not an error."""
    data: DataTables = read
    rows, split_fault = read.name_rows(read.index), ""
    try:
        # The share of missing images is checked below, so that the split is shown in any case.
        data = loaded = split_data(read, config.model_copy(update={"max_dropped": 1.0}))
        rows = loaded.name_rows(loaded.index).assign(split=loaded.split["split"])
    except DataError as error:
        split_fault = str(error)
    counts = count_parts(rows, data.labels)
    concerns = [*read.notes]
    concerns += [f"there is no split: {split_fault}"] if split_fault else []
    try:
        check_dropped(data.name_rows(data.dropped), len(rows), config.max_dropped)
    except DataError as error:
        concerns.append(f"training will stop: {error}")
    if counts[0].n_patients == counts[0].n_images > 1:
        concerns.append("every image counts as a patient of its own: where that is not so, the split leaks")
    concerns += name_label_concerns(rows, data.labels)
    return Survey(data=data, rows=rows, counts=counts, split_fault=split_fault, concerns=concerns)


def name_sample_concerns(sample: Sample) -> list[str]:
    """Concerns about the sample's images that the user should check."""
    damaged = pd.DataFrame([(facts.image, facts.reason) for facts in sample.corrupt], columns=["image", "reason"])
    concerns = name_damaged(damaged, len(sample.facts), "images that were read")
    odd: dict[str, list[str]] = {}
    for facts in sample.decoded:
        if facts.warning:
            odd.setdefault(facts.warning, []).append(facts.image)
    return [*concerns, *name_image_concerns(sample.duplicates, [facts.image for facts in sample.flat], odd)]
