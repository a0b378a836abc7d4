"""The boxes that a data set has for its images, in the pixels of the prepared images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import DataConfig, NIHConfig, SyntheticConfig
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.index import match_rows
from cxrlit.data.sources.nih import BOX_LIST, BOX_PX, read_boxes
from cxrlit.data.sources.registry import choose_sources, find_root

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Boxes:
    """Boxes on the images of one part.

    Attributes:
        table: A row a box: ``row`` of the part's table, ``image`` and ``patient`` as the predictions name them,
            ``label``, and ``SIDES`` (float64, pixels of the prepared image; the image's own edges are 0 and its size).
        excluded: ``boxes`` that are listed and not in the table, by ``reason``.
        reason: Why there are none at all; empty where there are some.
    """

    table: pd.DataFrame
    excluded: pd.DataFrame
    reason: str


def find_box_lists(config: DataConfig, cache_dir: Path) -> dict[str, Path]:
    """The box list of each source that has one, by the source's name.

    Args:
        config: The data, as for ``load_data``.
        cache_dir: Where the synthetic data set is.
    """
    lists = {
        section.source: find_root(section, cache_dir) / BOX_LIST
        for section in choose_sources(config)
        if isinstance(section, NIHConfig | SyntheticConfig)
    }
    return {source: path for source, path in lists.items() if path.is_file()}


def collect_boxes(lists: Mapping[str, Path], datamodule: CXRDataModule, part: str) -> Boxes:
    """The boxes of labels in use on the images of a part that could be decoded.

    Args:
        lists: From ``find_box_lists``, of the same data.
        datamodule: The images.
        part: train, val or test.

    Raises:
        DataError: A list cannot be read, or has a box outside of its image.
    """
    data = datamodule.data
    columns = ["row", "image", "patient", "label", *SIDES]
    if not lists:
        nothing = pd.DataFrame(columns=columns)
        return Boxes(nothing, pd.DataFrame(columns=["reason", "boxes"]), f"{data.name} has no list of boxes")
    listed = pd.concat([read_boxes(path).assign(source=source) for source, path in lists.items()], ignore_index=True)

    images = datamodule.parts[part]
    in_part = data.split["split"].reindex(match_rows(listed, data.split)).reset_index(drop=True)
    rows = match_rows(listed, images)
    reasons = np.select(
        [~listed["label"].isin(data.labels), in_part.isna(), in_part != part, rows < 0],
        [
            listed["label"] + " is not in use",
            "the image is not in the data",
            "the image is in " + in_part.fillna("").astype(str),
            "the image cannot be decoded",
        ],
        default="",
    )
    kept = reasons == ""
    named = data.name_rows(images).iloc[rows[kept]]
    # NIH's images are square, so that all ways to make them square agree.
    frame = (BOX_PX, BOX_PX)
    sides = place_boxes(to_sides(listed[["x", "y", "width", "height"]].to_numpy()), *frame, datamodule.img_size, "pad")
    table = pd.DataFrame(
        {
            "row": rows[kept],
            "image": named["image"].to_numpy(),
            "patient": named["patient"].to_numpy(),
            "label": listed["label"][kept].to_numpy(),
            **dict(zip(SIDES, sides[kept].T, strict=True)),
        },
        columns=columns,
    )
    counts = pd.Series(reasons[~kept]).value_counts().sort_index()
    excluded = pd.DataFrame({"reason": counts.index, "boxes": counts.to_numpy()})
    reason = "" if len(table) else f"none of the {len(listed)} boxes is of a label in use on an image of {part}"
    return Boxes(table, excluded, reason)


def to_sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) x, y, width, height to (N, 4) ``SIDES``."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def place_boxes(boxes: NDArray[np.float64], height: int, width: int, size: int, resize: Resize) -> NDArray[np.float64]:
    """Where boxes on an image are when ``resize_square`` has made it square.

    Args:
        boxes: (N, 4) ``SIDES`` in pixels of the image.
        height: Of the image, pixels.
        width: Of the image, pixels.
        size: Side of the square, pixels.
        resize: As the image was made square.

    Returns:
        (N, 4) in pixels of the square, cut at its edges. Of a box that ``crop`` has left nothing of, right is not above
        left, or bottom not above top.

    >>> place_boxes(np.array([[0.0, 0.0, 100.0, 50.0]]), height=100, width=200, size=50, resize="crop").tolist()
    [[0.0, 0.0, 25.0, 25.0]]
    """
    if resize == "stretch":
        scaled = boxes * size / np.array([width, height, width, height])
    else:
        side = max(height, width) if resize == "pad" else min(height, width)
        # With crop the margins are negative; both are rounded as resize_square rounds them.
        sign = 1 if resize == "pad" else -1
        left, top = sign * (abs(side - width) // 2), sign * (abs(side - height) // 2)
        scaled = (boxes + np.array([left, top, left, top])) * size / side
    return np.asarray(np.clip(scaled, 0, size))
