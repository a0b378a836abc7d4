"""What the tables of a data set say, and what in it a user should look into before training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import SplitConfig
from cxrlit.core.errors import DataError, format_count, name_some
from cxrlit.data.dataset import SplitData, UnsplitData, check_dropped, split_data
from cxrlit.data.index import DataTables
from cxrlit.data.tables.text_table import clip
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
    concerns = [f"there is no split: {split_fault}"] if split_fault else []
    try:
        check_dropped(data.name_rows(data.dropped), len(rows), config.max_dropped)
    except DataError as error:
        concerns.append(f"training will stop: {error}")
    concerns += _name_concerns(counts, data.labels)
    return Survey(data=data, rows=rows, counts=counts, split_fault=split_fault, concerns=concerns)


def name_image_concerns(sample: Sample) -> list[str]:
    """What a user should look into, of what the images show."""
    concerns = []
    corrupt, flat = sample.corrupt, sample.flat
    if corrupt:
        concerns.append(
            f"{len(corrupt):,} of {len(sample.facts):,} images that were read cannot be decoded, such as "
            f"{clip(corrupt[0].image)}: {corrupt[0].reason}"
        )
    leaks = [group for group in sample.duplicates if len(group.parts) > 1]
    suspects = [group for group in sample.duplicates if len(group.parts) < 2 and len(group.patients) > 1]
    for groups, what in (
        (leaks, "in different parts of the split: this is a leak"),
        (suspects, "of different patients: they may be one person, whom another split would tear apart"),
    ):
        if groups:
            pairs = [" = ".join(clip(image) for image in group.images[:2]) for group in groups]
            concerns.append(f"the same file stands under several names {what} ({name_some(pairs, limit=3)})")
    if flat:
        names = name_some([clip(facts.image) for facts in flat], limit=3)
        concerns.append(f"{format_count(len(flat), 'image is', 'images are')} of one gray, or almost: {names}")
    return concerns


def _name_concerns(counts: Sequence[IndexCounts], labels: Sequence[str]) -> list[str]:
    whole, *parts = counts
    concerns = []
    if whole.n_patients == whole.n_images > 1:
        concerns.append("every image counts as a patient of its own: where that is not so, the split leaks")
    for part in parts:
        if part.name == "train" and not (part.positives + part.negatives).any():
            concerns.append("training will stop: no training image says anything of any label")
    names = np.array(labels)
    known, undefined = whole.positives + whole.negatives > 0, whole.positives * whole.negatives == 0
    for which, what in (
        (~known, "no image says anything of {}: not trained, not scored"),
        (known & (whole.positives == 0), "there is no positive image of {}: not learned, not scored"),
        (known & (whole.negatives == 0), "there is no negative image of {}: not learned, not scored"),
    ):
        if which.any():
            concerns.append(what.format(", ".join(names[which])))
    for part in parts:
        for name, numbers in (("positive", part.positives), ("negative", part.negatives)):
            never = names[(numbers == 0) & ~undefined].tolist()
            if never:
                then = "not learned" if part.name == "train" else "no AUROC there"
                concerns.append(f"{part.name} has no {name} image of {', '.join(never)}: {then}")
    return concerns
