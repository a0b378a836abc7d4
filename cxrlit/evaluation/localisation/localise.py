"""Localisation on one part: scores of heatmaps against boxes, and pictures of the most certain images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.table import Table

from cxrlit.core.console import print_table, track
from cxrlit.core.errors import DataError, name_some
from cxrlit.core.files import write_csv
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.evaluation.localisation.box_scores import COLUMNS, Floats, detect, score
from cxrlit.evaluation.localisation.boxes import SIDES, Boxes
from cxrlit.evaluation.localisation.heatmaps import Method, average_heatmaps, make_heatmaps
from cxrlit.evaluation.localisation.localisation_table import PRIORS, tabulate_localisation
from cxrlit.evaluation.localisation.overlays import Overlay, Shown, draw_overlays
from cxrlit.evaluation.localisation.priors import score_centre, score_elsewhere, score_random
from cxrlit.evaluation.localisation.shown_images import choose_examples
from cxrlit.evaluation.predictions import list_labels
from cxrlit.metrics.bootstrap import N_REPLICATES
from cxrlit.metrics.operating_point import Thresholds
from cxrlit.model.densenet import CXRNet

TABLE, FOLDER = "eval_localisation.csv", "heatmaps"
"""File of the table, and folder of the pictures."""

N_EXAMPLES = 3


class Localisation(NamedTuple):
    """Scores and pictures of heatmaps.

    Attributes:
        table: See ``tabulate_localisation``.
        pictures: The examples, a file each.
        sheets: All examples of a label, a file per label.
    """

    table: pd.DataFrame
    pictures: list[Overlay]
    sheets: list[Overlay]


def localise(
    networks: Sequence[CXRNet],
    datamodule: CXRDataModule,
    part: str,
    predictions: pd.DataFrame,
    thresholds: Thresholds,
    boxes: Boxes,
    out: Path,
    *,
    method: Method = "gradcam",
    n_examples: int = N_EXAMPLES,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Localisation:
    """Compute the heatmaps of images with boxes and of shown images, score and draw them, and write ``TABLE``.

    If the images are so small that a heatmap is one cell, none is scored or drawn.

    Args:
        networks: One or several; each is returned to its device.
        datamodule: The images, at the size of the networks.
        part: train, val or test.
        predictions: The predictions table of the part, on the scale of the thresholds (calibrated or not).
        thresholds: Thresholds of the labels in use.
        boxes: From ``collect_boxes``, of the same part.
        out: Folder for ``TABLE`` and for ``FOLDER`` with the pictures.
        method: gradcam or gradcam++.
        n_examples: Images shown per label and kind.
        n_replicates: Resamples of the bootstrap.
        seed: Seed of bootstrap and random maps.
        device: Device that computes.

    Raises:
        DataError: A predicted image is not in the part, or predictions and networks differ in labels.
    """
    labels = list(datamodule.data.labels)
    images = pd.Index(datamodule.data.name_rows(datamodule.parts[part])["image"])
    _check(predictions, thresholds, images, labels, part)
    boxed = set(zip(boxes.table["image"], boxes.table["label"], strict=True))
    examples = choose_examples(predictions, thresholds, boxed, n_examples)
    shown_rows = images.get_indexer(pd.Index([example.image for example in examples]))
    rows = np.unique(np.concatenate([boxes.table["row"].to_numpy(np.int64), shown_rows]))
    maps = compute_heatmaps(networks, datamodule, part, rows, method, device)
    places = {row: place for place, row in enumerate(rows.tolist())}

    pairs, sides = pair_boxes(boxes)
    size = datamodule.img_size
    found = [
        score(detect([maps[places[row], labels.index(label)]], size), of_one, size)[0]
        for row, label, of_one in zip(pairs["row"], pairs["label"], sides, strict=True)
    ]
    patients, shape = pairs["patient"].to_numpy(object), maps.shape[2:]
    elsewhere = np.full((len(pairs), len(COLUMNS)), np.nan)
    for label in labels:
        of_label = np.flatnonzero(pairs["label"] == label)
        elsewhere[of_label] = score_elsewhere([sides[number] for number in of_label], patients[of_label], size)
    scores = {
        "value": np.array(found).reshape(-1, len(COLUMNS)),
        "random": score_random(sides, shape, size, seed),
        "centre": score_centre(sides, size),
        "elsewhere": elsewhere,
    }
    table = tabulate_localisation(pairs, scores, labels, boxes.reason, n_replicates, seed)
    reason = f"a heatmap of {size} pixels is one cell, and shows no place" if shape == (1, 1) and len(rows) else ""
    if reason:
        table = table.assign(**dict.fromkeys(("value", "low", "high", *PRIORS), np.nan), reason=reason)
        examples, shown_rows = [], shown_rows[:0]
    write_csv(out / TABLE, table)

    by_pair = dict(zip(zip(pairs["image"], pairs["label"], strict=True), sides, strict=True))
    shown = {}
    for example, row in zip(examples, shown_rows.tolist(), strict=True):
        position = int(datamodule.parts[part]["row"].iloc[row])
        heatmap = maps[places[row], labels.index(example.label)]
        of_one = by_pair.get((example.image, example.label), np.empty((0, 4)))
        shown[example] = Shown(datamodule.store.take([position])[0], heatmap, of_one)
    return Localisation(table, *draw_overlays(shown, out / FOLDER))


def compute_heatmaps(
    networks: Sequence[CXRNet],
    datamodule: CXRDataModule,
    part: str,
    rows: NDArray[np.int64],
    method: Method,
    device: torch.device | str,
) -> NDArray[np.float32]:
    """Compute (N, L, h, w) heatmaps of rows of a part (``make_heatmaps``), averaged over several networks."""
    positions = datamodule.parts[part]["row"].to_numpy(np.int64)[rows]
    homes = [network.head.weight.device for network in networks]
    maps = []
    try:
        for network in networks:
            network.to(device)
        for start in track(range(0, len(rows), datamodule.batch_size), "Computing heatmaps", disable=not len(rows)):
            images = datamodule.store.take(positions[start : start + datamodule.batch_size])
            batch = torch.from_numpy(images).unsqueeze(1).to(device)
            made = [make_heatmaps(network, batch, method).maps for network in networks]
            maps.append(average_heatmaps(torch.stack(made)).cpu().numpy())
    finally:
        for network, home in zip(networks, homes, strict=True):
            network.to(home)
    return np.concatenate(maps) if maps else np.empty((0, len(datamodule.data.labels), 1, 1), np.float32)


def pair_boxes(boxes: Boxes) -> tuple[pd.DataFrame, list[Floats]]:
    """Group boxes by image and label.

    Returns:
        A row per image and label with a box: ``row``, ``image``, ``patient``, ``label``, ``n_boxes``; and the (G, 4)
        boxes of each row.
    """
    keys = ["row", "image", "patient", "label"]
    groups = list(boxes.table.groupby(keys, sort=False))
    sides = [group[list(SIDES)].to_numpy(np.float64) for _, group in groups]
    pairs = pd.DataFrame([key for key, _ in groups], columns=keys)
    return pairs.assign(n_boxes=[len(of_one) for of_one in sides]), sides


def print_localisation(table: pd.DataFrame) -> None:
    """Print the pointing game of each label beside the priors, and the shares found at T = 0.1."""
    shown = Table()
    shown.add_column("label", no_wrap=True)
    for column in ("boxes", "pointing", "95 %", *PRIORS, "IoU > 0.1", "IoBB > 0.1"):
        shown.add_column(column, justify="right")
    for label, rows in table.groupby("label", sort=False):
        pointing = rows[rows["metric"] == "pointing"].iloc[0]
        lowest = rows[rows["threshold"] == rows["threshold"].min()].set_index("metric")["value"]
        interval = "" if np.isnan(pointing["low"]) else f"{pointing['low']:.2f} to {pointing['high']:.2f}"
        numbers = [pointing["value"], *pointing[list(PRIORS)], lowest["iou"], lowest["iobb"]]
        cells = ["" if np.isnan(number) else f"{number:.3f}" for number in numbers]
        style = "bold" if label == "macro" else None
        shown.add_row(str(label), str(pointing["n_boxes"]), cells[0], interval, *cells[1:], style=style)
    print_table(shown)


def _check(predictions: pd.DataFrame, thresholds: Thresholds, images: pd.Index, labels: list[str], part: str) -> None:
    """Check that predictions, thresholds and network share labels and images."""
    for what, there in (("predictions", list_labels(predictions)), ("thresholds", list(thresholds.labels))):
        if there != labels:
            raise DataError(f"the {what} are of {name_some(there)}, the network of {name_some(labels)}")
    unknown = predictions.loc[~predictions["image"].isin(images), "image"].tolist()
    if unknown:
        raise DataError(f"{len(unknown)} predicted images are not in {part}: {name_some(unknown)}")
