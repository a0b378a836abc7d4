"""Read the boxes of a data set, in pixels of the prepared images."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlit.config import DataConfig, NIHConfig, SyntheticConfig
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import match_rows
from cxrlit.data.sources.nih import BOX_LIST, BOX_PX, read_boxes
from cxrlit.data.sources.registry import choose_sources, find_root

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Boxes:
    """Boxes on the images of one part.

    Attributes:
        table: A row per box: ``row`` of the part's table, ``image`` and ``patient`` as in the predictions, ``label``,
            and ``SIDES`` (float64, pixels of the prepared image; the image's edges are 0 and its size).
        reason: Why there are no boxes, else empty.
    """

    table: pd.DataFrame
    reason: str


def collect_boxes(config: DataConfig, cache_dir: Path, datamodule: CXRDataModule, part: str) -> Boxes:
    """Collect the boxes of the labels in use on the decoded images of a part.

    Args:
        config: The data, as for ``load_data``.
        cache_dir: Folder of the synthetic data set.
        datamodule: The images of the same data.
        part: train, val or test.

    Raises:
        DataError: A list of boxes cannot be read, or has a box outside its image.
    """
    lists = {
        section.source: find_root(section, cache_dir) / BOX_LIST
        for section in choose_sources(config)
        if isinstance(section, NIHConfig | SyntheticConfig)
    }
    data, images = datamodule.data, datamodule.parts[part]
    columns = ["row", "image", "patient", "label", *SIDES]
    read = [read_boxes(path).assign(source=source) for source, path in lists.items() if path.is_file()]
    if not read:
        return Boxes(pd.DataFrame(columns=columns), f"{data.name} has no list of boxes")
    listed = pd.concat(read, ignore_index=True)
    rows = match_rows(listed, images)
    kept = (rows >= 0) & listed["label"].isin(data.labels).to_numpy()
    named = data.name_rows(images).iloc[rows[kept]].reset_index(drop=True)
    boxes = listed[kept].reset_index(drop=True)
    ends = (boxes["x"], boxes["y"], boxes["x"] + boxes["width"], boxes["y"] + boxes["height"])
    # NIH's images are square, so every ``data.resize`` gives the same.
    sides = {side: end * datamodule.img_size / BOX_PX for side, end in zip(SIDES, ends, strict=True)}
    table = named[["image", "patient"]].assign(row=rows[kept], label=boxes["label"], **sides)[columns]
    reason = "" if len(table) else f"none of the {len(kept)} boxes is of a label in use on an image of {part}"
    return Boxes(table, reason)
