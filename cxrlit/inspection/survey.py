"""What the tables of a data set say, and what in it a user should look into before training."""

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
    """What is known of a data set before an image is read.

    Attributes:
        data: What was read; with its split, unless ``split_fault`` says why there is none.
        rows: The index as a person reads it (``name_rows``), and the column ``split`` where there is one.
        counts: Of the whole and of each part.
        split_fault: Why it cannot be split, or empty.
        concerns: What a user should look into before training, a line each.
    """

    data: DataTables
    rows: pd.DataFrame
    counts: list[IndexCounts]
    split_fault: str
    concerns: list[str]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,) whether the image is a file, and not part of a prepared store."""
        return ~self.data.index["source"].isin(list(self.data.stores)).to_numpy()

    def describe_split(self) -> str:
        if isinstance(self.data, SplitData):
            return self.data.describe_split()
        return f"no split: {self.split_fault}"


def survey_data(read: UnsplitData, config: SplitConfig) -> Survey:
    """Split what was read, and count. A split that cannot be made is a finding and no error."""
    data: DataTables = read
    rows, split_fault = read.name_rows(read.index), ""
    try:
        # How many images may be missing is checked below, so that the split is shown all the same.
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
    """What a user should look into, of what the images show."""
    damaged = pd.DataFrame([(facts.image, facts.reason) for facts in sample.corrupt], columns=["image", "reason"])
    concerns = name_damaged(damaged, len(sample.facts), "images that were read")
    odd: dict[str, list[str]] = {}
    for facts in sample.decoded:
        if facts.warning:
            odd.setdefault(facts.warning, []).append(facts.image)
    return [*concerns, *name_image_concerns(sample.duplicates, [facts.image for facts in sample.flat], odd)]
